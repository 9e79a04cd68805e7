import assert from 'node:assert/strict';
import { fromNativeMs, toNativeStat, toNativeStatfs } from '../../../../client/fuse/native/stat.js';

const TIME = { sec: 1, nsec: 999_999_999 };
const ATTR = {
  ino: 1,
  mode: 0o100644,
  nlink: 1,
  uid: 2,
  gid: 3,
  rdev: 4,
  size: 2 ** 40,
  blocks: 6,
  blksize: 7,
  atime: TIME,
  mtime: { sec: -5, nsec: 0 },
  ctime: TIME,
};

describe('attributes for fuse-native', () => {
  it('have times in whole milliseconds, none before 1970', () => {
    const { atime, mtime, size } = toNativeStat(ATTR);
    assert.deepEqual([atime, mtime, size], [1999, 0, 2 ** 40]);
  });

  it('take times from 1970 on and refuse the wrapped ones before', () => {
    assert.deepEqual(fromNativeMs(981_173_106_250), { sec: 981_173_106, nsec: 250_000_000 });
    assert.equal(fromNativeMs(2 ** 64 - 5000), undefined);
  });

  it('keep the bytes of a file system that is too large for 32 bits of blocks', () => {
    const stats = { blockSize: 4096, blocks: 2 ** 35, free: 2 ** 34, available: 2 ** 34, files: 2 ** 40 };
    const native = toNativeStatfs({ ...stats, filesFree: 1, nameMax: 255 });
    assert.equal(native.blocks * native.frsize, 2 ** 35 * 4096);
    assert.equal(native.bfree * native.frsize, 2 ** 34 * 4096);
    assert.ok(native.blocks <= 0xffff_ffff && native.files === 0xffff_ffff);
  });
});
