import { HoldfastError } from '../../proto/errors.js';
import {
  ACL_ACCESS_NAME,
  ACL_DEFAULT_NAME,
  CAPABILITY_NAME,
  HAS_ACCESS_ACL,
  HAS_CAPABILITY,
  HAS_DEFAULT_ACL,
  XATTR_NAME_MAX_BYTES,
  XATTR_VALUE_MAX_BYTES,
} from '../../proto/types.js';
import type { Caller } from '../fuse/binding.js';
import { resultOf } from '../meta/api.js';
import { staleIfGone, type VfsContext } from './context.js';

const CAPABILITY = Buffer.from(CAPABILITY_NAME);
const TRUSTED_PREFIX = Buffer.from('trusted.');
const SYSTEM_PREFIX = Buffer.from('system.');
/** Attributes that the kernel asks for by itself, again and again: their absence is among what is known of an inode. */
const KINDS: ReadonlyMap<string, number> = new Map([
  [ACL_ACCESS_NAME, HAS_ACCESS_ACL],
  [ACL_DEFAULT_NAME, HAS_DEFAULT_ACL],
  [CAPABILITY_NAME, HAS_CAPABILITY],
]);

/** Extended attributes. Of `system.` there are access control lists, which the kernel checks. */
export class XattrCalls {
  readonly #context: VfsContext;

  constructor(context: VfsContext) {
    this.#context = context;
  }

  async get(caller: Caller, ino: number, name: Buffer): Promise<Buffer> {
    checkXattrName(name);
    const { meta, inodes } = this.#context;
    const isCapability = name.equals(CAPABILITY);
    const kind = KINDS.get(name.toString('latin1')) ?? 0;
    const known = kind ? inodes.fresh(ino) : undefined;
    if (known && ((known.attr.xattrKinds ?? 0) & kind) === 0) throw new HoldfastError('ENODATA');
    if (isCapability && inodes.hasNoCapability(ino)) throw new HoldfastError('ENODATA');
    try {
      const op = { $case: 'getXattr' as const, value: { ino, name } };
      return resultOf(await staleIfGone(meta.read(op, caller.signal)), 'value');
    } catch (error) {
      if (isCapability && error instanceof HoldfastError && error.errorName === 'ENODATA') {
        inodes.setNoCapability(ino);
      }
      throw error;
    }
  }

  async set(
    caller: Caller,
    ino: number,
    name: Buffer,
    value: Buffer,
    flags: number,
    killSgid: boolean,
  ): Promise<void> {
    checkXattrName(name);
    if (value.length > XATTR_VALUE_MAX_BYTES) throw new HoldfastError('E2BIG');
    this.#context.inodes.capabilityChanged(ino);
    const op = { $case: 'setXattr' as const, value: { ino, name, value, flags, killSgid } };
    await staleIfGone(this.#context.mutateNames(op, caller.signal));
  }

  async list(caller: Caller, ino: number): Promise<Buffer[]> {
    const { meta } = this.#context;
    const result = await staleIfGone(meta.read({ $case: 'listXattr', value: { ino } }, caller.signal));
    const { names } = resultOf(result, 'names');
    // xattr(7): they exist for those with CAP_SYS_ADMIN alone. The kernel checks the other calls.
    return caller.uid === 0 ? names : names.filter((name) => !startsWith(name, TRUSTED_PREFIX));
  }

  async remove(caller: Caller, ino: number, name: Buffer): Promise<void> {
    checkXattrName(name);
    this.#context.inodes.capabilityChanged(ino);
    const op = { $case: 'removeXattr' as const, value: { ino, name } };
    await staleIfGone(this.#context.mutateNames(op, caller.signal));
  }
}

function checkXattrName(name: Buffer): void {
  if (name.length > XATTR_NAME_MAX_BYTES) throw new HoldfastError('ERANGE');
  if (startsWith(name, SYSTEM_PREFIX) && !KINDS.has(name.toString('latin1')))
    throw new HoldfastError('EOPNOTSUPP');
}

function startsWith(name: Buffer, prefix: Buffer): boolean {
  return name.subarray(0, prefix.length).equals(prefix);
}
