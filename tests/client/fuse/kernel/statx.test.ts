import assert from 'node:assert/strict';
import type { FileAttr } from '../../../../client/fuse/binding.js';
import { writeStatx } from '../../../../client/fuse/kernel/replies.js';
import { ATTR } from './exchanges.js';

const BORN: FileAttr = { ...ATTR, btime: { sec: 2, nsec: 7 } };

// struct fuse_statx_out: 32 bytes, then struct statx of statx(2): offsets of <linux/stat.h>.
describe('the answer to statx', () => {
  const written = (attr: FileAttr): Buffer => {
    const buf = Buffer.alloc(300, 0xaa);
    assert.equal(writeStatx(buf, 4, { attr, ttlMs: 3001 }), 288);
    assert.equal(buf.readUInt32LE(0), 0xaaaaaaaa);
    assert.equal(buf.readUInt32LE(292), 0xaaaaaaaa);
    return buf.subarray(4, 292);
  };
  const timeAt = (stat: Buffer, at: number) => [stat.readBigInt64LE(at), stat.readUInt32LE(at + 8)];

  it('says the time of birth beside all that stat(2) says', () => {
    const out = written(BORN);
    assert.deepEqual([out.readBigUInt64LE(0), out.readUInt32LE(8)], [3n, 1_000_000]);
    const stat = out.subarray(32);
    assert.equal(stat.readUInt32LE(0), 0xfff);
    assert.equal(stat.readUInt32LE(4), 4096);
    assert.equal(stat.readBigUInt64LE(8), 0n);
    assert.deepEqual(
      [16, 20, 24].map((at) => stat.readUInt32LE(at)),
      [2, 1000, 2000],
    );
    assert.equal(stat.readUInt16LE(28), 0o100644);
    assert.deepEqual(
      [32, 40, 48, 56].map((at) => stat.readBigUInt64LE(at)),
      [0x1122334455667n, 0x1_0000_000an, 77n, 0n],
    );
    assert.deepEqual(timeAt(stat, 64), [-2n, 999_999_999]);
    assert.deepEqual(timeAt(stat, 80), [2n, 7]);
    assert.deepEqual(timeAt(stat, 96), [3n, 6]);
    assert.deepEqual(timeAt(stat, 112), [0x12_3456_789an, 5]);
    assert.deepEqual([stat.readUInt32LE(128), stat.readUInt32LE(132)], [0x123, 0x45]);
    assert.ok(stat.subarray(136).every((byte) => byte === 0));
  });

  it('does not say it of what was made before it was kept', () => {
    const stat = written(ATTR).subarray(32);
    assert.equal(stat.readUInt32LE(0), 0x7ff);
    assert.deepEqual(timeAt(stat, 80), [0n, 0]);
  });
});
