import assert from 'node:assert/strict';
import fc from 'fast-check';
import { backOffMs, leaderRetryMs } from '../../common/backoff.js';

describe('back-off', () => {
  it('begins with the least wait and doubles it', () => {
    assert.deepEqual(
      [1, 2, 3, 4].map((failures) => backOffMs(failures, 10, 1000)),
      [10, 20, 40, 80],
    );
  });

  it('never exceeds its bound, however often something failed', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1 }),
        fc.integer({ min: 1, max: 1000 }),
        fc.nat(),
        (failures, min, more) => {
          const wait = backOffMs(failures, min, min + more);
          assert.ok(wait >= min && wait <= min + more);
        },
      ),
    );
  });

  it('asks often for a leader while there may be an election, and less often behind that', () => {
    const waits = (searchedMs: number) => [1, 3, 9].map((failures) => leaderRetryMs(failures, searchedMs));
    assert.deepEqual(waits(0), [20, 80, 100]);
    assert.deepEqual(waits(4_999), [20, 80, 100]);
    assert.deepEqual(waits(5_000), [20, 80, 500]);
  });
});
