import assert from 'node:assert/strict';
import fc from 'fast-check';
import { MemoryDisk } from '../../../common/memory-disk.js';
import { createPrng } from '../../../common/prng.js';
import { LogCorruptError, LogFailedError, LogFormatError } from '../../../common/segment-log.js';
import { encodeConf } from '../../../metaserver/raft/confchange.js';
import type { HardState, RaftEntry } from '../../../metaserver/raft/types.js';
import { ReplicaDamagedError, type ReplicaFormat } from '../../../metaserver/replica/format.js';
import { LogStorage } from '../../../metaserver/replica/log-storage.js';
import { type RaftConfState, RaftEntryType } from '../../../proto/gen/raft.js';

const SEGMENT_BYTES = 2048;
const FORMAT: ReplicaFormat & { conf: RaftConfState } = {
  clusterId: 'cluster',
  serverId: 1,
  diskUuid: 'd15c0000-0000-4000-8000-000000000001',
  conf: { voters: [1, 2, 3], votersOutgoing: [], learners: [], roster: [] },
  mayFound: true,
  begun: false,
};

function open(disk: MemoryDisk, format = FORMAT): Promise<LogStorage> {
  return LogStorage.open({ disk: disk.mounted(), dir: '/meta', format, segmentBytes: SEGMENT_BYTES });
}

function entry(index: number, term: number, text = `${index}@${term}`): RaftEntry {
  return { index, term, type: RaftEntryType.ENTRY_COMMAND, data: Buffer.from(text) };
}

function run(from: number, to: number, term: number, bytes = 0): RaftEntry[] {
  return Array.from({ length: to - from + 1 }, (_, i) =>
    entry(from + i, term, `${from + i}@${term}`.padEnd(bytes)),
  );
}

function state(term: number, commit = 0, vote = 0): HardState {
  return { term, vote, commit };
}

function content(storage: LogStorage): string[] {
  const entries = storage.entries(storage.firstIndex(), storage.lastIndex() + 1, Number.MAX_SAFE_INTEGER);
  return (entries ?? []).map(({ index, term, data }) => `${index} ${term} ${data.toString()}`);
}

function segmentFile(number: number): string {
  return `/meta/log/${String(number).padStart(10, '0')}.seg`;
}

describe('LogStorage', () => {
  let disk: MemoryDisk;
  const prng = createPrng(7);

  beforeEach(() => {
    disk = new MemoryDisk();
  });

  it('starts empty with the members of the format', async () => {
    const storage = await open(disk);
    await storage.recover(0);
    assert.equal(storage.firstIndex(), 1);
    assert.equal(storage.lastIndex(), 0);
    assert.equal(storage.term(0), 0);
    assert.deepEqual(storage.confAt(0), FORMAT.conf);
    assert.deepEqual(storage.hardState, state(0));
    assert.deepEqual(storage.snapshot(), { index: 0, term: 0, conf: FORMAT.conf });
  });

  it('shows appended entries at once and after a restart, with the hard state', async () => {
    const storage = await open(disk);
    storage.append([entry(1, 1, 'a'), entry(2, 1, 'b')], state(1, 0, 2));
    storage.append([entry(3, 2, 'c')], state(2, 1, 3));
    assert.deepEqual(content(storage), ['1 1 a', '2 1 b', '3 2 c']);
    await storage.sync();
    disk.crash('nothing', prng);
    const again = await open(disk);
    assert.deepEqual(content(again), ['1 1 a', '2 1 b', '3 2 c']);
    assert.deepEqual(again.hardState, state(2, 1, 3));
    assert.equal(again.term(3), 2);
    assert.equal(again.term(4), undefined);
  });

  it('lets later entries supersede those from their first index on', async () => {
    const storage = await open(disk);
    storage.append(run(1, 5, 1), state(1));
    storage.append([entry(3, 2)], state(2));
    assert.deepEqual(content(storage), ['1 1 1@1', '2 1 2@1', '3 2 3@2']);
    assert.equal(storage.term(4), undefined);
    await storage.close();
    assert.deepEqual(content(await open(disk)), ['1 1 1@1', '2 1 2@1', '3 2 3@2']);
  });

  it('limits entries by bytes but gives at least one', async () => {
    const storage = await open(disk);
    storage.append(run(1, 10, 1, 100), state(1));
    assert.equal(storage.entries(2, 9, 1)?.length, 1);
    assert.deepEqual(
      storage.entries(2, 9, 500)?.map(({ index }) => index),
      [2, 3, 4],
    );
    assert.deepEqual(
      storage.entries(9, 11, 10_000)?.map(({ index }) => index),
      [9, 10],
    );
  });

  it('keeps large data and entries that span several records whole', async () => {
    const storage = await open(disk);
    const large = Array.from({ length: 5 }, (_, i) => ({
      ...entry(i + 1, 1),
      data: Buffer.alloc(2_000_000, i + 1),
    }));
    storage.append(large, state(1, 4));
    await storage.sync();
    const again = await open(disk);
    assert.deepEqual(again.hardState, state(1, 4));
    assert.equal(again.lastIndex(), 5);
    for (const { index, data } of large)
      assert.ok(again.entries(index, index + 1, 1)?.[0]?.data.equals(data));
  });

  it('never claims a commit beyond what a torn tail left', async () => {
    for (let seed = 0; seed < 20; seed++) {
      const torn = new MemoryDisk();
      const storage = await open(torn);
      await storage.recover(0);
      storage.append(
        Array.from({ length: 6 }, (_, i) => ({ ...entry(i + 1, 1), data: Buffer.alloc(1_500_000) })),
        state(1, 6),
      );
      await Promise.resolve();
      torn.crash('random', createPrng(seed));
      await storage.sync().catch(() => undefined);
      const again = await open(torn);
      assert.ok(again.hardState.commit <= again.lastIndex());
    }
  });

  for (const call of ['datasync', 'write'] as const) {
    it(`believes, after a failed ${call}, only what was synced before: also the next process`, async () => {
      const storage = await open(disk);
      storage.append(run(1, 3, 1), state(1, 0, 2));
      await storage.sync();
      disk.fail(call, 'EIO');
      storage.append(run(4, 5, 2), state(2, 3, 1));
      await assert.rejects(storage.sync(), LogFailedError);
      await assert.rejects(storage.sync(), LogFailedError);
      assert.throws(() => storage.append(run(6, 6, 2), state(2)), LogFailedError);
      await storage.close();
      const again = await open(disk);
      assert.deepEqual(content(again), ['1 1 1@1', '2 1 2@1', '3 1 3@1']);
      assert.deepEqual(again.hardState, state(1, 0, 2));
      again.append(run(4, 4, 3), state(3));
      await again.sync();
      await again.close();
      disk.crash('nothing', prng);
      assert.deepEqual(content(await open(disk)), ['1 1 1@1', '2 1 2@1', '3 1 3@1', '4 3 4@3']);
    });
  }

  it('drops whole segments behind a cut and starts after it', async () => {
    const storage = await open(disk);
    for (let i = 1; i <= 100; i++) storage.append([entry(i, 1, 'x'.repeat(100))], state(1, i));
    await storage.sync();
    const before = storage.segments.length;
    await storage.cut(70);
    assert.ok(storage.segments.length < before - 3, `${before} segments, then ${storage.segments.length}`);
    assert.equal(storage.firstIndex(), 71);
    assert.equal(storage.term(70), 1);
    assert.equal(storage.term(69), undefined);
    assert.equal(storage.entries(70, 80, 1000), undefined);
    disk.crash('nothing', prng);
    const again = await open(disk);
    await again.recover(75);
    assert.equal(again.firstIndex(), 71);
    assert.equal(again.lastIndex(), 100);
    assert.equal(again.term(70), 1);
    assert.deepEqual(again.hardState, state(1, 100));
  });

  it('replays a log whose oldest segment begins with entries behind an earlier cut', async () => {
    const storage = await open(disk);
    let index = 0;
    for (let round = 0; round < 30; round++) {
      for (let i = 0; i < 7; i++) storage.append([entry(++index, 1, 'y'.repeat(90))], state(1, index));
      await storage.cut(index - 5);
    }
    await storage.sync();
    disk.crash('nothing', prng);
    const again = await open(disk);
    assert.equal(again.firstIndex(), index - 4);
    assert.equal(again.lastIndex(), index);
  });

  it('knows the members at every index, across conflict, cut and restart', async () => {
    const change = (index: number, term: number, voters: number[]): RaftEntry => ({
      index,
      term,
      type: RaftEntryType.ENTRY_CONF_CHANGE,
      data: encodeConf({ voters, votersOutgoing: [], learners: [], roster: [] }),
    });
    const storage = await open(disk);
    storage.append([entry(1, 1), change(2, 1, [1, 2]), entry(3, 1), change(4, 1, [1])], state(1));
    storage.append([change(4, 2, [1, 2, 4]), entry(5, 2)], state(2));
    const voters = (from: LogStorage, index: number) => from.confAt(index).voters;
    for (const each of [storage, await storage.sync().then(() => open(disk))]) {
      assert.deepEqual(voters(each, 1), [1, 2, 3]);
      assert.deepEqual(voters(each, 3), [1, 2]);
      assert.deepEqual(voters(each, 5), [1, 2, 4]);
    }
    await storage.cut(3);
    await storage.close();
    const again = await open(disk);
    assert.deepEqual(voters(again, 3), [1, 2]);
    assert.deepEqual(voters(again, 4), [1, 2, 4]);
  });

  describe('snapshots', () => {
    const base = {
      index: 50,
      term: 3,
      conf: { voters: [1, 2], votersOutgoing: [], learners: [3], roster: [] },
    };

    async function interrupted(finish: boolean): Promise<LogStorage> {
      const storage = await open(disk);
      storage.append(run(1, 5, 1), state(1, 4));
      await storage.beginSnapshot(base, state(3, 50));
      assert.equal(storage.firstIndex(), 51);
      if (finish) await storage.finishSnapshot(base);
      disk.crash('nothing', prng);
      return open(disk);
    }

    it('start the log anew', async () => {
      const again = await interrupted(true);
      await again.recover(50);
      assert.equal(again.lastIndex(), 50);
      assert.equal(again.term(50), 3);
      assert.deepEqual(again.confAt(50), base.conf);
      again.append([entry(51, 3)], state(3, 50));
      await again.close();
      assert.deepEqual(content(await open(disk)), ['51 3 51@3']);
    });

    it('are finished after a crash when the state machine holds them', async () => {
      const again = await interrupted(false);
      await again.recover(50);
      assert.equal(again.firstIndex(), 51);
      assert.equal(again.term(50), 3);
      disk.crash('nothing', prng);
      const third = await open(disk);
      await third.recover(50);
      assert.equal(third.firstIndex(), 51);
    });

    it('are forgotten after a crash when the state machine does not hold them', async () => {
      const again = await interrupted(false);
      await again.recover(3);
      assert.equal(again.lastIndex(), 5);
      assert.equal(
        again.hardState.commit,
        3,
        'the commit index of the snapshot is not that of these entries',
      );
      again.append(run(6, 60, 3), state(3, 60));
      await again.close();
      const third = await open(disk);
      await third.recover(50);
      assert.equal(
        third.lastIndex(),
        60,
        'a state machine that came to the same index by itself is no snapshot',
      );
    });
  });

  describe('refuses', () => {
    it('a state machine that is behind the cut', async () => {
      const storage = await open(disk);
      storage.append(run(1, 9, 1), state(1, 9));
      await storage.cut(7);
      await storage.close();
      await assert.rejects(
        open(disk).then((again) => again.recover(6)),
        { name: 'ReplicaDamagedError', message: /the state machine is at 6, the log starts after 7/ },
      );
    });

    it('a state machine that is ahead of the log', async () => {
      const storage = await open(disk);
      await assert.rejects(storage.recover(4), /the state machine is at 4, the log ends at 0/);
    });

    it('a damaged record that was durable, naming the file', async () => {
      const storage = await open(disk);
      for (let i = 1; i <= 5; i++) {
        storage.append([entry(i, 1)], state(1));
        await storage.sync();
      }
      await storage.close();
      disk.flipBit(segmentFile(1), 64 + 40);
      await assert.rejects(open(disk), (error: unknown) => {
        assert.ok(error instanceof LogCorruptError);
        assert.match(error.message, /0000000001\.seg/);
        return true;
      });
    });

    it('a log of another disk', async () => {
      const storage = await open(disk);
      storage.append([entry(1, 1)], state(1));
      await storage.close();
      const other = { ...FORMAT, diskUuid: 'd15c0000-0000-4000-8000-000000000002' };
      await assert.rejects(open(disk, other), LogFormatError);
    });

    it('a log with a missing segment', async () => {
      const storage = await open(disk);
      for (let i = 1; i <= 60; i++) storage.append([entry(i, 1, 'z'.repeat(100))], state(1, i));
      await storage.close();
      await disk.unlink(segmentFile(1));
      await assert.rejects(open(disk), ReplicaDamagedError);
    });
  });

  it('keeps, through random work and crashes, exactly what was synced or a later state', async () => {
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({
          kind: fc.constant('append' as const),
          back: fc.nat(4),
          count: fc.integer({ min: 1, max: 6 }),
        }),
      },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('sync' as const) }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('write' as const) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('cut' as const), keep: fc.nat(8) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('snapshot' as const) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('crash' as const), seed: fc.nat() }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const drive = new MemoryDisk();
        let storage = await open(drive);
        let term = 1;
        let committed = 0;
        /** All states that a crash may leave: from the last synced one on. */
        let possible = [describeState(storage)];
        for (const each of steps) {
          if (each.kind === 'append') {
            const first = Math.max(committed + 1, storage.lastIndex() + 1 - each.back);
            if (first <= storage.lastIndex()) term++;
            storage.append(run(first, first + each.count - 1, term, 80), state(term, committed));
            possible.push(describeState(storage));
          } else if (each.kind === 'write') {
            await new Promise<void>((resolve) => setImmediate(resolve)); // lets the appended records reach the disk's cache
          } else if (each.kind === 'sync') {
            await storage.sync();
            committed = storage.lastIndex();
            possible = [describeState(storage)];
          } else if (each.kind === 'cut') {
            const index = Math.max(storage.firstIndex() - 1, committed - each.keep);
            await storage.cut(index);
            possible = [describeState(storage)];
          } else if (each.kind === 'snapshot') {
            const base = { index: storage.lastIndex() + 10, term, conf: FORMAT.conf };
            await storage.beginSnapshot(base, state(term, base.index));
            await storage.finishSnapshot(base);
            committed = base.index;
            possible = [describeState(storage)];
          } else {
            drive.crash('random', createPrng(each.seed));
            storage = await open(drive);
            const found = describeState(storage);
            assert.ok(possible.includes(found), `${found}\nis none of\n${possible.join('\n')}`);
            await storage.recover(Math.max(storage.firstIndex() - 1, committed));
            possible = [found];
          }
        }
      }),
      { numRuns: 150 },
    );
  });
});

function describeState(storage: LogStorage): string {
  return JSON.stringify([storage.firstIndex(), storage.term(storage.firstIndex() - 1), content(storage)]);
}
