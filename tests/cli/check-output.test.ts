import assert from 'node:assert/strict';
import { verdictOf } from '../../cli/check-output.js';
import { CheckSummary } from '../../proto/gen/admin.js';

const verdict = (summary: Partial<CheckSummary>) => verdictOf(CheckSummary.create(summary));

describe('the verdict of a check', () => {
  it('is sound only when everything was checked and nothing was found', () => {
    assert.deepEqual(verdict({}), { clean: true, text: 'sound' });
    assert.deepEqual(verdict({ pgsSkipped: 1 }), { clean: false, text: 'sound as far as it was checked' });
  });

  it('is clean when all that was found is repaired', () => {
    assert.deepEqual(verdict({ found: 2, repaired: 2 }), { clean: true, text: '2 found, 2 repaired' });
    assert.deepEqual(verdict({ found: 2, repaired: 1 }), { clean: false, text: '2 found, 1 repaired' });
    assert.equal(verdict({ found: 2, repaired: 2, pgsSkipped: 1 }).clean, false);
  });
});
