import assert from 'node:assert/strict';
import type { Ask } from '../../../chunkserver/pg/types.js';
import {
  FETCHES_MAX,
  FetchQueue,
  FOREGROUND_MS,
  SYNC_BYTES,
  UNSYNCED_BYTES_MAX,
} from '../../../chunkserver/service/fetch-queue.js';
import { SyncGroup } from '../../../chunkserver/service/sync-group.js';
import { FrameType } from '../../../proto/frame-header.js';
import { VirtualClock } from '../pg/sim/virtual-clock.js';

type Done = (receivedBytes: number) => void;

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

  it('takes all that come in the moment by which it is delayed', () => {
    const running: (() => void)[] = [];
    const moments: (() => void)[] = [];
    const group = new SyncGroup(
      (done) => running.push(done),
      undefined,
      (run) => moments.push(run),
    );
    const log: string[] = [];
    for (const name of ['a', 'b']) group.request(() => log.push(name));
    assert.deepEqual([running.length, moments.length], [0, 1]);
    moments[0]!();
    group.request(() => log.push('c'));
    running[0]!();
    assert.deepEqual(log, ['a', 'b']);
    assert.deepEqual([running.length, moments.length], [1, 2]);
    moments[1]!();
    running[1]!();
    assert.deepEqual(log, ['a', 'b', 'c']);
  });
});

const NEVER = (): Promise<void> => new Promise(() => {});

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
    const sent: { ask: Ask; done: Done }[] = [];
    const send = (each: Ask, done: Done) => sent.push({ ask: each, done });
    const queue = new FetchQueue(new VirtualClock(), 1e9, send, NEVER);
    for (let i = 0; i < FETCHES_MAX; i++) queue.add(ask(i), { bytes: 1, copies: 2 });
    const cancelled = ask(100);
    queue.add(cancelled, { bytes: 1, copies: 1 });
    queue.add(ask(101), { bytes: 1, copies: 2 });
    queue.add(ask(102), { bytes: 1, copies: 1 });
    assert.equal(sent.length, FETCHES_MAX);
    cancelled.cancelled = true;
    sent[0]!.done(1);
    sent[1]!.done(1);
    assert.deepEqual(
      sent.slice(FETCHES_MAX).map((each) => each.ask.fields.chunk),
      [102, 101],
    );
  });

  it('goes no faster than the disk takes what was copied', async () => {
    const syncs: (() => void)[] = [];
    let sent = 0;
    const send = (_each: Ask, done: Done): void => {
      sent++;
      done(1);
    };
    const sync = () => new Promise<void>((resolve) => syncs.push(resolve));
    const queue = new FetchQueue(new VirtualClock(), 1e12, send, sync);
    const half = SYNC_BYTES / 2;
    const step = async (): Promise<void> => {
      queue.add(ask(sent), { bytes: 1, copies: 1 });
      if (sent > before) queue.copied(half);
      await Promise.resolve();
    };
    let before = 0;
    for (let i = 0; i < 20; i++) {
      before = sent;
      await step();
    }
    assert.equal(sent * half, UNSYNCED_BYTES_MAX);
    assert.equal(syncs.length, 1, 'one at a time');
    syncs[0]!();
    await new Promise<void>((resolve) => setImmediate(resolve));
    // What came after the sync began is not covered by it.
    assert.equal(syncs.length, 2);
    assert.equal(sent, 20);
  });

  it('fetches one chunk at a time while clients are active, and leaves them half as much time as it took', async () => {
    const clock = new VirtualClock();
    const start = clock.now();
    const sentAt: number[] = [];
    const send = (_each: Ask, done: Done): void => {
      sentAt.push(clock.now() - start);
      clock.after(30, () => done(1));
    };
    const queue = new FetchQueue(clock, 1e12, send, NEVER);
    queue.foreground();
    for (let i = 0; i < 20; i++) queue.add(ask(i), { bytes: 1, copies: 1 });
    await clock.run(start + FOREGROUND_MS + 100);
    assert.deepEqual(sentAt.slice(0, 5), [0, 45, 90, 135, 180]);
    assert.equal(sentAt.length, 20, 'the rest at once when they are not');
    queue.close();
  });

  it('keeps to its bandwidth', async () => {
    const clock = new VirtualClock();
    const start = clock.now();
    let sent = 0;
    const send = (_each: Ask, done: Done): void => {
      sent++;
      done(1_000_000);
    };
    const queue = new FetchQueue(clock, 1_000_000, send, NEVER);
    for (let i = 0; i < 40; i++) queue.add(ask(i), { bytes: 1_000_000, copies: 1 });
    await clock.run(start + 10_000);
    // 4 MiB at once, then 1 MB each second.
    assert.equal(sent, 5 + 10);
    queue.close();
  });

  it('does not count what takes space in a chunk and is not sent', async () => {
    const clock = new VirtualClock();
    const start = clock.now();
    let sent = 0;
    const send = (_each: Ask, done: Done): void => {
      sent++;
      clock.after(1, () => done(100));
    };
    const queue = new FetchQueue(clock, 1_000_000, send, NEVER);
    for (let i = 0; i < 40; i++) queue.add(ask(i), { bytes: 4_000_000, copies: 1 });
    await clock.run(start + 1000);
    assert.equal(sent, 40);
    queue.close();
  });
});
