import { HoldfastError } from '../../proto/errors.js';
import type { MutationReply, RemoveXattr, SetXattr } from '../../proto/gen/meta.js';
import {
  XATTR_CREATE,
  XATTR_LIST_MAX_BYTES,
  XATTR_NAME_MAX_BYTES,
  XATTR_REPLACE,
  XATTR_VALUE_MAX_BYTES,
} from '../../proto/types.js';
import type { KvReader } from '../store/kv.js';
import type { Batch } from './batch.js';
import { type Inode, isDirectory, isRegular } from './inode-codec.js';
import { nameOfKey, xattrKey, xattrRange } from './keys.js';
import { okReply } from './replies.js';

const NAMESPACES = ['user.', 'trusted.', 'security.', 'system.'];
const ACL_PREFIX = 'system.posix_acl_';
const CAPABILITY = Buffer.from('security.capability');

/** setxattr(2). */
export function setXattr(batch: Batch, op: SetXattr): MutationReply {
  checkXattrName(op.name);
  if (op.flags & ~(XATTR_CREATE | XATTR_REPLACE)) throw new HoldfastError('EINVAL');
  if (op.value.length > XATTR_VALUE_MAX_BYTES) throw new HoldfastError('E2BIG');
  const inode = batch.inode(op.ino);
  const user = op.name.toString('latin1').startsWith('user.');
  if (user && !isRegular(inode) && !isDirectory(inode)) throw new HoldfastError('EPERM');
  const key = xattrKey(inode.ino, op.name);
  const exists = inode.xattrBytes > 0 && batch.txn.get(key) !== undefined;
  if (exists && op.flags & XATTR_CREATE) throw new HoldfastError('EEXIST');
  if (!exists && op.flags & XATTR_REPLACE) throw new HoldfastError('ENODATA');
  const listed = inode.xattrBytes + (exists ? 0 : op.name.length + 1);
  if (listed > XATTR_LIST_MAX_BYTES) throw new HoldfastError('ENOSPC');

  batch.txn.put(key, Buffer.from(op.value));
  inode.xattrBytes = listed;
  batch.touch(inode);
  return okReply();
}

/** removexattr(2). */
export function removeXattr(batch: Batch, op: RemoveXattr): MutationReply {
  checkXattrName(op.name);
  const inode = batch.inode(op.ino);
  if (!remove(batch, inode, op.name)) throw new HoldfastError('ENODATA');
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
 * Names of the four namespaces of xattr(7) pass; access control lists are not kept.
 * @throws HoldfastError ERANGE (length), EOPNOTSUPP (namespace), EINVAL (nothing behind the namespace, or a NUL)
 */
function checkXattrName(name: Buffer): void {
  if (name.length === 0 || name.length > XATTR_NAME_MAX_BYTES) throw new HoldfastError('ERANGE');
  const text = name.toString('latin1');
  const namespace = NAMESPACES.find((prefix) => text.startsWith(prefix));
  if (!namespace || text.startsWith(ACL_PREFIX)) throw new HoldfastError('EOPNOTSUPP');
  if (text.length === namespace.length || text.includes('\0')) throw new HoldfastError('EINVAL');
}
