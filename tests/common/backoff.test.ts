import assert from 'node:assert/strict';
import fc from 'fast-check';
import { backOffMs } from '../../common/backoff.js';

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
});
