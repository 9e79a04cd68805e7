import assert from 'node:assert/strict';
import fc from 'fast-check';
import { readLockOffset, readTimespec, writeLockOffset } from '../../../../client/fuse/kernel/wire.js';

const OFFSET_MAX = 2n ** 63n - 1n;
const EXACT_BELOW = 2n ** 53n - 1n - 2n ** 20n;

function read(offset: bigint): number {
  const buf = Buffer.alloc(8);
  buf.writeBigUInt64LE(offset);
  return readLockOffset(buf, 0);
}

function back(offset: number): bigint {
  const buf = Buffer.alloc(8);
  writeLockOffset(buf, 0, offset);
  return buf.readBigUInt64LE();
}

describe('numbers of the kernel protocol', () => {
  it('offsets of locks stay in order, and are exact where files end and at the very end', () => {
    const offset = fc.oneof(
      fc.bigInt(0n, OFFSET_MAX),
      fc.bigInt(OFFSET_MAX - 10n, OFFSET_MAX),
      fc.bigInt(EXACT_BELOW - 10n, EXACT_BELOW + 10n),
    );
    fc.assert(
      fc.property(offset, offset, (a, b) => {
        assert.ok(Number.isSafeInteger(read(a)));
        if (a <= b) assert.ok(read(a) <= read(b), `${a} ${b}`);
        const exact = a < EXACT_BELOW || a > OFFSET_MAX - 2n ** 20n;
        if (exact) assert.equal(back(read(a)), a);
        if (exact && a !== b) assert.notEqual(read(a), read(b));
      }),
    );
    assert.equal(read(OFFSET_MAX), Number.MAX_SAFE_INTEGER);
  });

  it('seconds that no number holds are the last that one does', () => {
    const buf = Buffer.alloc(12);
    for (const [sec, kept] of [
      [2n ** 63n - 1n, Number.MAX_SAFE_INTEGER],
      [-(2n ** 63n), Number.MIN_SAFE_INTEGER],
      [-5n, -5],
    ] as const) {
      buf.writeBigInt64LE(sec);
      buf.writeUInt32LE(7, 8);
      assert.deepEqual(readTimespec(buf, 0, 8), { sec: kept, nsec: 7 });
    }
  });
});
