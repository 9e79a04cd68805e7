import assert from 'node:assert/strict';
import { silentLogger } from '../../../common/logger.js';
import { Proposer } from '../../../metaserver/service/proposer.js';
import { PURGE_TIMEOUT_MS, PURGES_PER_PG_MAX } from '../../../metaserver/service/purge-lane.js';
import {
  RECLAIM_PAUSE_MS,
  RECLAIM_TICK_MS,
  RECLAIM_WAIT_MAX_MS,
  RECLAIMS_ACTIVE_MAX,
  Reclaimer,
} from '../../../metaserver/service/reclaim.js';
import { HoldfastError } from '../../../proto/errors.js';
import type { Purge } from '../../../proto/gen/cluster.js';
import { pgOfChunk } from '../../../proto/types.js';
import { FakeClock, FakeReplica, FakeState, INIT, settled } from './fakes.js';

const PGS = INIT.pgCount;

/** A reclaimer over fakes; chunkserver n leads the PGs with pg % 3 == n - 1. */
class Bench {
  readonly clock = new FakeClock();
  readonly state = new FakeState();
  readonly replica = new FakeReplica(this.state);
  readonly sent: { server: number; purge: Purge }[] = [];
  readonly open = new Set<number>();
  announced = true;
  /** Primary of each PG; undefined: none is connected. */
  primaries: (number | undefined)[] = Array.from({ length: PGS }, (_, pg) => (pg % 3) + 1);
  /** Answer every purge as it comes. */
  answering = true;
  inFlight = 0;
  /** Disks are far from full: data may stay for a while. */
  room = false;
  readonly reclaimer: Reclaimer;

  constructor() {
    const bench = this;
    this.reclaimer = new Reclaimer({
      state: this.state,
      proposer: new Proposer(this.replica, this.clock),
      sessions: {
        get allAnnounced() {
          return bench.announced;
        },
        isOpen: (ino) => this.open.has(ino),
      },
      primary: (pg) => this.primaries[pg],
      pgCount: () => PGS,
      hasRoom: () => this.room,
      pushPurge: (server, purge) => {
        this.sent.push({ server, purge });
        if (this.answering) queueMicrotask(() => this.answer(server, purge));
        return true;
      },
      clock: this.clock,
      log: silentLogger,
    });
    this.replica.lead(true);
    this.replica.onApplied(() => this.reclaimer.applied());
  }

  answer(server: number, { pg, ino, truncateSeq }: Purge): void {
    this.reclaimer.purgeDone(server, { pg, ino, truncateSeq });
  }

  delete(ino: number, size = 1): void {
    this.state.addRow({ ino, truncateSeq: 0, from: 0, size, chunkSize: 4096 });
  }

  async begin(ms = 100): Promise<this> {
    this.reclaimer.begin();
    await this.clock.advance(ms);
    return this;
  }

  get left(): number[] {
    return [...this.state.rows.values()].map((row) => row.ino);
  }
}

const pgsOf = (sent: { purge: Purge }[]) => sent.map(({ purge }) => purge.pg).sort((a, b) => a - b);

describe('reclaim of deleted and truncated data', () => {
  it('purges each PG that may hold a chunk, through its primary, then takes the row out', async () => {
    const bench = new Bench();
    bench.delete(50, 2 * 4096);
    await bench.begin();
    const expected = [0, 1, 2].map((chunk) => pgOfChunk(50, chunk, PGS)).sort((a, b) => a - b);
    assert.deepEqual(pgsOf(bench.sent), expected);
    for (const { server, purge } of bench.sent) {
      assert.equal(server, bench.primaries[purge.pg]);
      assert.deepEqual(
        { ...purge, pg: 0 },
        { pg: 0, ino: 50, truncateSeq: 0, truncateFrom: 0, chunkSize: 4096 },
      );
    }
    assert.deepEqual(bench.left, []);
    assert.equal(bench.reclaimer.isReclaiming(50), false);
  });

  it('tells a truncate from a delete, and leaves what lies before its offset alone', async () => {
    const bench = new Bench();
    bench.state.addRow({ ino: 50, truncateSeq: 3, from: 4096, size: 2 * 4096, chunkSize: 4096 });
    bench.open.add(50);
    await bench.begin();
    assert.deepEqual(
      pgsOf(bench.sent),
      [1, 2].map((chunk) => pgOfChunk(50, chunk, PGS)).sort((a, b) => a - b),
    );
    assert.ok(bench.sent.every(({ purge }) => purge.truncateSeq === 3 && purge.truncateFrom === 4096));
    assert.deepEqual(bench.left, []);
  });

  it('waits with a delete while a session holds the inode open', async () => {
    const bench = new Bench();
    bench.open.add(50);
    bench.delete(50);
    bench.delete(51);
    await bench.begin();
    assert.deepEqual(bench.left, [50]);
    bench.open.clear();
    bench.reclaimer.released();
    await bench.clock.advance(100);
    assert.deepEqual(bench.left, []);
  });

  it('waits with deletes, not with truncates, until every session has announced itself', async () => {
    const bench = new Bench();
    bench.announced = false;
    bench.delete(50);
    bench.state.addRow({ ino: 51, truncateSeq: 1, from: 0, size: 1, chunkSize: 4096 });
    await bench.begin();
    assert.deepEqual(bench.left, [50]);
    bench.announced = true;
    bench.reclaimer.released();
    await bench.clock.advance(100);
    assert.deepEqual(bench.left, []);
  });

  it('says that an inode is being reclaimed from the first purge until the row is gone', async () => {
    const bench = new Bench();
    bench.answering = false;
    bench.delete(50);
    await bench.begin();
    assert.equal(bench.reclaimer.isReclaiming(50), true);
    bench.replica.hold = true;
    for (const { server, purge } of bench.sent) bench.answer(server, purge);
    await settled();
    assert.deepEqual([bench.left, bench.reclaimer.isReclaiming(50)], [[50], true]);
    bench.replica.release();
    await settled();
    assert.deepEqual([bench.left, bench.reclaimer.isReclaiming(50)], [[], false]);
  });

  it('repeats a purge that nobody answers, less and less often', async () => {
    const bench = new Bench();
    bench.answering = false;
    bench.delete(50, 0);
    await bench.begin(RECLAIM_TICK_MS + 10 * PURGE_TIMEOUT_MS);
    assert.equal(bench.sent.length, 4);
    const last = bench.sent.at(-1);
    assert.ok(last);
    bench.answer(last.server, last.purge);
    await settled();
    assert.deepEqual(bench.left, []);
  });

  it('asks the new primary when the map changes, and ignores the answer of the former one', async () => {
    const bench = new Bench();
    bench.answering = false;
    bench.delete(50, 0);
    await bench.begin();
    const [first] = bench.sent;
    assert.ok(first);
    const other = (first.server % 3) + 1;
    bench.primaries[first.purge.pg] = undefined;
    bench.reclaimer.mapChanged();
    bench.primaries[first.purge.pg] = other;
    bench.reclaimer.mapChanged();
    assert.deepEqual(
      bench.sent.map(({ server }) => server),
      [first.server, other],
    );
    bench.answer(first.server, first.purge);
    await settled();
    assert.deepEqual(bench.left, [50]);
    bench.answer(other, first.purge);
    await settled();
    assert.deepEqual(bench.left, []);
  });

  it('begins again when the row could not be taken out', async () => {
    const bench = new Bench();
    bench.replica.failures.push(new HoldfastError('UNAVAILABLE'));
    bench.delete(50, 0);
    await bench.begin();
    assert.deepEqual(bench.left, [50]);
    await bench.clock.advance(2 * RECLAIM_TICK_MS);
    assert.deepEqual([bench.left, bench.sent.length], [[], 2]);
  });

  it('lets data stay, while disks have room, until changes pause, but not for ever', async () => {
    const bench = await new Bench().begin();
    bench.room = true;
    const changes = async (ms: number): Promise<void> => {
      for (let end = bench.clock.now() + ms; bench.clock.now() < end; await bench.clock.advance(50))
        bench.reclaimer.applied();
    };
    bench.delete(50);
    await changes(RECLAIM_WAIT_MAX_MS / 2);
    assert.deepEqual(bench.left, [50]);
    await bench.clock.advance(RECLAIM_PAUSE_MS + RECLAIM_TICK_MS);
    assert.deepEqual(bench.left, []);
    await bench.clock.advance(RECLAIM_WAIT_MAX_MS);
    bench.delete(51);
    await changes(2 * RECLAIM_WAIT_MAX_MS);
    assert.deepEqual(bench.left, []);
    bench.delete(52);
    await changes(50);
    bench.room = false;
    await changes(RECLAIM_PAUSE_MS);
    assert.deepEqual(bench.left, [], 'a disk is nearly full');
  });

  it('bounds the purges in flight, and does all of a mass deletion in little time', async () => {
    const bench = new Bench();
    bench.answering = false;
    const files = 3 * RECLAIMS_ACTIVE_MAX;
    for (let ino = 100; ino < 100 + files; ino++) bench.delete(ino, 0);
    await bench.begin();
    assert.equal(bench.sent.length, PGS * PURGES_PER_PG_MAX);
    bench.answering = true;
    for (const { server, purge } of [...bench.sent]) bench.answer(server, purge);
    await bench.clock.advance(1000);
    assert.deepEqual([bench.left.length, bench.sent.length], [0, files]);
  });

  it('records what was finished while a record was on its way in one command', async () => {
    const bench = new Bench();
    for (let ino = 100; ino < 150; ino++) bench.delete(ino, 0);
    let commands = 0;
    bench.replica.onApplied(() => commands++);
    bench.replica.hold = true;
    await bench.begin();
    assert.equal(bench.sent.length, 50);
    bench.replica.release();
    await bench.clock.advance(100);
    assert.deepEqual([bench.left, commands], [[], 2]);
  });

  it('does not let deletes of a PG without a primary hold up the others', async () => {
    const bench = new Bench();
    bench.primaries = bench.primaries.map((server, pg) => (pg === 0 ? undefined : server));
    for (let ino = 100; ino < 400; ino++) bench.delete(ino, 0);
    await bench.begin(1000);
    assert.ok(bench.left.length > 0);
    assert.ok(bench.left.every((ino) => pgOfChunk(ino, 0, PGS) === 0));
  });

  it('stops with the leadership and begins with the table under the next', async () => {
    const bench = new Bench();
    bench.answering = false;
    bench.delete(50, 0);
    await bench.begin();
    bench.reclaimer.end();
    await bench.clock.advance(10 * PURGE_TIMEOUT_MS);
    assert.deepEqual([bench.sent.length, bench.reclaimer.isReclaiming(50)], [1, false]);
    bench.answering = true;
    await bench.begin();
    assert.deepEqual([bench.left, bench.sent.length], [[], 2]);
  });

  it('leaves a table that turns out to be damaged to whoever takes the server down', async () => {
    const bench = new Bench();
    bench.delete(7);
    bench.state.reclaims = () => {
      throw new HoldfastError('CORRUPT', 'a value with a wrong checksum');
    };
    await bench.begin();
    assert.deepEqual(bench.sent, []);
  });
});
