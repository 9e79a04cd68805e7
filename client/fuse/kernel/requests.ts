import type { FileLock, SetAttrRequest, WriteRequest } from '../binding.js';
import type { RequestBuffer } from './call.js';
import {
  F_RDLCK,
  F_UNLCK,
  F_WRLCK,
  LK_FLOCK,
  SETXATTR_ACL_KILL_SGID,
  SetattrValid,
  WRITE_CACHE,
  WRITE_IN_BYTES,
  WRITE_KILL_SUIDGID,
  WRITE_LOCKOWNER,
} from './protocol.js';
import { ARGS_AT, copyOf, readLockOffset, readName, readTimespec, readU64 } from './wire.js';

/**
 * Decoders of request arguments, where they are more than a field or two. All copy what outlives the call: the
 * buffer is used again. They throw RangeError on a request that is shorter than its layout.
 */

/** One NUL-terminated name at `at`. */
export function nameAt(request: RequestBuffer, at: number): Buffer {
  return readName(request.buf, at, request.end).name;
}

/** Two NUL-terminated names, one behind the other. */
export function twoNamesAt(request: RequestBuffer, at: number): [Buffer, Buffer] {
  const first = readName(request.buf, at, request.end);
  return [first.name, readName(request.buf, first.next, request.end).name];
}

/** struct fuse_setattr_in, 88 bytes. */
export function readSetattr({ buf }: RequestBuffer): SetAttrRequest {
  const valid = buf.readUInt32LE(ARGS_AT);
  const change: SetAttrRequest = {};
  if (valid & SetattrValid.FH) change.handle = readU64(buf, ARGS_AT + 8);
  if (valid & SetattrValid.SIZE) change.size = readU64(buf, ARGS_AT + 16);
  if (valid & SetattrValid.LOCKOWNER) change.lockOwner = buf.readBigUInt64LE(ARGS_AT + 24);
  if (valid & SetattrValid.ATIME_NOW) change.atime = 'now';
  else if (valid & SetattrValid.ATIME) change.atime = readTimespec(buf, ARGS_AT + 32, ARGS_AT + 56);
  if (valid & SetattrValid.MTIME_NOW) change.mtime = 'now';
  else if (valid & SetattrValid.MTIME) change.mtime = readTimespec(buf, ARGS_AT + 40, ARGS_AT + 60);
  if (valid & SetattrValid.CTIME) change.ctime = readTimespec(buf, ARGS_AT + 48, ARGS_AT + 64);
  if (valid & SetattrValid.MODE) change.mode = buf.readUInt32LE(ARGS_AT + 68);
  if (valid & SetattrValid.UID) change.uid = buf.readUInt32LE(ARGS_AT + 76);
  if (valid & SetattrValid.GID) change.gid = buf.readUInt32LE(ARGS_AT + 80);
  if (valid & SetattrValid.KILL_SUIDGID) change.killPriv = true;
  return change;
}

/** struct fuse_write_in and its data; large data is a slice of the request's own buffer, given away. */
export function readWrite(request: RequestBuffer): WriteRequest {
  const { buf } = request;
  const size = buf.readUInt32LE(ARGS_AT + 16);
  const from = ARGS_AT + WRITE_IN_BYTES;
  if (from + size > request.end) throw new RangeError('a write with less data than it says');
  const writeFlags = buf.readUInt32LE(ARGS_AT + 20);
  const write: WriteRequest = {
    handle: readU64(buf, ARGS_AT),
    offset: readU64(buf, ARGS_AT + 8),
    data: request.take(from, from + size),
    fromCache: (writeFlags & WRITE_CACHE) !== 0,
    killPriv: (writeFlags & WRITE_KILL_SUIDGID) !== 0,
    flags: buf.readUInt32LE(ARGS_AT + 32),
  };
  if (writeFlags & WRITE_LOCKOWNER) write.lockOwner = buf.readBigUInt64LE(ARGS_AT + 24);
  return write;
}

const LOCK_TYPES = new Map<number, FileLock['type']>([
  [F_RDLCK, 'read'],
  [F_WRLCK, 'write'],
  [F_UNLCK, 'unlock'],
]);

export interface LockRequest {
  handle: number;
  owner: bigint;
  lock: FileLock;
  flock: boolean;
}

/** struct fuse_lk_in. */
export function readLock({ buf }: RequestBuffer): LockRequest {
  const type = LOCK_TYPES.get(buf.readUInt32LE(ARGS_AT + 32));
  if (!type) throw new RangeError('an unknown type of lock');
  return {
    handle: readU64(buf, ARGS_AT),
    owner: buf.readBigUInt64LE(ARGS_AT + 8),
    lock: {
      start: readLockOffset(buf, ARGS_AT + 16),
      end: readLockOffset(buf, ARGS_AT + 24),
      type,
      pid: buf.readUInt32LE(ARGS_AT + 36),
    },
    flock: (buf.readUInt32LE(ARGS_AT + 40) & LK_FLOCK) !== 0,
  };
}

export interface XattrRequest {
  name: Buffer;
  value: Buffer;
  flags: number;
  /** FUSE_SETXATTR_ACL_KILL_SGID. */
  killSgid: boolean;
}

/** struct fuse_setxattr_in in its long form (FUSE_SETXATTR_EXT, 16 bytes) or its short one (8 bytes). */
export function readSetxattr({ buf, end }: RequestBuffer, extended: boolean): XattrRequest {
  const size = buf.readUInt32LE(ARGS_AT);
  const { name, next } = readName(buf, ARGS_AT + (extended ? 16 : 8), end);
  if (next + size > end) throw new RangeError('a value with fewer bytes than it says');
  const killSgid = extended && (buf.readUInt32LE(ARGS_AT + 8) & SETXATTR_ACL_KILL_SGID) !== 0;
  return { name, value: copyOf(buf, next, next + size), flags: buf.readUInt32LE(ARGS_AT + 4), killSgid };
}

/** struct fuse_batch_forget_in: calls `forget` for each inode and its count. */
export function readBatchForget(
  { buf, end }: RequestBuffer,
  forget: (ino: number, count: number) => void,
): void {
  const count = buf.readUInt32LE(ARGS_AT);
  const from = ARGS_AT + 8;
  if (from + count * 16 > end) throw new RangeError('fewer forgets than it says');
  for (let at = from; at < from + count * 16; at += 16) forget(readU64(buf, at), readU64(buf, at + 8));
}
