import { HoldfastError } from '../../../proto/errors.js';
import { FLAG_APPEND, FLAG_IMMUTABLE, FLAG_NOATIME, FLAG_NODUMP } from '../../../proto/inode-flags.js';
import { type Answer, andThen } from '../../answer.js';
import type { Caller, FileSystem } from '../binding.js';

/**
 * The ioctls on files that are answered: flags of inodes, for chattr(1) and lsattr(1). The kernel opens the inode by itself for
 * each, and sends what it has turned the program's call into. (Before 5.13 it hands the program's call on, unchecked.)
 */

// ioctl_iflags(2). The number holds the size of a long, the value is an int. Those of 32-bit programs say an int.
const GET_FLAGS = 0x8008_6601;
const SET_FLAGS = 0x4008_6602;
const GET_FLAGS_32 = 0x8004_6601;
const SET_FLAGS_32 = 0x4004_6602;
// ioctl_xfs_fsgetxattr(2): a struct fsxattr.
const GET_XATTR = 0x801c_581f;
const SET_XATTR = 0x401c_5820;

const FLAGS_BYTES = 4;
/** u32 xflags, extent size, number of extents, project, extent size of copies; 8 bytes of nothing. */
const XATTR_BYTES = 28;
const EXTENT_SIZE_AT = 4;
const PROJECT_AT = 12;
const COPY_EXTENT_SIZE_AT = 16;
/** That it has extended attributes: nobody sets that. */
const XFLAG_HAS_ATTRS = 0x8000_0000;
/** Flags as struct fsxattr has them. */
const XFLAGS: readonly (readonly [flag: number, xflag: number])[] = [
  [FLAG_IMMUTABLE, 0x08],
  [FLAG_APPEND, 0x10],
  [FLAG_NOATIME, 0x40],
  [FLAG_NODUMP, 0x80],
];

/** @returns undefined: an ioctl that no file here knows, or the file system has no flags */
export function controlFile(
  fs: FileSystem,
  caller: Caller,
  ino: number,
  command: number,
  input: Buffer,
): Answer<Buffer> | undefined {
  switch (command) {
    case GET_FLAGS:
    case GET_FLAGS_32:
      return fs.getFlags && andThen(fs.getFlags(caller, ino), encodeFlags);
    case SET_FLAGS:
    case SET_FLAGS_32:
      return fs.setFlags && andThen(fs.setFlags(caller, ino, input.readUInt32LE(0)), nothing);
    case GET_XATTR:
      return fs.getFlags && andThen(fs.getFlags(caller, ino), encodeXattr);
    case SET_XATTR:
      return fs.setFlags && andThen(fs.setFlags(caller, ino, flagsOfXattr(input)), nothing);
    default:
      return undefined;
  }
}

const NOTHING = Buffer.alloc(0);
const nothing = (): Buffer => NOTHING;

function encodeFlags(flags: number): Buffer {
  const bytes = Buffer.alloc(FLAGS_BYTES);
  bytes.writeUInt32LE(flags);
  return bytes;
}

function encodeXattr(flags: number): Buffer {
  const bytes = Buffer.alloc(XATTR_BYTES);
  for (const [flag, xflag] of XFLAGS) if (flags & flag) bytes[0] = (bytes[0] as number) | xflag;
  return bytes;
}

/** @throws HoldfastError EOPNOTSUPP for what is not a flag that is kept here */
function flagsOfXattr(xattr: Buffer): number {
  let left = (xattr.readUInt32LE(0) & ~XFLAG_HAS_ATTRS) >>> 0;
  let flags = 0;
  for (const [flag, xflag] of XFLAGS) {
    if (left & xflag) flags |= flag;
    left &= ~xflag;
  }
  const others = [EXTENT_SIZE_AT, PROJECT_AT, COPY_EXTENT_SIZE_AT].map((at) => xattr.readUInt32LE(at));
  if (left !== 0 || others.some((value) => value !== 0)) throw new HoldfastError('EOPNOTSUPP');
  return flags;
}
