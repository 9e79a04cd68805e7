import assert from 'node:assert/strict';
import { errorCode, errorFromCode, HoldfastError, toHoldfastError } from '../../proto/errors.js';
import { pgOfChunk } from '../../proto/types.js';

const GOLDEN_PGS = [7, 22, 23, 24, 17, 43];

describe('placement of chunks', () => {
  // The hash is part of the on-disk format: these values must never change.
  it('puts known chunks where they always were', () => {
    const golden: [number, number, number][] = [
      [1, 0, 48],
      [2, 0, 48],
      [2, 1, 48],
      [1000, 0, 48],
      [2 ** 32 + 5, 7, 48],
      [2 ** 44 - 1, 0, 48],
    ];
    assert.deepEqual(
      golden.map(([ino, chunk, pgs]) => pgOfChunk(ino, chunk, pgs)),
      GOLDEN_PGS,
    );
  });

  it('spreads files evenly and stripes neighbouring chunks over neighbouring groups', () => {
    const counts = new Array<number>(48).fill(0);
    for (let ino = 1; ino <= 48_000; ino++) counts[pgOfChunk(ino, 0, 48)]!++;
    assert.ok(Math.min(...counts) > 850 && Math.max(...counts) < 1150, counts.join(' '));
    const first = pgOfChunk(77, 0, 48);
    assert.equal(pgOfChunk(77, 1, 48), (first + 1) % 48);
  });
});

describe('the error table', () => {
  it('carries an error over the wire and back', () => {
    for (const name of ['ENOENT', 'ENOSPC', 'NOT_LEADER', 'NEED_TRUNCATE'] as const) {
      const error = errorFromCode(errorCode(name), 'detail');
      assert.equal(error.errorName, name);
      assert.match(error.message, /detail/);
    }
  });

  it('says which errors another attempt may heal', () => {
    assert.equal(new HoldfastError('NOT_LEADER').retriable, true);
    assert.equal(new HoldfastError('ENOSPC').retriable, false);
    assert.equal(new HoldfastError('SESSION_EXPIRED').retriable, false);
  });

  it('turns anything unknown into EIO', () => {
    assert.equal(errorFromCode(999_999).errno, 5);
    assert.equal(toHoldfastError(new Error('x')).errno, 5);
  });
});
