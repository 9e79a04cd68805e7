import { HoldfastError } from '../../proto/errors.js';
import { XATTR_NAME_MAX_BYTES, XATTR_VALUE_MAX_BYTES } from '../../proto/types.js';
import type { Caller } from '../fuse/binding.js';
import { resultOf } from '../meta/api.js';
import { staleIfGone, type VfsContext } from './context.js';

const CAPABILITY = Buffer.from('security.capability');
const TRUSTED_PREFIX = Buffer.from('trusted.');
const SYSTEM_PREFIX = Buffer.from('system.');

/** Extended attributes. Those of `system.` have a meaning to the kernel (ACLs) that is not kept here. */
export class XattrCalls {
  readonly #context: VfsContext;

  constructor(context: VfsContext) {
    this.#context = context;
  }

  async get(caller: Caller, ino: number, name: Buffer): Promise<Buffer> {
    checkXattrName(name);
    const { meta, inodes } = this.#context;
    const isCapability = name.equals(CAPABILITY);
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

  async set(caller: Caller, ino: number, name: Buffer, value: Buffer, flags: number): Promise<void> {
    checkXattrName(name);
    if (value.length > XATTR_VALUE_MAX_BYTES) throw new HoldfastError('E2BIG');
    this.#context.inodes.capabilityChanged(ino);
    const op = { $case: 'setXattr' as const, value: { ino, name, value, flags } };
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
  if (startsWith(name, SYSTEM_PREFIX)) throw new HoldfastError('EOPNOTSUPP');
}

function startsWith(name: Buffer, prefix: Buffer): boolean {
  return name.subarray(0, prefix.length).equals(prefix);
}
