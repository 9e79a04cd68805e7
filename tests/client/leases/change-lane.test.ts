import assert from 'node:assert/strict';
import {
  ChangeLane,
  LANE_CHANGES_MAX,
  LANE_DELAY_MS,
  LANE_GATHER_MS,
  LANE_GATHER_WAITERS_MIN,
} from '../../../client/leases/change-lane.js';
import type { Change, MutationOp } from '../../../client/meta/api.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { errorCode, HoldfastError } from '../../../proto/errors.js';
import { CommandResult, CommitWrite, MakeNode, MutationReply, SetAttr } from '../../../proto/gen/meta.js';
import { S_IFREG } from '../../../proto/types.js';
import { ManualClock } from '../support/manual-clock.js';

const change = (ino: number): MutationOp => ({ $case: 'setAttr', value: { ...SetAttr.create({}), ino } });
const commit = (ino: number): MutationOp => ({
  $case: 'commitWrite',
  value: { ...CommitWrite.create({}), ino },
});

const make = (ino: number): MutationOp => ({
  $case: 'makeNode',
  value: { ...MakeNode.create({}), ino, mode: S_IFREG | 0o644 },
});

const link = (ino: number): MutationOp => ({
  $case: 'link',
  value: { ino, parent: 1, name: Buffer.from('other') },
});

function shown(op: MutationOp): string {
  const { ino } = op.value as { ino: number };
  if (op.$case === 'commitWrite') return `c${ino}`;
  if (op.$case === 'link') return `l${ino}`;
  if (op.$case !== 'makeNode') return `s${ino}`;
  const { written, set } = op.value;
  return `m${ino}${written ? `+c${written.ino}` : ''}${set ? `+s${set.changes}` : ''}`;
}

class Harness {
  readonly clock = new ManualClock();
  /** What was sent: kind and inode of each change, batch by batch. */
  readonly sent: string[][] = [];
  readonly failures: [readonly number[], string][] = [];
  readonly #answers: Deferred<CommandResult[]>[] = [];
  readonly lane = new ChangeLane({
    clock: this.clock,
    send: (changes) => this.#send(changes),
    onFailure: (inos, _kind, error) => this.failures.push([inos, error.errorName]),
  });

  /** Answers the batch on its way; `refused` are places in it. */
  async answer(refused: number[] = []): Promise<void> {
    const batch = this.sent[this.sent.length - this.#answers.length] as string[];
    const results = batch.map((_, at) =>
      refused.includes(at)
        ? CommandResult.create({ error: errorCode('ENOSPC') })
        : CommandResult.create({ mutation: MutationReply.create({}) }),
    );
    this.#answers.shift()?.resolve(results);
    await this.clock.advance(0);
  }

  async fail(): Promise<void> {
    this.#answers.shift()?.reject(new HoldfastError('EIO'));
    await this.clock.advance(0);
  }

  #send(changes: readonly Change[]): Promise<CommandResult[]> {
    this.sent.push(changes.map(({ op }) => shown(op)));
    const answer = deferred<CommandResult[]>();
    this.#answers.push(answer);
    return answer.promise;
  }
}

describe('the lane of changes', () => {
  it('gathers changes for a while and sends them in order, one batch at a time', async () => {
    const { lane, clock, sent, answer } = bound(new Harness());
    for (const ino of [1, 2, 3]) void lane.push(change(ino), [ino]);
    assert.deepEqual(sent, []);
    await clock.advance(LANE_DELAY_MS);
    assert.deepEqual(sent, [['s1', 's2', 's3']]);
    void lane.push(change(4), [4]);
    await clock.advance(10 * LANE_DELAY_MS);
    assert.equal(sent.length, 1, 'the first batch is not answered yet');
    await answer();
    await clock.advance(LANE_DELAY_MS);
    assert.deepEqual(sent[1], ['s4']);
  });

  it('sends at once what somebody waits for, with all that went before', async () => {
    const { lane, sent, answer } = bound(new Harness());
    void lane.push(change(1), [1]);
    void lane.push(change(2), [2]);
    let done = false;
    const settled = lane.settledFor([1]).then(() => {
      done = true;
    });
    assert.deepEqual(sent, [['s1', 's2']]);
    assert.equal(done, false);
    await answer();
    await settled;
    assert.equal(lane.pending, 0);
    await lane.settledFor([9]); // nothing of it
  });

  it('keeps the place of a commit: what was changed later waits behind it', async () => {
    const { lane, sent, answer, clock } = bound(new Harness());
    void lane.push(change(1), [1]);
    lane.keepPlace(7);
    void lane.push(change(2), [2]);
    await clock.advance(LANE_DELAY_MS);
    assert.deepEqual(sent, [['s1']]);
    await answer();
    await clock.advance(LANE_DELAY_MS);
    assert.equal(sent.length, 1);
    void lane.push(commit(7), [7]);
    await clock.advance(LANE_DELAY_MS);
    assert.deepEqual(sent[1], ['c7', 's2']);
  });

  it('a place that is released holds nothing up, and who waits for it still waits for what went before', async () => {
    const { lane, answer, clock } = bound(new Harness());
    void lane.push(change(1), [1]);
    lane.keepPlace(7);
    let done = false;
    void lane.settledFor([7]).then(() => {
      done = true;
    });
    lane.releasePlace(7);
    await clock.advance(0);
    assert.equal(done, false);
    await answer();
    assert.equal(done, true);
    assert.equal(lane.touches([7]), false);
  });

  it('sends what was written to a new file with its making, when one batch holds both', async () => {
    const { lane, sent, answer } = bound(new Harness());
    const pushed = [make(5), make(6), commit(5), link(6), commit(6)];
    const answers = pushed.map((op) => lane.push(op, [(op.value as { ino: number }).ino]));
    const settled = lane.settled();
    await answer();
    await settled;
    assert.deepEqual(sent, [['m5+c5', 'm6', 'l6', 'c6']], 'what stands in between keeps its place');
    await Promise.all(answers);
  });

  it('sends what was set of a new file with its making, and what was written to it when the times come out the same', async () => {
    const at = (sec: number) => ({ sec, nsec: 0 });
    const written = (sec: number, mtime: number): MutationOp => ({
      $case: 'commitWrite',
      value: { ...CommitWrite.create({ mtime: at(mtime), ctime: at(sec) }), ino: 5 },
    });
    const utimes = (mtime: number): MutationOp => ({
      $case: 'setAttr',
      value: { ...SetAttr.create({ mtime: at(mtime) }), ino: 5 },
    });
    const sentFor = async (ops: [MutationOp, number][]): Promise<string[][]> => {
      const { lane, sent, answer } = bound(new Harness());
      for (const [op, sec] of ops) void lane.push(op, [5], at(sec));
      const settled = lane.settled();
      await answer();
      await settled;
      return sent;
    };
    const tar: [MutationOp, number][] = [
      [make(5), 10],
      [utimes(3), 12],
      [change(5), 13],
    ];
    assert.deepEqual(await sentFor([...tar, [written(13, 3), 13]]), [['m5+c5+s2']]);
    assert.deepEqual(await sentFor([...tar, [written(14, 3), 14]]), [['m5+s2', 'c5']]);
    assert.deepEqual(await sentFor([...tar, [written(13, 11), 13]]), [['m5+s2', 'c5']]);
    assert.deepEqual(
      await sentFor([
        [make(5), 10],
        [written(11, 11), 11],
        [utimes(3), 12],
        [written(13, 3), 13],
        [change(5), 14],
      ]),
      [['m5+c5+s1', 'c5', 's5']],
      'nothing goes ahead of a second commit',
    );
  });

  it('a sync waits for names, attributes and closed files so far, not for commits of other open files', async () => {
    const { lane, sent, answer, clock } = bound(new Harness());
    void lane.push(commit(1), [1]);
    assert.equal(lane.syncing(2), undefined, 'of another file that is open');
    const own = lane.synced(1);
    assert.deepEqual(sent, [['c1']]);
    assert.equal(lane.syncing(2), undefined, 'nor on its way');
    void lane.push(make(3), [9, 3]);
    const named = lane.synced(2);
    lane.keepPlace(4);
    let closed = false;
    const syncing = (lane.syncing(2) as Promise<void>).then(() => {
      closed = true;
    });
    void lane.push(commit(5), [5]);
    await answer();
    await own;
    assert.deepEqual(sent[1], ['m3'], 'the making, which somebody waits for');
    await answer();
    await named;
    assert.equal(closed, false);
    void lane.push(commit(4), [4]);
    await clock.advance(LANE_DELAY_MS);
    assert.deepEqual(sent[2], ['c4', 'c5']);
    await answer();
    await syncing;
    assert.equal(lane.pending, 0);
  });

  it('a sync that nobody hurries leaves what it waits for where it is', async () => {
    const { lane, sent, answer, clock } = bound(new Harness());
    void lane.push(change(1), [1]);
    let done = false;
    const syncing = (lane.syncing(1) as Promise<void>).then(() => {
      done = true;
    });
    await clock.advance(LANE_DELAY_MS / 2);
    assert.deepEqual(sent, []);
    await clock.advance(LANE_DELAY_MS);
    assert.equal(done, false);
    await answer();
    await syncing;
  });

  it('tells of each change that was refused, and goes on', async () => {
    const { lane, failures, answer } = bound(new Harness());
    const first = lane.push(change(1), [1, 9]);
    const second = lane.push(change(2), [2]);
    const settled = lane.settled();
    await answer([0]);
    await settled;
    await assert.rejects(first, { errorName: 'ENOSPC' });
    await second;
    assert.deepEqual(failures, [[[1, 9], 'ENOSPC']]);
  });

  it('fails what waits, and what is on its way, when the session is over', async () => {
    const { lane, failures, fail, clock } = bound(new Harness());
    void lane.push(change(1), [1]);
    await clock.advance(LANE_DELAY_MS);
    void lane.push(change(2), [2]);
    lane.keepPlace(3);
    lane.abort(new HoldfastError('EIO'));
    await fail();
    await lane.settled();
    assert.deepEqual(failures, [
      [[2], 'EIO'],
      [[1], 'EIO'],
    ]);
    assert.equal(lane.pending, 0);
  });

  it('is bounded: who finds it full waits for room', async () => {
    const { lane, clock, sent, answer } = bound(new Harness());
    for (let ino = 1; ino <= LANE_CHANGES_MAX; ino++) void lane.push(change(ino), [ino]);
    let room = false;
    void lane.room()?.then(() => {
      room = true;
    });
    await clock.advance(0);
    assert.equal(room, false);
    assert.ok(sent.length > 0);
    await answer();
    assert.equal(room, true);
  });
});

/** The methods of a harness, to be taken apart. */
function bound(harness: Harness) {
  const { lane, clock, sent, failures } = harness;
  const answer = (refused?: number[]): Promise<void> => harness.answer(refused);
  return { lane, clock, sent, failures, answer, fail: () => harness.fail() };
}

describe('commits of times beside data, with many who wait', () => {
  const WRITERS = LANE_GATHER_WAITERS_MIN;

  /** Writers that sync at once, and wait for data of their own beside their commits. */
  function syncing(writers: number): ReturnType<typeof bound> {
    const harness = bound(new Harness());
    for (let writer = 0; writer < writers; writer++) void harness.lane.urgently(deferred<void>().promise);
    return harness;
  }

  it('leave when there is one for every other of them', async () => {
    const { lane, sent, clock, answer } = syncing(WRITERS);
    for (let ino = 1; ino < WRITERS / 2; ino++) void lane.push(commit(ino), [ino]);
    await clock.advance(LANE_GATHER_MS / 2);
    assert.equal(sent.length, 0);
    void lane.push(commit(99), [99]);
    assert.equal(sent[0]?.length, WRITERS / 2);
    void lane.push(commit(1), [1]);
    await answer();
    assert.equal(sent.length, 1, 'the next ones are gathered anew');
    await clock.advance(LANE_GATHER_MS);
    assert.deepEqual(sent[1], ['c1']);
    await answer();
    assert.equal(lane.pending, 0);
    assert.equal(clock.timers, 0);
  });

  it('are held no longer than until the data beside one of them has landed', async () => {
    const { lane, sent, answer } = syncing(WRITERS);
    void lane.push(commit(1), [1]);
    void lane.push(commit(2), [2]);
    lane.dataLanded(3);
    assert.equal(sent.length, 0);
    lane.dataLanded(2);
    assert.deepEqual(sent, [['c1', 'c2']]);
    void lane.push(commit(1), [1]);
    void lane.push(commit(4), [4]);
    lane.dataLanded(2);
    lane.dataLanded(4);
    await answer();
    assert.deepEqual(sent[1], ['c1', 'c4'], 'that was due while others were on their way');
  });

  it('are not held for a few writers, nor with a new size, other changes, or who waits for the lane', async () => {
    const few = syncing(WRITERS - 1);
    void few.lane.push(commit(1), [1]);
    assert.equal(few.sent.length, 1);

    const growing = syncing(WRITERS);
    const grown = CommitWrite.create({ ino: 1, newSize: 4096 });
    void growing.lane.push({ $case: 'commitWrite', value: grown }, [1]);
    assert.equal(growing.sent.length, 1);

    const changing = syncing(WRITERS);
    void changing.lane.push(commit(1), [1]);
    assert.equal(changing.sent.length, 0);
    void changing.lane.push(change(2), [2]);
    assert.equal(changing.sent.length, 1);

    const waited = syncing(WRITERS);
    void waited.lane.push(commit(1), [1]);
    void waited.lane.settledFor([1]);
    assert.equal(waited.sent.length, 1);
  });
});
