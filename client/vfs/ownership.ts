import { HoldfastError } from '../../proto/errors.js';
import type { Attr } from '../../proto/gen/meta.js';
import { type Answer, andThen } from '../answer.js';
import type { Caller, SetAttrRequest } from '../fuse/binding.js';
import type { VfsContext } from './context.js';
import { processStatus } from './privileges.js';

/** Bits of CapEff in /proc/PID/status (capabilities(7)): who has one may change so what is another user's. */
const CAP_CHOWN = 1n << 0n;
const CAP_FOWNER = 1n << 3n;

/** What of a change is the owner's alone, as capabilities of others who may make it (setattr_prepare() of Linux); 0: nothing. */
function needed({ mode, uid, gid, atime, mtime }: SetAttrRequest): bigint {
  const setsTime = typeof atime === 'object' || typeof mtime === 'object';
  const owners = mode !== undefined || setsTime ? CAP_FOWNER : 0n;
  return uid !== undefined || gid !== undefined ? owners | CAP_CHOWN : owners;
}

/**
 * The kernel checks a change against the owner that it was told last, valid or not: a descriptor of an inode that another mount
 * has given away would do for its former owner. So that is looked at again, asked for where no lease protects it.
 * @throws HoldfastError EPERM
 */
export function checkOwner(
  context: VfsContext,
  caller: Caller,
  ino: number,
  change: SetAttrRequest,
): Answer<void> {
  const wanted = caller.uid === 0 ? 0n : needed(change);
  if (wanted === 0n) return;
  const known = context.removedForGood(ino) ?? context.inodes.fresh(ino)?.attr;
  const asked = (): Promise<Attr> =>
    context.attr(ino, caller.signal).catch((error: unknown) => context.forgotten(ino, error));
  return andThen(known ?? asked(), ({ uid }) =>
    uid === caller.uid ? undefined : checkCapable(caller, wanted),
  );
}

async function checkCapable({ pid }: Caller, wanted: bigint): Promise<void> {
  if ((wanted & ~(await effectiveCapabilities(pid))) !== 0n) throw new HoldfastError('EPERM');
}

/** None when the process is not visible here, or has ended. */
async function effectiveCapabilities(pid: number): Promise<bigint> {
  const hex = /^CapEff:\s*([0-9a-f]+)$/m.exec(await processStatus(pid))?.[1];
  return hex === undefined ? 0n : BigInt(`0x${hex}`);
}
