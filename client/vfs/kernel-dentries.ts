import { LruMap } from '../../common/lru-map.js';
import { HoldfastError } from '../../proto/errors.js';

/** Names remembered; of another one it is not known what the kernel takes it for. */
const NAMES_MAX = 16_384;

/**
 * Which directories names stand for in the kernel, whether they may still be believed there or not. The kernel looks a name
 * up, takes its lock on the directory around it, and asks for the removal, or for another directory in its place; behind the
 * answer it marks the inode dead that it found, whatever was removed: as long as that inode is in use, no name can be made in
 * it. Where another mount gave the name to something else in between, the call is refused with ESTALE: the kernel looks the
 * name up again, and repeats the call once (vfs_rmdir, vfs_rename and retry_estale in Linux' fs/namei.c).
 */
export class KernelDentries {
  readonly #directories = new LruMap<string, number>();

  /** The kernel is told what a name stands for. @param directory the inode, if that is a directory; 0: something else, or nothing */
  told(parent: number, name: Buffer, directory: number): void {
    if (directory === 0) {
      if (this.#directories.size > 0) this.#directories.delete(keyOf(parent, name));
      return;
    }
    this.#directories.set(keyOf(parent, name), directory);
    if (this.#directories.size > NAMES_MAX) this.#directories.shift();
  }

  /** When a call arrives that removes the name: the kernel asks for nothing of that name until it is answered. */
  get(parent: number, name: Buffer): number | undefined {
    return this.#directories.size > 0 ? this.#directories.peek(keyOf(parent, name)) : undefined;
  }

  /** The kernel moves what it has of one name to another. */
  moved(parent: number, name: Buffer, newParent: number, newName: Buffer, exchange: boolean): void {
    const [from, to] = [this.get(parent, name), this.get(newParent, newName)];
    this.told(parent, name, (exchange && to) || 0);
    this.told(newParent, newName, from ?? 0);
  }
}

/** @throws HoldfastError ESTALE: the kernel takes a name for another directory than it stands for, so far as both are known */
export function checkTaken(taken: number | undefined, standsFor: number | 'absent' | undefined): void {
  if (taken !== undefined && standsFor !== undefined && taken !== standsFor)
    throw new HoldfastError('ESTALE');
}

function keyOf(parent: number, name: Buffer): string {
  return `${parent}/${name.toString('latin1')}`;
}
