import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { packTable } from '../../../proto/extent-table.js';
import { CHUNK_BYTES, compactedBytes, dumpStore, Machine, Model, pattern, version } from './harness.js';

const PGS = 2;
const INODES = 3;
const CHUNKS = 3;

const place = {
  pg: fc.integer({ min: 1, max: PGS }),
  ino: fc.integer({ min: 1, max: INODES }),
  chunk: fc.integer({ min: 0, max: CHUNKS - 1 }),
};
const command = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant('write' as const),
      ...place,
      offset: fc.integer({ min: 0, max: CHUNK_BYTES - 1 }),
      length: fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: CHUNK_BYTES })),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('write runs' as const),
      ...place,
      steps: fc.array(fc.tuple(fc.nat(1300), fc.integer({ min: 1, max: 1300 })), {
        minLength: 1,
        maxLength: 6,
      }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('punch' as const),
      ...place,
      offset: fc.integer({ min: 0, max: CHUNK_BYTES - 1 }),
      length: fc.integer({ min: 1, max: CHUNK_BYTES }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('reserve' as const),
      ...place,
      offset: fc.integer({ min: 0, max: CHUNK_BYTES - 1 }),
      length: fc.integer({ min: 1, max: CHUNK_BYTES }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('truncate' as const),
      ...place,
      from: fc.integer({ min: 0, max: CHUNKS * CHUNK_BYTES }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('delete' as const), ...place }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('install' as const),
      ...place,
      extents: fc.array(fc.integer({ min: 1, max: 4000 }), { maxLength: 4 }),
      reserved: fc.array(fc.tuple(fc.nat(CHUNK_BYTES - 1), fc.integer({ min: 1, max: 4000 })), {
        maxLength: 3,
      }),
      removed: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('sync' as const) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('wait' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('start waiting' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('reopen' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('kill' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('cut power' as const),
      seed: fc.nat(),
      inFlight: fc.boolean(),
    }),
  },
);
type Command = typeof command extends fc.Arbitrary<infer T> ? T : never;

/** Runs commands against a store and the model; after a power cut the store must be some prefix that holds what was synced. */
class Run {
  private readonly machine = new Machine({ compactionBytesPerSecond: 1e6, compactionQuietMs: 0 });
  private model = new Model();
  /** The model after each change since the last sync, oldest first. */
  private history: Model[] = [];
  private seq = 0;
  private truncates = 0;
  /** Not waited for yet. */
  private readonly pending: Promise<unknown>[] = [];

  async start(): Promise<void> {
    await this.machine.boot();
    this.history = [this.model.clone()];
  }

  private get store(): ChunkStore {
    return this.machine.store;
  }

  async step(command: Command): Promise<void> {
    switch (command.do) {
      case 'sync':
        await this.store.sync();
        this.history = [this.model.clone()];
        return;
      case 'wait':
        await this.settle();
        await this.machine.clock.advance(10_000);
        return this.check();
      case 'start waiting':
        // Checkpoint and compaction begin, and go on beside the next commands.
        void this.machine.clock.advance(10_000);
        return;
      case 'reopen':
        await this.settle();
        await this.store.close();
        await this.machine.boot();
        this.history = [this.model.clone()];
        return this.check();
      case 'kill':
        await this.settle();
        await this.machine.crash('everything', 0);
        this.history = [this.model.clone()];
        return this.check();
      case 'cut power':
        return this.cutPower(command.seed, command.inFlight);
      default:
        return this.change(command);
    }
  }

  private async change(command: Command): Promise<void> {
    const at = version(++this.seq);
    let expected: number | undefined;
    let done: Promise<{ allocatedDelta: number } | undefined>;
    if (command.do === 'write') {
      const { pg, ino, chunk, offset } = command;
      const data = pattern(this.seq, Math.min(command.length, CHUNK_BYTES - offset));
      expected = this.model.write(pg, ino, chunk, offset, data, at);
      done = this.store.write(pg, { ino, chunk }, offset, data, at);
    } else if (command.do === 'write runs') {
      const { pg, ino, chunk } = command;
      let end = 0;
      const runs = command.steps.map(([gap, length]) => {
        const start = end + gap;
        end = start + length;
        return { start, end };
      });
      const data = runs.map(({ start, end }, i) => pattern(this.seq + i, end - start));
      expected = 0;
      for (const [i, { start }] of runs.entries())
        expected += this.model.write(pg, ino, chunk, start, data[i] as Buffer, at);
      done = this.store.writeRuns(pg, { ino, chunk }, Buffer.concat([packTable(runs), ...data]), runs, at);
    } else if (command.do === 'punch') {
      const { pg, ino, chunk, offset } = command;
      const length = Math.min(command.length, CHUNK_BYTES - offset);
      expected = this.model.punch(pg, ino, chunk, offset, length, at);
      done = this.store.punch(pg, { ino, chunk }, offset, length, at);
    } else if (command.do === 'reserve') {
      const { pg, ino, chunk, offset } = command;
      const length = Math.min(command.length, CHUNK_BYTES - offset);
      expected = this.model.reserve(pg, ino, chunk, offset, length, at);
      done = this.store.reserve(pg, { ino, chunk }, offset, length, at);
    } else if (command.do === 'truncate') {
      const { pg, ino, from } = command;
      const truncateSeq = ++this.truncates;
      expected = this.model.truncate(pg, ino, from, truncateSeq, at);
      done = this.store.truncate(pg, ino, from, CHUNK_BYTES, truncateSeq, at);
    } else if (command.do === 'delete') {
      expected = this.model.deleteInode(command.pg, command.ino, at);
      done = this.store.deleteInode(command.pg, command.ino, at);
    } else if (command.do === 'install') {
      done = this.install(command);
    } else {
      throw new Error(`not a change: ${command.do}`);
    }
    this.history.push(this.model.clone());
    this.pending.push(
      done.then((result) => {
        if (expected !== undefined) assert.equal(result?.allocatedDelta, expected, command.do);
      }),
    );
  }

  private async install(command: Command & { do: 'install' }): Promise<undefined> {
    const { pg, ino, chunk, removed } = command;
    let offset = this.seq % 50;
    const extents = command.extents.map((length, i) => {
      const extent = { offset, data: pattern(this.seq + i, length) };
      offset += length + (i % 2) * 17;
      return extent;
    });
    const reserved = command.reserved.map(([start, length]) => ({
      start,
      end: Math.min(CHUNK_BYTES, start + length),
    }));
    const content = removed
      ? undefined
      : { version: version(this.seq, 0), extents, truncateSeq: this.truncates, reserved };
    this.model.install(pg, ino, chunk, content);
    await this.store.install(pg, { ino, chunk }, content);
    return undefined;
  }

  private async settle(): Promise<void> {
    await Promise.all(this.pending.splice(0));
  }

  private async check(): Promise<void> {
    assert.deepEqual(await dumpStore(this.store), this.model.dump());
    await this.checkUsage();
    assert.deepEqual(this.machine.failures, []);
  }

  /** What is counted along with the changes is what there is, extents too. */
  private async checkUsage(): Promise<void> {
    const expected = await compactedBytes(this.store);
    const { capacityBytes, freeBytes } = this.store.usage();
    assert.equal(capacityBytes - freeBytes, expected);
  }

  private async cutPower(seed: number, inFlight: boolean): Promise<void> {
    if (inFlight) for (const each of this.pending.splice(0)) each.catch(() => undefined);
    else await this.settle();
    await this.machine.crash('random', seed);
    const found = await dumpStore(this.store);
    const survived = this.history.find((model) => model.dump().join() === found.join());
    if (!survived) assert.deepEqual(found, this.model.dump(), 'the store is no state since the last sync');
    await this.checkUsage();
    this.model = (survived as Model).clone();
    this.history = [this.model.clone()];
  }

  /** All data deleted: nothing but the newest segment may be left. */
  async finish(): Promise<void> {
    await this.settle();
    await this.check();
    const live = this.store.list(1, undefined, 1e6).concat(this.store.list(2, undefined, 1e6));
    assert.equal(
      this.store.usage().liveBytes,
      live.reduce((total, { bytes }) => total + bytes, 0),
    );
    for (let pg = 1; pg <= PGS; pg++) {
      for (let ino = 1; ino <= INODES; ino++) await this.store.deleteInode(pg, ino, version(++this.seq));
    }
    await this.machine.clock.advance(20_000);
    assert.equal(this.store.usage().liveBytes, 0);
    assert.equal((await this.machine.segmentFiles()).length, 1);
    await this.store.close();
  }
}

describe('chunk store against a naive model', () => {
  it('holds after any operations, kills and power cuts what was acknowledged and synced', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(command, { minLength: 1, maxLength: 60, size: 'max' }), async (commands) => {
        const run = new Run();
        await run.start();
        for (const each of commands) await run.step(each);
        await run.finish();
      }),
      { numRuns: 60 },
    );
  });
});
