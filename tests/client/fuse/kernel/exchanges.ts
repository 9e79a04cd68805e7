import type { Entry, FileAttr } from '../../../../client/fuse/binding.js';
import { GOLDEN_REPLIES, type GOLDEN_REQUESTS } from './golden.js';

/** What the golden requests ask of a file system, and what the golden replies say of its answers. */

export const UNIQUE = 0x1_0000_0002;
export const INO = 0x3_0000_0004;
const OWNER = 0xf000_0000_0000_0001n;

export const ATTR: FileAttr = {
  ino: 0x1122334455667,
  size: 0x1_0000_000a,
  blocks: 77,
  atime: { sec: -2, nsec: 999_999_999 },
  mtime: { sec: 0x12_3456_789a, nsec: 5 },
  ctime: { sec: 3, nsec: 6 },
  mode: 0o100644,
  nlink: 2,
  uid: 1000,
  gid: 2000,
  rdev: 0x12345,
  blksize: 4096,
};
export const ENTRY: Entry = { attr: ATTR, generation: 9, entryTtlMs: 1500, attrTtlMs: 2250 };
const OPEN = { handle: 0x5_0000_0006, directIo: true, keepCache: true, cacheDir: true, noFlush: true };

/** struct fuse_ioctl_out of success. */
const NO_RESULT = '00'.repeat(16);

/** Request, method and arguments behind the caller, answer, bytes of the reply. */
export const EXCHANGES: [keyof typeof GOLDEN_REQUESTS, string, unknown[], unknown, Buffer][] = [
  ['lookup', 'lookup', [INO, Buffer.from('name')], ENTRY, GOLDEN_REPLIES.entry],
  ['getattr', 'getattr', [INO, 0x5_0000_0006], { attr: ATTR, ttlMs: 3001 }, GOLDEN_REPLIES.attr],
  [
    'setattr',
    'setattr',
    [
      INO,
      {
        handle: 11,
        size: 0x1_0000_000a,
        lockOwner: OWNER,
        atime: { sec: -2, nsec: 999_999_999 },
        mtime: 'now',
        ctime: { sec: 10, nsec: 3 },
        mode: 0o100640,
        uid: 1,
        gid: 2,
        killPriv: true,
      },
    ],
    { attr: ATTR, ttlMs: 3001 },
    GOLDEN_REPLIES.attr,
  ],
  ['symlink', 'symlink', [INO, Buffer.from('name'), Buffer.from('target')], ENTRY, GOLDEN_REPLIES.entry],
  ['mknod', 'mknod', [INO, Buffer.from('name'), 0o10644, 0x103, 0o22], ENTRY, GOLDEN_REPLIES.entry],
  ['mkdir', 'mkdir', [INO, Buffer.from('name'), 0o755, 0o22], ENTRY, GOLDEN_REPLIES.entry],
  ['rename', 'rename', [INO, Buffer.from('old'), 5, Buffer.from('new'), 0], undefined, Buffer.alloc(0)],
  ['rename2', 'rename', [INO, Buffer.from('old'), 5, Buffer.from('new'), 2], undefined, Buffer.alloc(0)],
  ['link', 'link', [5, INO, Buffer.from('new')], ENTRY, GOLDEN_REPLIES.entry],
  ['open', 'open', [INO, 0o1002, true, false], OPEN, GOLDEN_REPLIES.open],
  [
    'create',
    'create',
    [INO, Buffer.from('name'), 0o100644, 0o102, 0o22],
    { ...OPEN, entry: ENTRY },
    Buffer.concat([GOLDEN_REPLIES.entry, GOLDEN_REPLIES.open]),
  ],
  [
    'read',
    'read',
    [INO, 11, 0x1_0000_000a, 131072],
    [Buffer.from('da'), Buffer.from('ta')],
    Buffer.from('data'),
  ],
  [
    'write',
    'write',
    [
      INO,
      {
        handle: 11,
        offset: 0x1_0000_000a,
        data: Buffer.from('data'),
        fromCache: true,
        killPriv: true,
        flags: 0o2001,
        lockOwner: OWNER,
      },
    ],
    4,
    Buffer.from('0400000000000000', 'hex'),
  ],
  ['release', 'release', [INO, 11, 2, OWNER], undefined, Buffer.alloc(0)],
  ['flush', 'flush', [INO, 11, OWNER], undefined, Buffer.alloc(0)],
  ['fsync', 'fsync', [INO, 11, true], undefined, Buffer.alloc(0)],
  [
    'setxattr',
    'setxattr',
    [INO, Buffer.from('user.a'), Buffer.from('val'), 1, false],
    undefined,
    Buffer.alloc(0),
  ],
  ['getxattr', 'getxattr', [INO, Buffer.from('user.a')], Buffer.from('val'), Buffer.from('val')],
  [
    'setlkw',
    'setlk',
    [
      INO,
      11,
      OWNER,
      { start: 10, end: Number.MAX_SAFE_INTEGER, type: 'write', pid: 99 },
      { wait: true, flock: true },
    ],
    undefined,
    Buffer.alloc(0),
  ],
  ['fallocate', 'fallocate', [INO, 11, 3, 4096, 0x1_0000_0000], undefined, Buffer.alloc(0)],
  ['lseek', 'lseek', [INO, 11, 0x1_0000_000a, 4], 0x2_0000_0001, Buffer.from('0100000002000000', 'hex')],
  [
    'copyFileRange',
    'copyFileRange',
    [{ ino: INO, handle: 11, offset: 1 }, { ino: 5, handle: 12, offset: 2 }, 0xffff_f000],
    7,
    Buffer.from('0700000000000000', 'hex'),
  ],
  ['getFlags', 'getFlags', [INO], 0x90, Buffer.from(`${NO_RESULT}90000000`, 'hex')],
  ['getFlags32', 'getFlags', [INO], 0x10, Buffer.from(`${NO_RESULT}10000000`, 'hex')],
  ['setFlags', 'setFlags', [INO, 0x90], undefined, Buffer.from(NO_RESULT, 'hex')],
  ['setFlags32', 'setFlags', [INO, 0x90], undefined, Buffer.from(NO_RESULT, 'hex')],
  [
    'getXattrFlags',
    'getFlags',
    [INO],
    0xf0,
    Buffer.concat([Buffer.from(`${NO_RESULT}d8000000`, 'hex'), Buffer.alloc(24)]),
  ],
  ['setXattrFlags', 'setFlags', [INO, 0x50], undefined, Buffer.from(NO_RESULT, 'hex')],
  ['openForIoctl', 'open', [INO, 0, false, true], OPEN, GOLDEN_REPLIES.open],
  ['opendirForIoctl', 'opendir', [INO, 0, true], OPEN, GOLDEN_REPLIES.open],
  [
    'readdir',
    'readdir',
    [INO, 11, 8, 103, false],
    [{ name: Buffer.from('abc'), ino: 7, type: 4, cookie: 8 }],
    GOLDEN_REPLIES.dirent,
  ],
];
