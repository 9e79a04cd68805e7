import assert from 'node:assert/strict';
import type { ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { MOVED_UNSYNCED_BYTES_MAX } from '../../../chunkserver/store/compactor.js';
import { MemoryIndexDb } from '../../../chunkserver/store/index-db.js';
import { COMPACTION_QUIET_MS, HOLD_CHUNK_EXTENTS } from '../../../chunkserver/store/maintenance.js';
import { COMMIT_SLICE_BYTES, SealedIndexDb } from '../../../chunkserver/store/sealed-index-db.js';
import type { Disk, DiskFile } from '../../../common/disk.js';
import { MemoryDisk } from '../../../common/memory-disk.js';
import { packTable } from '../../../proto/extent-table.js';
import { Machine, pattern, SEGMENT_BYTES, version } from './harness.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** A disk that knows how much a sync would have to wait for, and that ends work which never comes to rest. */
class CountingDisk extends MemoryDisk {
  mayWrite = Number.POSITIVE_INFINITY;
  written = 0;
  unsynced = 0;
  unsyncedMax = 0;

  override async open(...args: Parameters<Disk['open']>): Promise<DiskFile> {
    const file = await super.open(...args);
    return {
      ...file,
      write: async (parts, position) => {
        for (const { length } of parts) {
          this.written += length;
          this.unsynced += length;
        }
        assert.ok(this.written <= this.mayWrite, `only ${this.mayWrite} bytes may be written`);
        this.unsyncedMax = Math.max(this.unsyncedMax, this.unsynced);
        await file.write(parts, position);
      },
      datasync: async () => {
        await file.datasync();
        this.unsynced = 0;
      },
    };
  }
}

describe('chunk store whose background work meets operations', () => {
  it('syncs what compaction moves a piece at a time, so that a sync never waits for much of it', async () => {
    const disk = new CountingDisk();
    const machine = new Machine({ disk, segmentBytes: 16 * MIB });
    const store = await machine.boot();
    const inodes = Array.from({ length: 40 }, (_, i) => i + 1);
    for (const ino of inodes)
      await store.write(1, { ino, chunk: 0 }, 0, pattern(ino, 512 * KIB), version(ino));
    for (const ino of inodes.filter((each) => each % 3 !== 0))
      await store.deleteInode(1, ino, version(100 + ino));
    await store.sync();
    disk.written = 0;
    disk.unsyncedMax = 0;
    await machine.clock.advance(60_000);
    assert.ok(disk.written > 4 * MIB, `${disk.written} bytes were moved`);
    // What leads to a sync, in moves of at most 1 MiB, and the headers.
    const most = MOVED_UNSYNCED_BYTES_MAX + MIB + 64 * KIB;
    assert.ok(disk.unsyncedMax <= most, `${disk.unsyncedMax} bytes were not synced`);
    assert.equal((await machine.store.read(1, { ino: 3, chunk: 0 }, 0, MIB)).length, 512 * KIB);
  });

  it('rests for what it has moved, not for each record however small', async () => {
    const machine = new Machine({ compactionBytesPerSecond: MIB });
    const store = await machine.boot();
    let rests = 0;
    const after = machine.clock.after.bind(machine.clock);
    machine.clock.after = (ms, fn) => {
      rests++;
      return after(ms, fn);
    };
    const files = 1500;
    for (let ino = 1; ino <= files; ino++)
      await store.write(1, { ino, chunk: 0 }, 0, pattern(ino, 16), version(ino));
    for (let ino = 1; ino <= files; ino++)
      if (ino % 3 !== 0) await store.deleteInode(1, ino, version(2000 + ino));
    const segments = (await machine.segmentFiles()).length;
    await machine.clock.advance(600_000);
    assert.ok((await machine.segmentFiles()).length < segments - 2, 'it was compacted');
    assert.ok(rests < files / 3 / 5, `${rests} rests for ${files / 3} records`);
    assert.ok(rests > 5, 'it keeps to its rate');
  });

  /** A store of which most is dead, of records that would be compacted. */
  async function mostlyDead(machine: Machine, files = 400): Promise<ChunkStore> {
    const store = await machine.boot();
    for (let ino = 1; ino <= files; ino++)
      await store.write(1, { ino, chunk: 0 }, 0, pattern(ino, 2 * KIB), version(ino));
    for (let ino = 1; ino <= files; ino++)
      if (ino % 8 !== 0) await store.deleteInode(1, ino, version(files + ino));
    return store;
  }

  for (const [use, call] of [
    [
      'written',
      (store: ChunkStore, i: number) => store.write(2, { ino: 1, chunk: 0 }, 0, pattern(i, 16), version(i)),
    ],
    ['read', (store: ChunkStore) => store.read(1, { ino: 8, chunk: 0 }, 0, KIB)],
    ['read at once', async (store: ChunkStore) => store.readNow?.(1, { ino: 8, chunk: 0 }, 0, KIB)],
  ] as const) {
    it(`rewrites no segment while the store is ${use}, and does when nobody uses it`, async () => {
      const machine = new Machine();
      const store = await mostlyDead(machine);
      const { length } = await machine.segmentFiles();
      for (let i = 1; i <= 100; i++) {
        await call(store, i);
        await machine.clock.advance(COMPACTION_QUIET_MS / 2);
      }
      const inUse = (await machine.segmentFiles()).length;
      assert.ok(inUse >= length, `${length} segments, ${inUse} later`);
      await machine.clock.advance(10 * COMPACTION_QUIET_MS);
      const quiet = (await machine.segmentFiles()).length;
      assert.ok(quiet < length / 2, `${length} segments, ${quiet} when nobody used them`);
    });
  }

  it('ends the rewriting of a segment when the store is used again, and goes on later', async () => {
    const machine = new Machine({ segmentBytes: MIB, compactionBytesPerSecond: 16 * KIB });
    const store = await mostlyDead(machine, 1000);
    await machine.clock.advance(COMPACTION_QUIET_MS + 5_000);
    const moving = machine.disk.calls.get('write') ?? 0;
    await machine.clock.advance(2_000);
    const moved = machine.disk.calls.get('write') ?? 0;
    assert.ok(moved > moving, 'it is under way');
    await store.read(1, { ino: 8, chunk: 0 }, 0, KIB);
    await machine.clock.advance(1_000);
    const ended = machine.disk.calls.get('write') ?? 0;
    await machine.clock.advance(COMPACTION_QUIET_MS / 2);
    assert.equal(machine.disk.calls.get('write') ?? 0, ended, 'it has ended');
    const { length } = await machine.segmentFiles();
    await machine.clock.advance(60 * COMPACTION_QUIET_MS);
    assert.ok((await machine.segmentFiles()).length < length, 'it went on');
    assert.deepEqual(machine.failures, []);
  });

  it('rewrites segments of a store in use when dead bytes take much of what is free', async () => {
    const machine = new Machine({ capacityLimitBytes: 2 * MIB });
    const store = await mostlyDead(machine);
    const { length } = await machine.segmentFiles();
    for (let i = 1; i <= 100; i++) {
      await store.read(1, { ino: 8, chunk: 0 }, 0, KIB);
      await machine.clock.advance(COMPACTION_QUIET_MS / 2);
    }
    const { length: later } = await machine.segmentFiles();
    assert.ok(later < length, `${length} segments, ${later} later`);
  });

  /** Each write is a piece of its own; side by side unless they are to lie further apart. */
  function scatter(store: ChunkStore, chunk: number, pieces: number, apart = 10): Promise<unknown>[] {
    return Array.from({ length: pieces }, (_, i) =>
      store.write(1, { ino: 7, chunk }, i * apart, pattern(i, 10), version(chunk * 10_000 + i + 1)),
    );
  }

  it('lets a write to a chunk in too many pieces wait for that chunk, not for all that compaction has to do', async () => {
    // At one byte a second the pass ends in no time that a test waits, and the clock stands still.
    const machine = new Machine({ compactionBytesPerSecond: 1 });
    const store = await machine.boot();
    await Promise.all(scatter(store, 0, 1024));
    await Promise.all(scatter(store, 1, HOLD_CHUNK_EXTENTS));
    const calls = machine.disk.calls;
    const reads = calls.get('read') ?? 0;
    assert.equal((await store.read(1, { ino: 7, chunk: 1 }, 0, MIB)).length, 10 * HOLD_CHUNK_EXTENTS);
    assert.ok((calls.get('read') ?? 0) - reads <= 2, 'it lies together');
    assert.deepEqual(machine.failures, []);
  });

  it('fills the holes of a chunk in too many pieces that lie apart, so that their number stays bounded', async () => {
    const machine = new Machine({ segmentBytes: MIB });
    const store = await machine.boot();
    const key = { ino: 7, chunk: 0 };
    const [apart, length, atOnce] = [200, 10, 1000];
    const expected = Buffer.alloc(2.5 * HOLD_CHUNK_EXTENTS * apart);
    let pieces = 0;
    for (let seq = 1; pieces < 2 * HOLD_CHUNK_EXTENTS; seq++) {
      const starts = Array.from({ length: atOnce }, () => pieces++ * apart);
      const runs = starts.map((start) => ({ start, end: start + length }));
      const data = starts.map((start) => pattern(start, length));
      for (const [i, start] of starts.entries()) data[i]?.copy(expected, start);
      await store.writeRuns(1, key, Buffer.concat([packTable(runs), ...data]), runs, version(seq));
      const { extents = [] } = (await store.readChunk(1, key)) ?? {};
      assert.ok(extents.length < HOLD_CHUNK_EXTENTS + atOnce, `${extents.length} pieces`);
    }
    const end = (pieces - 1) * apart + length;
    assert.deepEqual(Buffer.concat((await store.read(1, key, 0, end)).data), expected.subarray(0, end));
    const { liveBytes } = store.usage();
    const again = await machine.crash('everything', 0);
    assert.deepEqual(Buffer.concat((await again.read(1, key, 0, end)).data), expected.subarray(0, end));
    assert.equal(again.usage().liveBytes, liveBytes);
    assert.deepEqual(machine.failures, []);
  });

  it('fills no hole that is written to while a chunk is put together', async () => {
    const machine = new Machine({ segmentBytes: MIB });
    const store = await machine.boot();
    const key = { ino: 7, chunk: 0 };
    await Promise.all(scatter(store, 0, HOLD_CHUNK_EXTENTS - 1, 20));
    // It waits until the chunk is put together, which has begun to read it.
    const last = store.write(1, key, 20 * HOLD_CHUNK_EXTENTS, pattern(1, 10), version(20_000));
    const other = store.write(1, key, 15, pattern(2, 2), version(20_001));
    await Promise.all([last, other]);
    const read = await store.read(1, key, 0, 30);
    const expected = [pattern(0, 10), Buffer.alloc(5), pattern(2, 2), Buffer.alloc(3), pattern(1, 10)];
    assert.deepEqual(Buffer.concat(read.data), Buffer.concat(expected));
  });

  for (const when of ['at leisure', 'while space is short']) {
    it(`comes to rest ${when} when what is live lies in records smaller than their headers`, async () => {
      const disk = new CountingDisk();
      const machine = new Machine({
        disk,
        ...(when === 'at leisure' ? {} : { capacityLimitBytes: 12 * SEGMENT_BYTES }),
      });
      const store = await machine.boot();
      for (let ino = 1; ino <= 1500; ino++)
        await store.write(1, { ino, chunk: 0 }, 0, pattern(ino, 16), version(ino));
      for (let ino = 1; ino <= 1500; ino += 3) await store.deleteInode(1, ino, version(2000 + ino));
      // Everything was written once; all of it may be moved once, before there is nothing to gain.
      disk.mayWrite = 2 * disk.written;
      await machine.clock.advance(600_000);
      disk.mayWrite = disk.written;
      await machine.clock.advance(600_000);
      assert.equal((await store.read(1, { ino: 2, chunk: 0 }, 0, 16)).length, 16);
      assert.deepEqual(machine.failures, []);
    });
  }

  it('makes the entries of a checkpoint in slices, with turns of the event loop between them', async () => {
    const db = new MemoryIndexDb();
    let inTurn = 0;
    let most = 0;
    let over = false;
    const turn = (): void => {
      inTurn = 0;
      if (!over) setImmediate(turn);
    };
    turn();
    function* entries() {
      for (let i = 0; i < 40; i++) {
        const value = pattern(i, 50 * KIB);
        inTurn += value.length;
        most = Math.max(most, inTurn);
        yield { key: Buffer.from([i]), value };
      }
    }
    await new SealedIndexDb(db).commit(entries());
    over = true;
    assert.ok(most <= 2 * (COMMIT_SLICE_BYTES + 50 * KIB), `${most} bytes in one turn`);
    assert.deepEqual(new SealedIndexDb(db).get(Buffer.from([39])), pattern(39, 50 * KIB));
  });
});
