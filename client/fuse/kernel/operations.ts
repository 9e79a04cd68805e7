import { HoldfastError } from '../../../proto/errors.js';
import { type Answer, andThen } from '../../answer.js';
import type { DirEntry, FileSystem } from '../binding.js';
import type { Call, RequestBuffer } from './call.js';
import { controlFile } from './ioctls.js';
import {
  FSYNC_FDATASYNC,
  GETATTR_FH,
  OPEN_KILL_SUIDGID,
  Opcode,
  RELEASE_FLOCK_UNLOCK,
  RELEASE_FLUSH,
} from './protocol.js';
import {
  encodeListing,
  writeAttrReply,
  writeCount,
  writeCreate,
  writeEntry,
  writeLock,
  writeOffset,
  writeOpen,
  writeStatfs,
  writeStatx,
} from './replies.js';
import { nameAt, readLock, readSetattr, readSetxattr, readWrite, twoNamesAt } from './requests.js';
import { ARGS_AT, copyOf, readU64 } from './wire.js';

/** What a handler sees of the session. */
export interface OperationContext {
  fs: FileSystem;
  /** The long form of SETXATTR was agreed at INIT. */
  setxattrExt: boolean;
  /** Whether another request may wait for a lock: see MAX_LOCK_WAITS. */
  mayWaitForLock(): boolean;
}

/** One kind of request: how to ask the file system, and how to encode its answer. */
export interface Operation {
  /**
   * Decodes the arguments and calls the file system. `request` is valid only until it returns.
   * @returns LACKING when the file system lacks the method: the kernel is told ENOSYS
   */
  run(context: OperationContext, call: Call, request: RequestBuffer): unknown;
  /** Writes the answer at `at` and returns its length, or a negative errno; or returns its buffers. */
  encode(out: Buffer, at: number, result: unknown): number | readonly Buffer[];
}

/** In the place of an answer: the file system does not have the method. */
export const LACKING = Symbol('lacking');

/** Ties the type of a method's result to its encoder; the table forgets it. */
function operation<T>(
  run: (context: OperationContext, call: Call, request: RequestBuffer) => Answer<T> | typeof LACKING,
  encode: (out: Buffer, at: number, result: T) => number | readonly Buffer[],
): Operation {
  return { run, encode: (out, at, result) => encode(out, at, result as T) };
}

const nothing = (): number => 0;
const buffers = (_out: Buffer, _at: number, result: readonly Buffer[]): readonly Buffer[] => result;

const ENODATA = 61;
/** Clamped to what struct fuse_write_out can answer, on a block boundary. */
const COPY_MAX_BYTES = 0xffff_f000;
/** With names of 16 bytes; entries that find no room are asked for again. */
const TYPICAL_DIRENT_BYTES = 40;
const TYPICAL_DIRENTPLUS_BYTES = 168;

function listing(plus: boolean): Operation {
  return operation(({ fs }, call, { buf }) => {
    const size = buf.readUInt32LE(ARGS_AT + 16);
    const maxEntries = Math.ceil(size / (plus ? TYPICAL_DIRENTPLUS_BYTES : TYPICAL_DIRENT_BYTES));
    // seekdir() takes any number: beyond what cookies can be there is nothing.
    const cookie = Math.min(readU64(buf, ARGS_AT + 8), Number.MAX_SAFE_INTEGER);
    const listed = fs.readdir(call, call.ino, readU64(buf, ARGS_AT), cookie, maxEntries, plus);
    return andThen(listed, (entries) => fitListing(fs, entries, size, plus));
  }, buffers);
}

/** Encodes what fits, and gives back the lookups of what does not. */
function fitListing(fs: FileSystem, entries: readonly DirEntry[], size: number, plus: boolean): Buffer[] {
  const { listing: bytes, taken } = encodeListing(entries, size, plus);
  for (let i = taken; i < entries.length; i++) {
    const entry = entries[i]!.entry;
    if (entry && entry.attr.ino !== 0) fs.forget(entry.attr.ino, 1);
  }
  return [bytes];
}

/** The two-step protocol of getxattr and listxattr: with size 0 only the length is asked for. */
function encodeSized(out: Buffer, at: number, { size, value }: { size: number; value: Buffer | undefined }) {
  if (!value) return -ENODATA;
  if (size === 0) return writeCount(out, at, value.length);
  if (value.length > size) throw new HoldfastError('ERANGE');
  return [value];
}

function setlk(wait: boolean): Operation {
  return operation(({ fs, mayWaitForLock }, call, request) => {
    if (!fs.setlk) return LACKING;
    const { handle, owner, lock, flock } = readLock(request);
    if (wait && lock.type !== 'unlock' && !mayWaitForLock()) throw new HoldfastError('ENOLCK');
    return fs.setlk(call, call.ino, handle, owner, lock, { wait, flock });
  }, nothing);
}

function rename(argBytes: number): Operation {
  return operation(({ fs }, call, request) => {
    const [name, newName] = twoNamesAt(request, ARGS_AT + argBytes);
    const flags = argBytes > 8 ? request.buf.readUInt32LE(ARGS_AT + 8) : 0;
    const newParent = readU64(request.buf, ARGS_AT);
    call.newParent = newParent;
    return fs.rename(call, call.ino, name, newParent, newName, flags);
  }, nothing);
}

/** An open for an ioctl of the kernel's own has no flag at all; those of programs have O_LARGEFILE, but for old ones of 32 bits. */
function isKernels(flags: number): boolean {
  return flags === 0;
}

function fsync(directory: boolean): Operation {
  return operation(({ fs }, call, { buf }) => {
    const handle = readU64(buf, ARGS_AT);
    const dataOnly = (buf.readUInt32LE(ARGS_AT + 8) & FSYNC_FDATASYNC) !== 0;
    return directory
      ? fs.fsyncdir(call, call.ino, handle, dataOnly)
      : fs.fsync(call, call.ino, handle, dataOnly);
  }, nothing);
}

/** Entries, names and attributes. */
const NAMESPACE: ReadonlyArray<readonly [number, Operation]> = [
  [
    Opcode.LOOKUP,
    operation(({ fs }, call, request) => fs.lookup(call, call.ino, nameAt(request, ARGS_AT)), writeEntry),
  ],
  [
    Opcode.GETATTR,
    operation(({ fs }, call, { buf }) => {
      const withHandle = (buf.readUInt32LE(ARGS_AT) & GETATTR_FH) !== 0;
      return fs.getattr(call, call.ino, withHandle ? readU64(buf, ARGS_AT + 8) : undefined);
    }, writeAttrReply),
  ],
  [
    Opcode.STATX,
    operation(({ fs }, call, { buf }) => {
      const withHandle = (buf.readUInt32LE(ARGS_AT) & GETATTR_FH) !== 0;
      return fs.getattr(call, call.ino, withHandle ? readU64(buf, ARGS_AT + 8) : undefined);
    }, writeStatx),
  ],
  [
    Opcode.SETATTR,
    operation(({ fs }, call, request) => fs.setattr(call, call.ino, readSetattr(request)), writeAttrReply),
  ],
  [
    Opcode.READLINK,
    operation(
      ({ fs }, call) => fs.readlink(call, call.ino),
      (_out, _at, target) => [target],
    ),
  ],
  [
    Opcode.SYMLINK,
    operation(({ fs }, call, request) => {
      const [name, target] = twoNamesAt(request, ARGS_AT);
      return fs.symlink(call, call.ino, name, target);
    }, writeEntry),
  ],
  [
    Opcode.MKNOD,
    operation(({ fs }, call, request) => {
      const { buf } = request;
      const name = nameAt(request, ARGS_AT + 16);
      const mode = buf.readUInt32LE(ARGS_AT);
      return fs.mknod(
        call,
        call.ino,
        name,
        mode,
        buf.readUInt32LE(ARGS_AT + 4),
        buf.readUInt32LE(ARGS_AT + 8),
      );
    }, writeEntry),
  ],
  [
    Opcode.MKDIR,
    operation(({ fs }, call, request) => {
      const { buf } = request;
      const name = nameAt(request, ARGS_AT + 8);
      return fs.mkdir(call, call.ino, name, buf.readUInt32LE(ARGS_AT), buf.readUInt32LE(ARGS_AT + 4));
    }, writeEntry),
  ],
  [
    Opcode.UNLINK,
    operation(({ fs }, call, request) => fs.unlink(call, call.ino, nameAt(request, ARGS_AT)), nothing),
  ],
  [
    Opcode.RMDIR,
    operation(({ fs }, call, request) => fs.rmdir(call, call.ino, nameAt(request, ARGS_AT)), nothing),
  ],
  [Opcode.RENAME, rename(8)],
  [Opcode.RENAME2, rename(16)],
  [
    Opcode.LINK,
    operation(
      ({ fs }, call, request) =>
        fs.link(call, readU64(request.buf, ARGS_AT), call.ino, nameAt(request, ARGS_AT + 8)),
      writeEntry,
    ),
  ],
  [Opcode.STATFS, operation(({ fs }, call) => fs.statfs(call, call.ino), writeStatfs)],
  [
    Opcode.ACCESS,
    operation(
      ({ fs }, call, { buf }) => (fs.access ? fs.access(call, call.ino, buf.readUInt32LE(ARGS_AT)) : LACKING),
      nothing,
    ),
  ],
];

/** Open files and their contents. */
const FILES: ReadonlyArray<readonly [number, Operation]> = [
  [
    Opcode.OPEN,
    operation(({ fs }, call, { buf }) => {
      const killPriv = (buf.readUInt32LE(ARGS_AT + 4) & OPEN_KILL_SUIDGID) !== 0;
      const flags = buf.readUInt32LE(ARGS_AT);
      return fs.open(call, call.ino, flags, killPriv, isKernels(flags));
    }, writeOpen),
  ],
  [
    Opcode.CREATE,
    operation(({ fs }, call, request) => {
      const { buf } = request;
      const [flags, mode] = [buf.readUInt32LE(ARGS_AT), buf.readUInt32LE(ARGS_AT + 4)];
      const name = nameAt(request, ARGS_AT + 16);
      return fs.create(call, call.ino, name, mode, flags, buf.readUInt32LE(ARGS_AT + 8));
    }, writeCreate),
  ],
  [
    Opcode.TMPFILE,
    operation(({ fs }, call, { buf }) => {
      const [flags, mode] = [buf.readUInt32LE(ARGS_AT), buf.readUInt32LE(ARGS_AT + 4)];
      return fs.tmpfile ? fs.tmpfile(call, call.ino, mode, flags, buf.readUInt32LE(ARGS_AT + 8)) : LACKING;
    }, writeCreate),
  ],
  [
    Opcode.READ,
    operation(({ fs }, call, { buf }) => {
      const offset = readU64(buf, ARGS_AT + 8);
      return fs.read(call, call.ino, readU64(buf, ARGS_AT), offset, buf.readUInt32LE(ARGS_AT + 16));
    }, buffers),
  ],
  [
    Opcode.WRITE,
    operation(({ fs }, call, request) => {
      const write = readWrite(request);
      call.dataBytes = write.data.length;
      return fs.write(call, call.ino, write);
    }, writeCount),
  ],
  [
    Opcode.FLUSH,
    operation(
      ({ fs }, call, { buf }) =>
        fs.flush(call, call.ino, readU64(buf, ARGS_AT), buf.readBigUInt64LE(ARGS_AT + 16)),
      nothing,
    ),
  ],
  [
    Opcode.RELEASE,
    operation(({ fs }, call, { buf }) => {
      const unlocks = buf.readUInt32LE(ARGS_AT + 12) & (RELEASE_FLUSH | RELEASE_FLOCK_UNLOCK);
      const owner = unlocks ? buf.readBigUInt64LE(ARGS_AT + 16) : undefined;
      return fs.release(call.ino, readU64(buf, ARGS_AT), buf.readUInt32LE(ARGS_AT + 8), owner);
    }, nothing),
  ],
  [Opcode.FSYNC, fsync(false)],
  [
    Opcode.FALLOCATE,
    operation(({ fs }, call, { buf }) => {
      const [offset, length] = [readU64(buf, ARGS_AT + 8), readU64(buf, ARGS_AT + 16)];
      const mode = buf.readUInt32LE(ARGS_AT + 24);
      return fs.fallocate
        ? fs.fallocate(call, call.ino, readU64(buf, ARGS_AT), mode, offset, length)
        : LACKING;
    }, nothing),
  ],
  [
    Opcode.LSEEK,
    operation(({ fs }, call, { buf }) => {
      const offset = readU64(buf, ARGS_AT + 8);
      const whence = buf.readUInt32LE(ARGS_AT + 16);
      return fs.lseek ? fs.lseek(call, call.ino, readU64(buf, ARGS_AT), offset, whence) : LACKING;
    }, writeOffset),
  ],
  [
    Opcode.COPY_FILE_RANGE,
    operation(({ fs }, call, { buf }) => {
      const from = { ino: call.ino, handle: readU64(buf, ARGS_AT), offset: readU64(buf, ARGS_AT + 8) };
      const to = {
        ino: readU64(buf, ARGS_AT + 16),
        handle: readU64(buf, ARGS_AT + 24),
        offset: readU64(buf, ARGS_AT + 32),
      };
      const length = Math.min(readU64(buf, ARGS_AT + 40), COPY_MAX_BYTES);
      return fs.copyFileRange ? fs.copyFileRange(call, from, to, length) : LACKING;
    }, writeCount),
  ],
  [
    Opcode.IOCTL,
    operation(
      ({ fs }, call, { buf }) => {
        const inputAt = ARGS_AT + 32;
        const input = copyOf(buf, inputAt, inputAt + buf.readUInt32LE(ARGS_AT + 24));
        // To ENOSYS the kernel says ENOTTY.
        return controlFile(fs, call, call.ino, buf.readUInt32LE(ARGS_AT + 12), input) ?? LACKING;
      },
      (_out, _at, output) => [Buffer.alloc(16), output],
    ),
  ],
];

/** Directories, extended attributes, locks and the whole file system. */
const OTHERS: ReadonlyArray<readonly [number, Operation]> = [
  [
    Opcode.OPENDIR,
    operation(({ fs }, call, { buf }) => {
      const flags = buf.readUInt32LE(ARGS_AT);
      return fs.opendir(call, call.ino, flags, isKernels(flags));
    }, writeOpen),
  ],
  [Opcode.READDIR, listing(false)],
  [Opcode.READDIRPLUS, listing(true)],
  [
    Opcode.RELEASEDIR,
    operation(({ fs }, call, { buf }) => fs.releasedir(call.ino, readU64(buf, ARGS_AT)), nothing),
  ],
  [Opcode.FSYNCDIR, fsync(true)],
  [
    Opcode.SETXATTR,
    operation(({ fs, setxattrExt }, call, request) => {
      const { name, value, flags, killSgid } = readSetxattr(request, setxattrExt);
      return fs.setxattr(call, call.ino, name, value, flags, killSgid);
    }, nothing),
  ],
  [
    Opcode.GETXATTR,
    operation(({ fs }, call, request) => {
      const size = request.buf.readUInt32LE(ARGS_AT);
      const got = fs.getxattr(call, call.ino, nameAt(request, ARGS_AT + 8));
      return andThen(got, (value) => ({ size, value }));
    }, encodeSized),
  ],
  [
    Opcode.LISTXATTR,
    operation(({ fs }, call, { buf }) => {
      const size = buf.readUInt32LE(ARGS_AT);
      return andThen(fs.listxattr(call, call.ino), (names) => {
        return { size, value: Buffer.concat(names.flatMap((name) => [name, NUL])) };
      });
    }, encodeSized),
  ],
  [
    Opcode.REMOVEXATTR,
    operation(({ fs }, call, request) => fs.removexattr(call, call.ino, nameAt(request, ARGS_AT)), nothing),
  ],
  [
    Opcode.GETLK,
    operation(({ fs }, call, request) => {
      if (!fs.getlk) return LACKING;
      const { handle, owner, lock } = readLock(request);
      return fs.getlk(call, call.ino, handle, owner, lock);
    }, writeLock),
  ],
  [Opcode.SETLK, setlk(false)],
  [Opcode.SETLKW, setlk(true)],
  [Opcode.SYNCFS, operation(({ fs }, call) => (fs.syncfs ? fs.syncfs(call) : LACKING), nothing)],
];

const NUL = Buffer.from([0]);

/** All requests that are answered from the file system, by opcode; a missing one is answered ENOSYS. */
export const OPERATIONS: readonly (Operation | undefined)[] = tableOf([...NAMESPACE, ...FILES, ...OTHERS]);

function tableOf(entries: ReadonlyArray<readonly [number, Operation]>): (Operation | undefined)[] {
  const length = Math.max(...entries.map(([opcode]) => opcode)) + 1;
  const table = new Array<Operation | undefined>(length).fill(undefined);
  for (const [opcode, entry] of entries) table[opcode] = entry;
  return table;
}
