import assert from 'node:assert/strict';
import fc from 'fast-check';
import { packContent, unpackContent } from '../../../chunkserver/pg/pack.js';
import type { ChunkContent, ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { type Extent, isReserved, newExtent, replaceRange } from '../../../chunkserver/store/extents.js';
import { coverage, reservedRuns, reserveGaps } from '../../../chunkserver/store/reserved.js';
import { blockCrcs } from '../../../proto/block-crc.js';
import { CHUNK_BYTES, dumpStore, Machine, pattern, SEGMENT_BYTES, version } from './harness.js';

const KEY = { ino: 5, chunk: 2 };

describe('reserved space of a chunk', () => {
  const range = fc
    .tuple(fc.nat(999), fc.integer({ min: 1, max: 400 }))
    .map(([start, length]) => ({ start, end: Math.min(1000, start + length) }));
  const changes = fc.array(fc.record({ range, what: fc.constantFrom('write', 'hole', 'reserve') }), {
    maxLength: 25,
  });

  it('fills the gaps of a range, is one extent where it touches, and is counted in every change', () => {
    fc.assert(
      fc.property(changes, range, (list, asked) => {
        let extents: readonly Extent[] = [];
        const live = { bytes: 0, extents: 0 };
        const count = (_segment: number, bytes: number, added: number): void => {
          live.bytes += bytes;
          live.extents += added;
        };
        const naive = new Array<string>(1000).fill('hole');
        for (const { range: at, what } of list) {
          const { start, end } = at;
          if (what === 'reserve') extents = reserveGaps(extents, start, end, count);
          else {
            const data = newExtent(start, end - start, 1, 0, blockCrcs(start, pattern(1, end - start)));
            extents = replaceRange(extents, start, end, what === 'write' ? data : undefined, count);
          }
          for (let i = start; i < end; i++) if (what !== 'reserve' || naive[i] === 'hole') naive[i] = what;
        }
        const seen = new Array<string>(1000).fill('hole');
        for (const extent of extents)
          seen.fill(isReserved(extent) ? 'reserve' : 'write', extent.start, extent.end);
        assert.deepEqual(seen, naive);
        assert.deepEqual(live, {
          bytes: naive.filter((each) => each !== 'hole').length,
          extents: extents.length,
        });
        for (const [i, extent] of extents.entries()) {
          const next = extents[i + 1];
          assert.ok(!next || !isReserved(extent) || !isReserved(next) || extent.end < next.start);
        }
        const within = naive.slice(asked.start, asked.end);
        assert.deepEqual(coverage(extents, [asked]), {
          stored: within.filter((each) => each === 'write').length,
          reserved: within.filter((each) => each === 'reserve').length,
        });
        for (const { start, end } of reservedRuns(extents))
          assert.ok(!naive.slice(start, end).includes('hole'));
      }),
    );
  });

  it('reads as zeros, is no data, and becomes data where it is written, which takes nothing more', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    await store.write(1, KEY, 1000, pattern(1, 500), version(1));
    assert.deepEqual(await store.reserve(1, KEY, 0, 8192, version(2)), { allocatedDelta: 8192 - 500 });
    assert.deepEqual(await store.reserve(1, KEY, 100, 8000, version(3)), { allocatedDelta: 0 });
    assert.equal(store.usage().liveBytes, 8192);
    assert.deepEqual(store.chunkInfo(1, KEY), { ...KEY, version: version(3), bytes: 8192 });
    const expected = Buffer.alloc(1500);
    pattern(1, 500).copy(expected, 1000);
    const read = await store.read(1, KEY, 0, 8192);
    assert.deepEqual(Buffer.concat(read.data), expected, 'what is left off at the end is a hole');
    const data = [{ start: 1000, end: 1500 }];
    assert.deepEqual(store.ranges(1, { ino: 5, chunk: 0 }), { chunk: 2, ranges: data });
    assert.deepEqual(store.ranges(1, { ino: 5, chunk: 0 }, true)?.ranges, [{ start: 0, end: 8192 }]);
    assert.deepEqual(await store.write(1, KEY, 4000, pattern(2, 3000), version(4)), { allocatedDelta: 0 });
    assert.deepEqual(await store.write(1, KEY, 8000, pattern(3, 400), version(5)), { allocatedDelta: 208 });
    assert.deepEqual(store.coverage(1, KEY, [{ start: 0, end: 16_384 }]), { stored: 3900, reserved: 4500 });
    assert.deepEqual(await store.punch(1, KEY, 0, 2000, version(6)), { allocatedDelta: -2000 });
    assert.deepEqual(await store.truncate(1, 5, 2 * CHUNK_BYTES, CHUNK_BYTES, 1, version(7)), {
      allocatedDelta: -6400,
    });
    assert.equal(store.usage().liveBytes, 0);
  });

  it('of a chunk without data is found by those who look for what takes space, and by nobody else', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    await store.reserve(1, KEY, 10, 90, version(1));
    assert.equal(store.ranges(1, { ino: 5, chunk: 0 }), undefined);
    assert.deepEqual(store.ranges(1, { ino: 5, chunk: 0 }, true), {
      chunk: 2,
      ranges: [{ start: 10, end: 100 }],
    });
    assert.deepEqual(await store.read(1, KEY, 0, 100), { version: version(1), data: [], length: 0, crc: 0 });
  });

  it('survives a crash, from the log and from the index, and a copy has it too', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    await store.write(1, KEY, 1000, pattern(1, 500), version(1));
    await store.reserve(1, KEY, 0, 8192, version(2));
    await store.write(1, KEY, 2000, pattern(2, 100), version(3));
    await store.sync();
    const before = await dumpStore(store);
    assert.match(before.join(), /0\+1000 reserved 1500\+500 reserved 2100\+6092 reserved/);
    await machine.crash('nothing', 1);
    assert.deepEqual(await dumpStore(machine.store), before, 'from the log');
    await machine.store.close();
    await machine.boot();
    assert.deepEqual(await dumpStore(machine.store), before, 'from the index');
    const content = (await machine.store.readChunk(1, KEY)) as ChunkContent;
    assert.deepEqual(content.reserved, [{ start: 0, end: 8192 }], 'one run, whatever was written in it');
    const copy = unpackContent(Buffer.concat(packContent(content)));
    await machine.store.install(2, KEY, copy);
    assert.equal(machine.store.chunkInfo(2, KEY)?.bytes, 8192);
    const copied = before
      .map((line) => line.replace('chunk 1/', 'chunk 2/'))
      .filter((line) => /^chunk/.test(line));
    assert.deepEqual(
      (await dumpStore(machine.store)).filter((line) => line.startsWith('chunk 2/')),
      copied,
    );
    const damaged = (await machine.store.salvageChunk(1, KEY)) as ChunkContent;
    assert.deepEqual(damaged.reserved, content.reserved);
    await machine.crash('everything', 1);
    assert.equal(machine.store.chunkInfo(2, KEY)?.bytes, 8192, 'from the log of the copy');
  });
});

describe('reserved space of a store', () => {
  const LIMIT_BYTES = 40 * SEGMENT_BYTES;
  const FILES = 16;

  async function full(): Promise<{ machine: Machine; store: ChunkStore; seq: () => number }> {
    const machine = new Machine({ capacityLimitBytes: LIMIT_BYTES, compactionQuietMs: 0 });
    const store = await machine.boot();
    let last = 0;
    return { machine, store, seq: () => ++last };
  }

  it('is used space and no room, but for the writes that it was promised to', async () => {
    const { store, seq } = await full();
    const before = store.usage();
    await store.reserve(1, KEY, 0, CHUNK_BYTES, version(seq()));
    const after = store.usage();
    assert.ok(before.freeBytes - after.freeBytes >= CHUNK_BYTES);
    assert.ok(before.roomBytes - after.roomBytes >= CHUNK_BYTES);
    assert.ok(after.capacityBytes >= before.capacityBytes - 200, 'the disk is as large as it was');
    assert.ok(before.promisedRoomBytes - after.promisedRoomBytes < 200);
    for (let at = 0; at < CHUNK_BYTES; at += 4096)
      await store.write(1, KEY, at, pattern(at, 4096), version(seq()));
    assert.equal(store.usage().reservedBytes, 0);
    assert.ok(before.roomBytes - store.usage().roomBytes <= before.roomBytes - after.roomBytes + 200);
  });

  it('can be written in pages when there is no room left, also while much of the rest dies and is compacted', async () => {
    const { machine, store, seq } = await full();
    for (let ino = 1; ino <= FILES; ino++)
      await store.reserve(1, { ino, chunk: 0 }, 0, CHUNK_BYTES, version(seq()));
    // Others take all that there is, as a primary lets them.
    for (let i = 0; store.usage().roomBytes >= 4096 + 200; i++) {
      const { promisedRoomBytes, reservedBytes } = store.usage();
      assert.ok(promisedRoomBytes >= reservedBytes);
      await store.write(1, { ino: 99, chunk: i % 7 }, (i % 4) * 4096, pattern(i, 4096), version(seq()));
      if (i % 16 === 0) await machine.clock.advance(3000);
      if (i > 2000) break;
    }
    for (let ino = 1; ino <= FILES; ino++) {
      for (let at = 0; at < CHUNK_BYTES; at += 4096) {
        const { promisedRoomBytes } = store.usage();
        assert.ok(promisedRoomBytes >= 4096, `${promisedRoomBytes} bytes for page ${at} of ${ino}`);
        const write = store.write(1, { ino, chunk: 0 }, at, pattern(at, 4096), version(seq()));
        await machine.clock.advance(100);
        assert.deepEqual(await write, { allocatedDelta: 0 });
      }
    }
    assert.equal(store.usage().reservedBytes, 0);
    assert.deepEqual(machine.failures, []);
  });

  it('is not copied from another server before there is room for it', async () => {
    const { store, seq } = await full();
    const files = 28;
    for (let ino = 1; ino <= files; ino++)
      await store.reserve(1, { ino, chunk: 0 }, 0, CHUNK_BYTES, version(seq()));
    const room = store.usage().roomBytes;
    const reserved = [{ start: 0, end: room + SEGMENT_BYTES + 1 }];
    const content = { version: version(seq()), extents: [], truncateSeq: 0, reserved };
    await assert.rejects(store.install(1, { ino: 100, chunk: 0 }, content), { errorName: 'ENOSPC' });
    // A copy of what is here already takes nothing more.
    const again = (await store.readChunk(1, { ino: 1, chunk: 0 })) as ChunkContent;
    await store.install(1, { ino: 1, chunk: 0 }, again);
    assert.equal(store.usage().roomBytes <= room && store.usage().roomBytes >= room - 1000, true);
  });
});
