import {
  ACL_ACCESS,
  ACL_DEFAULT,
  chmodAcl,
  decodeAcl,
  encodeAcl,
  inheritAcl,
  isMinimal,
  modeOfAcl,
} from '../../proto/acl.js';
import { HoldfastError } from '../../proto/errors.js';
import type { MutationReply, RemoveXattr, SetXattr } from '../../proto/gen/meta.js';
import {
  ACL_ACCESS_NAME,
  ACL_DEFAULT_NAME,
  CAPABILITY_NAME,
  HAS_ACCESS_ACL,
  HAS_CAPABILITY,
  HAS_DEFAULT_ACL,
  S_IFLNK,
  S_IFMT,
  S_ISGID,
  XATTR_CREATE,
  XATTR_LIST_MAX_BYTES,
  XATTR_NAME_MAX_BYTES,
  XATTR_REPLACE,
  XATTR_VALUE_MAX_BYTES,
} from '../../proto/types.js';
import type { KvReader } from '../store/kv.js';
import type { Batch } from './batch.js';
import { checkMayLoseXattr, checkUnguarded } from './flags.js';
import { type Inode, isDirectory, isRegular } from './inode-codec.js';
import { nameOfKey, xattrKey, xattrRange } from './keys.js';
import { okReply } from './replies.js';

const NAMESPACES = ['user.', 'trusted.', 'security.', 'system.'];
const CAPABILITY = Buffer.from(CAPABILITY_NAME);
/** Attributes that mean something here or to the kernel; who knows an inode knows without asking that it lacks them. */
const KINDS: ReadonlyMap<string, number> = new Map([
  [ACL_ACCESS_NAME, HAS_ACCESS_ACL],
  [ACL_DEFAULT_NAME, HAS_DEFAULT_ACL],
  [CAPABILITY_NAME, HAS_CAPABILITY],
]);

/** setxattr(2). */
export function setXattr(batch: Batch, op: SetXattr): MutationReply {
  checkXattrName(op.name);
  if (op.flags & ~(XATTR_CREATE | XATTR_REPLACE)) throw new HoldfastError('EINVAL');
  if (op.value.length > XATTR_VALUE_MAX_BYTES) throw new HoldfastError('E2BIG');
  const inode = batch.inode(op.ino);
  checkUnguarded(inode);
  if (isAcl(op.name)) return setAcl(batch, inode, op);
  const user = op.name.toString('latin1').startsWith('user.');
  if (user && !isRegular(inode) && !isDirectory(inode)) throw new HoldfastError('EPERM');
  const exists = inode.xattrBytes > 0 && batch.txn.get(xattrKey(inode.ino, op.name)) !== undefined;
  if (exists && op.flags & XATTR_CREATE) throw new HoldfastError('EEXIST');
  if (!exists && op.flags & XATTR_REPLACE) throw new HoldfastError('ENODATA');
  checkRoom(batch, inode, op.name);
  put(batch, inode, op.name, op.value);
  return okReply();
}

/**
 * An access list decides over the mode too; one that says no more than a mode is not kept.
 * @throws HoldfastError EOPNOTSUPP on a symbolic link, EACCES for a default list of anything but a directory
 */
function setAcl(batch: Batch, inode: Inode, op: SetXattr): MutationReply {
  if ((inode.mode & S_IFMT) === S_IFLNK) throw new HoldfastError('EOPNOTSUPP');
  const access = op.name.equals(ACL_ACCESS);
  if (!access && !isDirectory(inode)) throw new HoldfastError('EACCES');
  const acl = decodeAcl(op.value);
  checkRoom(batch, inode, op.name);
  if (access) {
    inode.mode = (inode.mode & ~0o777) | modeOfAcl(acl);
    if (op.killSgid) inode.mode &= ~S_ISGID;
  }
  if (access && isMinimal(acl)) remove(batch, inode, op.name);
  else put(batch, inode, op.name, encodeAcl(acl));
  batch.touch(inode);
  return okReply();
}

/** chmod(2) changes the access list with the mode. */
export function chmodAccessAcl(batch: Batch, inode: Inode): void {
  if (!(inode.xattrKinds & HAS_ACCESS_ACL)) return;
  const value = batch.txn.get(xattrKey(inode.ino, ACL_ACCESS));
  if (value) put(batch, inode, ACL_ACCESS, encodeAcl(chmodAcl(decodeAcl(value), inode.mode)));
}

/**
 * Gives a new inode what its directory hands down: with a default list the access list and mode that follow from it and
 * from the mode that was asked for. Without one the mode stays as it is.
 */
export function inheritAcls(batch: Batch, parent: Inode, inode: Inode, askedMode: number): void {
  if (!(parent.xattrKinds & HAS_DEFAULT_ACL) || (inode.mode & S_IFMT) === S_IFLNK) return;
  const value = batch.txn.get(xattrKey(parent.ino, ACL_DEFAULT));
  if (!value) return;
  const access = inheritAcl(decodeAcl(value), askedMode);
  inode.mode = (inode.mode & S_IFMT) | (inode.mode & S_ISGID) | (askedMode & 0o7000) | modeOfAcl(access);
  if (!isMinimal(access)) put(batch, inode, ACL_ACCESS, encodeAcl(access));
  if (isDirectory(inode)) put(batch, inode, ACL_DEFAULT, Buffer.from(value));
}

function isAcl(name: Buffer): boolean {
  return name.equals(ACL_ACCESS) || name.equals(ACL_DEFAULT);
}

/** @throws HoldfastError ENOSPC when listxattr could not return all names */
function checkRoom(batch: Batch, inode: Inode, name: Buffer): void {
  if (inode.xattrBytes + name.length + 1 <= XATTR_LIST_MAX_BYTES) return;
  if (!batch.txn.get(xattrKey(inode.ino, name))) throw new HoldfastError('ENOSPC');
}

function put(batch: Batch, inode: Inode, name: Buffer, value: Buffer): void {
  const key = xattrKey(inode.ino, name);
  if (inode.xattrBytes === 0 || !batch.txn.get(key)) inode.xattrBytes += name.length + 1;
  batch.txn.put(key, Buffer.from(value));
  inode.xattrKinds |= kindOf(name);
  batch.touch(inode);
}

/** The bit of Attr.xattr_kinds that an attribute stands for; 0: none. */
export function kindOf(name: Buffer): number {
  return KINDS.get(name.toString('latin1')) ?? 0;
}

/** removexattr(2). */
export function removeXattr(batch: Batch, op: RemoveXattr): MutationReply {
  checkXattrName(op.name);
  const inode = batch.inode(op.ino);
  checkMayLoseXattr(inode, op.written === true);
  // That an inode has no list is what was asked for: Linux says so of no other attribute.
  if (!remove(batch, inode, op.name) && !isAcl(op.name)) throw new HoldfastError('ENODATA');
  return okReply();
}

/** File capabilities do not outlive a change of the file's content or owner. */
export function dropCapability(batch: Batch, inode: Inode): void {
  remove(batch, inode, CAPABILITY);
}

function remove(batch: Batch, inode: Inode, name: Buffer): boolean {
  const key = xattrKey(inode.ino, name);
  if (inode.xattrBytes === 0 || !batch.txn.get(key)) return false;
  batch.txn.delete(key);
  inode.xattrBytes -= name.length + 1;
  inode.xattrKinds &= ~kindOf(name);
  batch.touch(inode);
  return true;
}

/** getxattr(2). The value is a copy. @throws HoldfastError ENODATA */
export function getXattr(kv: KvReader, inode: Inode, name: Buffer): Buffer {
  checkXattrName(name);
  const value = inode.xattrBytes > 0 ? kv.get(xattrKey(inode.ino, name)) : undefined;
  if (!value) throw new HoldfastError('ENODATA');
  return Buffer.from(value);
}

/** listxattr(2): names in byte order. */
export function listXattr(kv: KvReader, inode: Inode): Buffer[] {
  if (inode.xattrBytes === 0) return [];
  const { start, end } = xattrRange(inode.ino);
  return [...kv.range(start, end)].map(({ key }) => Buffer.from(nameOfKey(key)));
}

/**
 * Names of the four namespaces of xattr(7) pass; of system., access control lists alone.
 * @throws HoldfastError ERANGE (length), EOPNOTSUPP (namespace), EINVAL (nothing behind the namespace, or a NUL)
 */
function checkXattrName(name: Buffer): void {
  if (name.length === 0 || name.length > XATTR_NAME_MAX_BYTES) throw new HoldfastError('ERANGE');
  const text = name.toString('latin1');
  const namespace = NAMESPACES.find((prefix) => text.startsWith(prefix));
  if (!namespace || (namespace === 'system.' && !isAcl(name))) throw new HoldfastError('EOPNOTSUPP');
  if (text.length === namespace.length || text.includes('\0')) throw new HoldfastError('EINVAL');
}
