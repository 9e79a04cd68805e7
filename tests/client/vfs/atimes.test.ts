import assert from 'node:assert/strict';
import { ATIME_DELAY_MS, ATIMES_PENDING_MAX, Atimes } from '../../../client/vfs/atimes.js';
import { Attr, type InodeTime } from '../../../proto/gen/meta.js';
import { ManualClock } from '../support/manual-clock.js';

const DAY_SEC = 24 * 3600;

describe('access times', () => {
  let clock: ManualClock;
  let sent: InodeTime[][];
  let atimes: Atimes;
  beforeEach(() => {
    clock = new ManualClock();
    sent = [];
    atimes = new Atimes(clock, async (list) => sent.push(list));
  });

  /** Seconds before the present. */
  const ago = (sec: number) => ({ sec: clock.wall().sec - sec, nsec: 0 });
  const attr = (ino: number, atimeAgo: number, changedAgo: number): Attr =>
    Attr.create({ ino, atime: ago(atimeAgo), mtime: ago(changedAgo), ctime: ago(changedAgo) });

  it('a read counts when the access time is not behind the last change, or a day old', () => {
    assert.equal(atimes.due(attr(1, 50, 60)), false);
    assert.equal(atimes.due(attr(1, 60, 60)), true);
    assert.equal(atimes.due(attr(1, 70, 60)), true);
    assert.equal(atimes.due(attr(1, DAY_SEC, 2 * DAY_SEC)), true);
  });

  it('a read shows here at once, and goes to the server with others, once', async () => {
    const one = attr(1, 70, 60);
    for (let i = 0; i < 3; i++) atimes.read(atimes.view(one));
    atimes.read(atimes.view(attr(2, 70, 60)));
    const now = clock.wall();
    assert.deepEqual(atimes.view(one).atime, now);
    assert.deepEqual(sent, []);
    await clock.advance(ATIME_DELAY_MS);
    assert.deepEqual(sent, [
      [
        { ino: 1, atime: now },
        { ino: 2, atime: now },
      ],
    ]);
    assert.deepEqual(atimes.view(one).atime, now, 'cached attributes do not hide it');
    await clock.advance(10 * ATIME_DELAY_MS);
    assert.equal(sent.length, 1);
  });

  it('a time that was set meanwhile wins, here or elsewhere', async () => {
    const one = attr(1, 70, 60);
    atimes.read(one);
    atimes.forget(1);
    assert.deepEqual(atimes.view(one), one);
    atimes.read(one);
    const set = { ...one, atime: ago(1000) };
    assert.deepEqual(atimes.view(set), set);
    await clock.advance(ATIME_DELAY_MS);
    assert.deepEqual(sent, []);
  });

  it('does not gather without bound', () => {
    for (let ino = 1; ino <= ATIMES_PENDING_MAX; ino++) atimes.read(attr(ino, 70, 60));
    assert.deepEqual(
      sent.map((list) => list.length),
      [ATIMES_PENDING_MAX],
    );
  });
});
