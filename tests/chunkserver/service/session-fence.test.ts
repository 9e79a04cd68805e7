import assert from 'node:assert/strict';
import { SessionFence } from '../../../chunkserver/service/session-fence.js';

function fixture() {
  const reports: number[] = [];
  const fence = new SessionFence((version) => reports.push(version));
  const admitted = (session: number): boolean => {
    const refusal = fence.refusal(session);
    if (refusal) assert.equal(refusal.errorName, 'SESSION_EXPIRED');
    return refusal === undefined;
  };
  return { fence, reports, admitted };
}

describe('session fence', () => {
  it('admits everybody before it is told whom not', () => {
    const { admitted } = fixture();
    assert.equal(admitted(7), true);
  });

  it('refuses who is over, and neither who lives nor who came later', () => {
    const { fence, admitted, reports } = fixture();
    fence.set({ version: 5, upto: 4, live: [2, 4] });
    assert.deepEqual([0, 1, 2, 3, 4, 5].map(admitted), [false, false, true, false, true, true]);
    assert.deepEqual(reports, [5]);
  });

  it('keeps the newest fence, and reports that one for an older', () => {
    const { fence, admitted, reports } = fixture();
    fence.set({ version: 5, upto: 4, live: [4] });
    fence.set({ version: 3, upto: 2, live: [1, 2] });
    assert.deepEqual([admitted(1), admitted(4)], [false, true]);
    assert.deepEqual(reports, [5, 5]);
  });

  it('reports only when nothing is under way of those whom it shuts out', () => {
    const { fence, reports } = fixture();
    for (const session of [1, 1, 2, 3]) fence.begin(session);
    fence.set({ version: 5, upto: 3, live: [3] });
    for (const session of [1, 2]) fence.ended(session);
    assert.deepEqual(reports, []);
    fence.ended(1);
    assert.deepEqual(reports, [5]);
    fence.ended(3);
    assert.deepEqual(reports, [5]);
  });
});
