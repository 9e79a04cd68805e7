import type { Disk, DiskFile } from './disk.js';
import { type Tracer, traced } from './trace.js';

const STAGE_OF_CALL = { write: 'store', read: 'store', datasync: 'sync' } as const;

function stageOfCall(method: string): 'store' | 'sync' | undefined {
  return method in STAGE_OF_CALL ? STAGE_OF_CALL[method as keyof typeof STAGE_OF_CALL] : undefined;
}

/**
 * A disk whose writes, reads and syncs are noted. A sync that several requests share belongs to the one that began it.
 * @param what is kept there: the first words of the spans' names
 */
export function tracedDisk(disk: Disk, tracer: Tracer, what: string): Disk {
  const own: Pick<Disk, 'open'> = {
    open: async (file, mode): Promise<DiskFile> =>
      traced(await disk.open(file, mode), tracer, `${what} `, stageOfCall),
  };
  return new Proxy(disk, {
    get(target, property) {
      if (property === 'open') return own.open;
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
