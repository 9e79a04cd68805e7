import { ACL_ACCESS, ACL_DEFAULT, decodeAcl, isMinimal, modeOfAcl } from '../../proto/acl.js';
import { HoldfastError } from '../../proto/errors.js';
import { isGuarded } from '../../proto/inode-flags.js';
import {
  ACL_ACCESS_NAME,
  ACL_DEFAULT_NAME,
  CAPABILITY_NAME,
  HAS_ACCESS_ACL,
  HAS_CAPABILITY,
  HAS_DEFAULT_ACL,
  S_ISGID,
  XATTR_NAME_MAX_BYTES,
  XATTR_VALUE_MAX_BYTES,
} from '../../proto/types.js';
import { type Answer, andThen } from '../answer.js';
import type { Caller } from '../fuse/binding.js';
import { type MutationOp, resultOf } from '../meta/api.js';
import { staleIfGone, type VfsContext } from './context.js';
import type { LocalChanges } from './local-changes.js';
import { checkOwner } from './ownership.js';
import type { RemovedDirectories } from './removed-directories.js';

const TRUSTED_PREFIX = Buffer.from('trusted.');
const SYSTEM_PREFIX = Buffer.from('system.');
const NAMESPACES = [Buffer.from('user.'), TRUSTED_PREFIX, Buffer.from('security.'), SYSTEM_PREFIX];
/**
 * SELinux takes the labels of a FUSE mount from its policy (genfscon) and never asks for this one. Where it is off, programs
 * like `ls -l` ask for it for every name, until they hear once that the file system has no labels, as NFS says it.
 */
const SELINUX_LABEL = Buffer.from('security.selinux');
/** setuid, setgid, sticky. */
const SPECIAL_BITS = 0o7000;
/** Who may set an access list may change the mode. */
const CHANGE_OF_MODE = { mode: 0 };
/** Attributes that the kernel asks for by itself, again and again: their absence is among what is known of an inode. */
const KINDS: ReadonlyMap<string, number> = new Map([
  [ACL_ACCESS_NAME, HAS_ACCESS_ACL],
  [ACL_DEFAULT_NAME, HAS_DEFAULT_ACL],
  [CAPABILITY_NAME, HAS_CAPABILITY],
]);

function isAcl(name: Buffer): boolean {
  return name.equals(ACL_ACCESS) || name.equals(ACL_DEFAULT);
}

/** Extended attributes. Of `system.` there are access control lists, which the kernel checks. */
export class XattrCalls {
  readonly #context: VfsContext;
  readonly #local: LocalChanges;
  readonly #removed: RemovedDirectories;

  constructor(context: VfsContext, local: LocalChanges, removed: RemovedDirectories) {
    this.#context = context;
    this.#local = local;
    this.#removed = removed;
  }

  /** @returns undefined: there is none */
  get(caller: Caller, ino: number, name: Buffer): Answer<Buffer | undefined> {
    const { inodes } = this.#context;
    const key = name.toString('latin1');
    const kind = KINDS.get(key) ?? 0;
    if (kind === 0) checkXattrName(name);
    const kept = this.#removed.of(ino);
    if (kept) return kept.get(key);
    const attr = inodes.fresh(ino)?.attr;
    const lacksKind = kind !== 0 && ((attr?.xattrKinds ?? 0) & kind) === 0;
    if (attr && (attr.hasXattrs === false || lacksKind)) return undefined;
    const known = inodes.xattr(ino, key);
    if (known === 'absent') return undefined;
    return known ?? this.#ask(caller, ino, name, key);
  }

  async #ask(caller: Caller, ino: number, name: Buffer, key: string): Promise<Buffer | undefined> {
    const { inodes } = this.#context;
    const asked = inodes.stamp();
    try {
      const op = { $case: 'getXattr' as const, value: { ino, name } };
      const { result, asOf } = await staleIfGone(this.#context.askFor(ino, op, caller.signal));
      const value = resultOf(result, 'value');
      inodes.learnXattr(ino, key, value, { ...asked, asOf });
      return value;
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.errorName !== 'ENODATA') throw error;
      inodes.learnXattr(ino, key, undefined, asked);
      return undefined;
    }
  }

  set(
    caller: Caller,
    ino: number,
    name: Buffer,
    value: Buffer,
    flags: number,
    killSgid: boolean,
  ): Answer<void> {
    return andThen(this.#checkMayChange(caller, ino, name), () => {
      checkXattrName(name);
      if (value.length > XATTR_VALUE_MAX_BYTES) throw new HoldfastError('E2BIG');
      const kept = this.#removed.of(ino);
      const key = name.toString('latin1');
      if (kept && !KINDS.has(key)) return this.#removed.set(ino, kept, key, value, flags);
      if (name.equals(ACL_ACCESS) && this.#setMode(ino, value, killSgid)) return;
      const op = { $case: 'setXattr' as const, value: { ino, name, value, flags, killSgid } };
      return this.#change(caller, ino, op);
    });
  }

  /**
   * An access list that says no more than a mode is a chmod(2): `cp -p` and the like give one to every file.
   * @returns whether it was made here. @throws HoldfastError EINVAL
   */
  #setMode(ino: number, list: Buffer, killSgid: boolean): boolean {
    const { inodes, files } = this.#context;
    const attr = inodes.fresh(ino)?.attr;
    const acl = decodeAcl(list);
    if (!attr || !isMinimal(acl)) return false;
    const kept = attr.mode & SPECIAL_BITS & (killSgid ? ~S_ISGID : ~0);
    const after = this.#local.setAttr(ino, { mode: kept | modeOfAcl(acl) });
    if (!after) return false;
    files.get(ino)?.applyAttr(after, true);
    files.get(ino)?.timesSet(after, false);
    return true;
  }

  list(caller: Caller, ino: number): Answer<Buffer[]> {
    const { inodes } = this.#context;
    const kept = this.#removed.of(ino);
    if (!kept && inodes.fresh(ino)?.attr.hasXattrs === false) return [];
    const known = kept ? [...kept.keys()].map((key) => Buffer.from(key, 'latin1')) : inodes.xattrNames(ino);
    // xattr(7): they exist for those with CAP_SYS_ADMIN alone. The kernel checks the other calls.
    const hidesTrusted = caller.uid !== 0;
    return andThen(known ?? this.#askForNames(caller, ino), (names) =>
      names.filter(
        (name) => !(hidesTrusted && startsWith(name, TRUSTED_PREFIX)) && !name.equals(SELINUX_LABEL),
      ),
    );
  }

  async #askForNames(caller: Caller, ino: number): Promise<Buffer[]> {
    const op = { $case: 'listXattr' as const, value: { ino } };
    const { epoch } = this.#context.inodes;
    const { result, asOf } = await staleIfGone(this.#context.askFor(ino, op, caller.signal));
    const { names } = resultOf(result, 'names');
    this.#context.inodes.learnXattrNames(ino, names, { asOf, epoch });
    return names;
  }

  async remove(caller: Caller, ino: number, name: Buffer): Promise<void> {
    await this.#checkMayChange(caller, ino, name);
    checkXattrName(name);
    const kept = this.#removed.of(ino);
    if (kept) return this.#removed.remove(ino, kept, name.toString('latin1'));
    const op = { $case: 'removeXattr' as const, value: { ino, name } };
    await this.#change(caller, ino, op);
  }

  /** Of an immutable or append-only inode none is changed, and an access list by its owner alone. @throws HoldfastError EPERM */
  #checkMayChange(caller: Caller, ino: number, name: Buffer): Answer<void> {
    const { inodes } = this.#context;
    const owned = isAcl(name) ? checkOwner(this.#context, caller, ino, CHANGE_OF_MODE) : undefined;
    const known = inodes.known(ino);
    if (!known || !isGuarded(known)) return owned;
    return andThen(owned, () =>
      andThen(inodes.fresh(ino)?.attr ?? this.#context.attr(ino, caller.signal), (attr) => {
        if (isGuarded(attr)) throw new HoldfastError('EPERM');
      }),
    );
  }

  async #change(caller: Caller, ino: number, op: MutationOp): Promise<void> {
    const { inodes } = this.#context;
    inodes.xattrsChanged(ino);
    await this.#context.changing(ino, async () => {
      try {
        await staleIfGone(this.#context.mutateNames([ino], [ino], op, caller.signal));
      } finally {
        inodes.xattrsChanged(ino);
      }
    });
  }
}

function checkXattrName(name: Buffer): void {
  if (name.length > XATTR_NAME_MAX_BYTES) throw new HoldfastError('ERANGE');
  const namespace = NAMESPACES.find((prefix) => startsWith(name, prefix));
  if (!namespace || name.equals(SELINUX_LABEL)) throw new HoldfastError('EOPNOTSUPP');
  if (name.length === namespace.length && namespace !== SYSTEM_PREFIX) throw new HoldfastError('EINVAL');
  if (startsWith(name, SYSTEM_PREFIX) && !KINDS.has(name.toString('latin1')))
    throw new HoldfastError('EOPNOTSUPP');
}

function startsWith(name: Buffer, prefix: Buffer): boolean {
  return name.subarray(0, prefix.length).equals(prefix);
}
