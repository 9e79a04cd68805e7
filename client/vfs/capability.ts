import { HoldfastError } from '../../proto/errors.js';
import { LeaseMode } from '../../proto/gen/meta.js';
import { CAPABILITY_NAME, HAS_CAPABILITY } from '../../proto/types.js';
import { type Answer, andThen } from '../answer.js';
import type { Caller } from '../fuse/binding.js';
import type { Interrupt } from '../wait.js';
import type { VfsContext } from './context.js';

/** Before a write to a file: its capability ends, whoever writes: root, too, who may keep setuid. */
export function killCapability(context: VfsContext, ino: number, { signal }: Caller): Answer<void> {
  const { inodes } = context;
  const leased = context.mode(ino) !== LeaseMode.LEASE_NONE;
  const known = leased ? inodes.fresh(ino)?.attr : inodes.known(ino);
  return andThen(leased && !known ? context.attr(ino, signal) : known, (attr) =>
    ((attr?.xattrKinds ?? 0) & HAS_CAPABILITY) === 0 ? undefined : removeCapability(context, ino, signal),
  );
}

async function removeCapability(context: VfsContext, ino: number, signal: Interrupt): Promise<void> {
  const value = { ino, name: Buffer.from(CAPABILITY_NAME), written: true };
  try {
    await context.mutateNames([ino], [ino], { $case: 'removeXattr', value }, signal);
  } catch (error) {
    if (!(error instanceof HoldfastError) || error.errorName !== 'ENODATA') throw error;
  } finally {
    context.inodes.xattrsChanged(ino);
  }
  await context.readAttr({ $case: 'getAttr', value: { ino } }, signal);
}
