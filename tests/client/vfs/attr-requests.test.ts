import assert from 'node:assert/strict';
import { AttrRequests } from '../../../client/vfs/attr-requests.js';
import { deferred } from '../../../common/deferred.js';
import { ManualClock } from '../support/manual-clock.js';

describe('requests for attributes', () => {
  it('let an invalidation wait for the answers on their way about its inode, and for no other', async () => {
    const clock = new ManualClock();
    const requests = new AttrRequests(clock);
    const seen: string[] = [];
    const [one, other, late] = [deferred<string>(), deferred<string>(), deferred<string>()];
    void requests.track(1, one.promise).then((answer) => seen.push(answer));
    void requests.track(2, other.promise);
    const answered = requests.answered(1).then(() => seen.push('invalidate'));
    void requests.track(1, late.promise);
    await clock.advance(1000);
    assert.deepEqual(seen, []);
    one.resolve('answer');
    await clock.advance(1);
    await answered;
    assert.deepEqual(seen, ['answer', 'invalidate']);
    await requests.answered(3);
  });

  it('do not hold an invalidation up for ever when they fail', async () => {
    const clock = new ManualClock();
    const requests = new AttrRequests(clock);
    const one = deferred<string>();
    const failed = assert.rejects(requests.track(1, one.promise));
    const answered = requests.answered(1);
    one.reject(new Error('gone'));
    await failed;
    await clock.advance(1);
    await answered;
  });
});
