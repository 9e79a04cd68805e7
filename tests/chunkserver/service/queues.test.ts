import assert from 'node:assert/strict';
import type { Ask } from '../../../chunkserver/pg/types.js';
import { FETCHES_MAX, FetchQueue } from '../../../chunkserver/service/fetch-queue.js';
import { SyncGroup } from '../../../chunkserver/service/sync-group.js';
import { FrameType } from '../../../proto/frame-header.js';
import { VirtualClock } from '../pg/sim/virtual-clock.js';

describe('a group of syncs', () => {
  it('serves all that came meanwhile with the next one, and none with one that had begun', () => {
    const running: ((error?: Error) => void)[] = [];
    const group = new SyncGroup((done) => running.push(done));
    const log: string[] = [];
    const ask = (name: string) => group.request((error) => log.push(`${name} ${error?.message ?? 'ok'}`));
    ask('a');
    ask('b');
    ask('c');
    assert.equal(running.length, 1);
    running[0]!();
    assert.deepEqual(log, ['a ok']);
    ask('d');
    assert.equal(running.length, 2);
    running[1]!(new Error('lost'));
    assert.deepEqual(log, ['a ok', 'b lost', 'c lost']);
    running[2]!();
    assert.deepEqual(log.slice(3), ['d ok']);
  });
});

describe('the queue of fetches', () => {
  const ask = (chunk: number): Ask => ({
    to: 1,
    side: 'in',
    fields: { type: FrameType.FETCH, chunk },
    pace: undefined,
    cancelled: false,
    done: () => {},
  });

  it('takes groups with the fewest copies first, and leaves cancelled ones out', () => {
    const sent: { ask: Ask; done: () => void }[] = [];
    const queue = new FetchQueue(new VirtualClock(), 1e9, (each, done) => sent.push({ ask: each, done }));
    for (let i = 0; i < FETCHES_MAX; i++) queue.add(ask(i), { bytes: 1, copies: 2 });
    const cancelled = ask(100);
    queue.add(cancelled, { bytes: 1, copies: 1 });
    queue.add(ask(101), { bytes: 1, copies: 2 });
    queue.add(ask(102), { bytes: 1, copies: 1 });
    assert.equal(sent.length, FETCHES_MAX);
    cancelled.cancelled = true;
    sent[0]!.done();
    sent[1]!.done();
    assert.deepEqual(
      sent.slice(FETCHES_MAX).map((each) => each.ask.fields.chunk),
      [102, 101],
    );
  });

  it('keeps to its bandwidth', async () => {
    const clock = new VirtualClock();
    const start = clock.now();
    let sent = 0;
    const queue = new FetchQueue(clock, 1_000_000, (_each, done) => {
      sent++;
      done();
    });
    for (let i = 0; i < 40; i++) queue.add(ask(i), { bytes: 1_000_000, copies: 1 });
    await clock.run(start + 10_000);
    // 8 MiB at once, then 1 MB each second.
    assert.equal(sent, 9 + 10);
    queue.close();
  });
});
