import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { crc32c } from '../../common/crc32c.js';
import { type Disk, nodeDisk } from '../../common/disk.js';
import { MemoryDisk } from '../../common/memory-disk.js';
import { createPrng } from '../../common/prng.js';
import {
  comparePositions,
  LogCorruptError,
  LogFailedError,
  LogFormatError,
  type Position,
  type RecordSummary,
  SegmentLog,
  type SegmentLogOptions,
} from '../../common/segment-log.js';
import { LAYOUT_VERSION, SEGMENT_HEADER_BYTES } from '../../common/segment-log-format.js';

interface Seen {
  position: Position;
  type: number;
  payload: string;
}

const SEGMENT_BYTES = 4096;

async function openLog(
  disk: Disk,
  seen: Seen[] = [],
  options: Partial<SegmentLogOptions> = {},
): Promise<SegmentLog> {
  return SegmentLog.open({
    disk,
    dir: '/log',
    kind: 'test',
    formatVersion: 3,
    segmentBytes: SEGMENT_BYTES,
    onRecord: (position, type, payload) => seen.push({ position, type, payload: payload.toString('latin1') }),
    ...options,
  });
}

function add(log: SegmentLog, text: string, type = 1): Position {
  return log.append(type, [Buffer.from(text)]);
}

const file = (segment: number): string => `/log/${String(segment).padStart(10, '0')}.seg`;

describe('SegmentLog', () => {
  it('gives back records in order with types and positions after it was reopened', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    const positions = [
      add(log, 'first', 7),
      log.append(8, [Buffer.from('se'), Buffer.from('cond')]),
      add(log, ''),
    ];
    await log.close();
    const seen: Seen[] = [];
    await (await openLog(disk, seen)).close();
    assert.deepEqual(seen, [
      { position: positions[0], type: 7, payload: 'first' },
      { position: positions[1], type: 8, payload: 'second' },
      { position: positions[2], type: 1, payload: '' },
    ]);
  });

  it('appends behind the old end after every reopening, across segments', async () => {
    const disk = new MemoryDisk();
    const texts: string[] = [];
    for (let round = 0; round < 5; round++) {
      const seen: Seen[] = [];
      const log = await openLog(disk, seen);
      assert.deepEqual(
        seen.map((each) => each.payload),
        texts,
      );
      for (let i = 0; i < 10; i++) {
        texts.push(`${round}/${i}/${'x'.repeat(i * 50)}`);
        add(log, texts.at(-1) as string);
      }
      await log.close();
    }
    assert.ok((await disk.list('/log')).length > 2);
  });

  it('works on the file system of this machine', async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-log-'));
    try {
      const log = await openLog(nodeDisk, [], { dir });
      const positions = Array.from({ length: 100 }, (_, i) => add(log, `record ${i} ${'y'.repeat(i * 3)}`));
      await log.sync();
      assert.equal(comparePositions(log.durable, log.end), 0);
      assert.equal((await log.read(positions[60] as Position)).payload.toString().slice(0, 9), 'record 60');
      await log.close();
      const seen: Seen[] = [];
      await (await openLog(nodeDisk, seen, { dir })).close();
      assert.deepEqual(
        seen.map((each) => each.position),
        positions,
      );
    } finally {
      fs.rmSync(dir, { recursive: true });
    }
  });

  it('gathers the appends of one turn into one write, and the syncs of many callers into few', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    for (let i = 0; i < 20; i++) add(log, `r${i}`);
    await log.written();
    assert.equal(disk.calls.get('write'), 1);
    await Promise.all(
      Array.from({ length: 20 }, (_, i) => {
        add(log, `s${i}`);
        return log.sync();
      }),
    );
    assert.equal(disk.calls.get('write'), 2);
    assert.ok((disk.calls.get('datasync') as number) <= 2);
  });

  it('writes zeros ahead of records that are synced in small pieces, and none behind a clean end', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    add(log, 'a');
    await log.sync();
    assert.equal(disk.content(file(1)).length, log.end.offset);
    add(log, 'b');
    await log.sync();
    const grown = disk.content(file(1)).length;
    assert.ok(grown > log.end.offset);
    add(log, 'c');
    await log.sync();
    assert.equal(disk.content(file(1)).length, grown);
    await log.close();
    assert.equal(disk.content(file(1)).length, log.end.offset);
  });

  it('finds no torn record in the zeros that a crash has left, and goes on where the records end', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk.mounted());
    for (const text of ['a', 'b', 'c']) {
      add(log, text);
      await log.sync();
    }
    disk.crash('nothing', createPrng(1));
    assert.ok(disk.content(file(1)).length > log.end.offset);
    const seen: Seen[] = [];
    const again = await openLog(disk, seen);
    assert.deepEqual(
      seen.map((each) => each.payload),
      ['a', 'b', 'c'],
    );
    assert.deepEqual([again.tornBytes, again.end], [0, log.end]);
    assert.equal(disk.content(file(1)).length, log.end.offset);
  });

  it('finds all records although zeros are left at the end of a segment that was left', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    const texts = Array.from({ length: 12 }, (_, i) => `${i}${'x'.repeat(500)}`);
    for (const text of texts) {
      add(log, text);
      await log.sync();
    }
    assert.equal(log.end.segment, 2);
    await log.close();
    const end = disk.content(file(1)).length;
    const first = await disk.open(file(1), 'write');
    await first.write([Buffer.alloc(300)], end);
    await first.datasync();
    const seen: Seen[] = [];
    await openLog(disk, seen);
    assert.deepEqual(
      seen.map((each) => each.payload),
      texts,
    );
    assert.equal(disk.content(file(1)).length, end);
  });

  it('goes on without zeros on a disk that has room for the records alone', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    add(log, 'a');
    await log.sync();
    disk.fail('write', 'ENOSPC', 1);
    for (const text of ['b', 'c', 'd']) {
      add(log, text);
      await log.sync();
    }
    await log.close();
    const seen: Seen[] = [];
    await openLog(disk, seen);
    assert.deepEqual(
      seen.map((each) => each.payload),
      ['a', 'b', 'c', 'd'],
    );
  });

  it('takes a checksum that the caller computed, and finds it wrong when it is', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    const data = Buffer.from('known');
    const good = log.append(1, [data], crc32c(data));
    const bad = log.append(1, [data], 1);
    assert.equal((await log.read(good)).payload.toString(), 'known');
    await assert.rejects(log.read(bad), LogCorruptError);
  });

  it('reads a record and parts of it at once after the append, before the write is done', async () => {
    const log = await openLog(new MemoryDisk());
    const position = add(log, 'hello world', 9);
    const { type, payload } = await log.read(position);
    assert.deepEqual([type, payload.toString()], [9, 'hello world']);
    const part = await log.readAt(position.segment, SegmentLog.payloadOffset(position) + 6, 5);
    assert.equal(part.toString(), 'world');
    await assert.rejects(log.readAt(position.segment, position.offset, 500), LogCorruptError);
  });

  it('replays from a position only what lies behind it', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    const positions = Array.from({ length: 60 }, (_, i) => add(log, `${i}`.padEnd(200)));
    const end = log.end;
    await log.close();
    const seen: Seen[] = [];
    await (await openLog(disk, seen, { from: positions[33] })).close();
    assert.deepEqual(
      seen.map((each) => each.position),
      positions.slice(33),
    );
    const none: Seen[] = [];
    await (await openLog(disk, none, { from: end })).close();
    assert.equal(none.length, 0);
  });

  it('drops old segments for good and goes on counting', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    const positions = Array.from({ length: 60 }, (_, i) => add(log, `${i}`.padEnd(200)));
    await log.sync();
    const last = log.segments.at(-1) as number;
    await log.unlinkSegment(2);
    await log.dropSegmentsBefore(last);
    assert.deepEqual(log.segments, [last]);
    await log.close();
    const seen: Seen[] = [];
    const again = await openLog(disk, seen);
    assert.deepEqual(
      seen.map((each) => each.position),
      positions.filter((each) => each.segment === last),
    );
    assert.equal(add(again, 'x'.repeat(SEGMENT_BYTES - 200)).segment, last + 1);
  });

  it('summarises the records of a segment without reading their payloads whole', async () => {
    const log = await openLog(new MemoryDisk(), [], { segmentBytes: 1 << 20 });
    const sizes = [10, 100_000, 0, 70_000, 5];
    const positions = sizes.map((size, i) => log.append(i, [Buffer.alloc(size, 65 + i)]));
    await log.written();
    const found: RecordSummary[] = [];
    for await (const record of log.records(1, 4)) found.push(record);
    assert.deepEqual(
      found.map(({ position, type, length }) => ({ position, type, length })),
      positions.map((position, type) => ({ position, type, length: sizes[type] })),
    );
    assert.deepEqual(
      [0, 1, 3].map((i) => found[i]?.head.toString()),
      ['AAAA', 'BBBB', 'DDDD'],
    );
  });
});

describe('SegmentLog when things fail', () => {
  for (const call of ['write', 'datasync'] as const) {
    it(`fails for good after one failed ${call}`, async () => {
      const disk = new MemoryDisk();
      const log = await openLog(disk);
      add(log, 'good');
      await log.sync();
      disk.fail(call, 'EIO');
      add(log, 'bad');
      await assert.rejects(log.sync(), LogFailedError);
      assert.throws(() => add(log, 'later'), LogFailedError);
      await assert.rejects(log.sync(), LogFailedError);
      await assert.rejects(log.written(), LogFailedError);
      await log.close();
      disk.crash('nothing', createPrng(1));
      const seen: Seen[] = [];
      await openLog(disk, seen);
      assert.deepEqual(
        seen.map((each) => each.payload),
        ['good'],
      );
    });
  }

  it('refuses another kind, version, owner and layout, each with a clear error', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    add(log, 'x');
    await log.close();
    await assert.rejects(openLog(disk, [], { kind: 'other' }), /a log of kind test, not other/);
    await assert.rejects(openLog(disk, [], { formatVersion: 4 }), /format version 3; this program knows 4/);
    const uuid = '00000000-0000-4000-8000-000000000001';
    await assert.rejects(openLog(disk, [], { uuid }), new RegExp(`belongs to ${log.uuid}`));
    const header = disk.content(file(1)).subarray(0, SEGMENT_HEADER_BYTES);
    header.writeUInt32LE(LAYOUT_VERSION + 1, 8);
    header.writeUInt32LE(crc32c(header.subarray(0, 60)), 60);
    await (await disk.open(file(1), 'write')).write([header], 0);
    await assert.rejects(openLog(disk), LogFormatError);
  });

  it('takes a flipped bit anywhere in the header of a synced segment for damage, not for another version', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    add(log, 'x');
    await log.close();
    for (let offset = 0; offset < SEGMENT_HEADER_BYTES; offset++) {
      disk.flipBit(file(1), offset, offset % 8);
      await assert.rejects(openLog(disk, [], { uuid: log.uuid }), LogCorruptError, `byte ${offset}`);
      disk.flipBit(file(1), offset, offset % 8);
    }
    await openLog(disk);
  });

  it('cuts off a torn tail and goes on behind the last whole record', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    add(log, 'whole');
    await log.sync();
    const torn = add(log, 'torn');
    await log.written();
    disk.flipBit(file(1), SegmentLog.payloadOffset(torn));
    const seen: Seen[] = [];
    const again = await openLog(disk, seen);
    assert.deepEqual(
      seen.map((each) => each.payload),
      ['whole'],
    );
    assert.equal(again.tornBytes, SegmentLog.recordBytes(4));
    assert.deepEqual(add(again, 'next'), torn);
  });

  it('reports damage to a synced record with file and offset, when a later record shows that it was synced', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    const damaged = add(log, 'synced');
    await log.sync();
    add(log, 'later');
    await log.written();
    disk.flipBit(file(1), SegmentLog.payloadOffset(damaged));
    await assert.rejects(openLog(disk), (error: unknown) => {
      assert.ok(error instanceof LogCorruptError);
      assert.deepEqual([error.file, error.offset], [file(1), damaged.offset]);
      return true;
    });
  });

  it('does not mistake the copy of a segment inside a payload for records', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk, [], { segmentBytes: 1 << 20 });
    add(log, 'a');
    await log.sync();
    add(log, 'b');
    await log.written();
    const copy = disk.content(file(1));
    const torn = log.append(1, [copy]);
    await log.written();
    disk.flipBit(file(1), SegmentLog.payloadOffset(torn));
    const seen: Seen[] = [];
    await openLog(disk, seen);
    assert.deepEqual(
      seen.map((each) => each.payload),
      ['a', 'b'],
    );
  });

  it('reports damage to the last record after a clean close', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    const last = add(log, 'last');
    await log.close();
    disk.flipBit(file(1), SegmentLog.payloadOffset(last));
    await assert.rejects(openLog(disk), LogCorruptError);
  });

  it('reports a lost segment, and a start that lies beyond the log', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    const positions = Array.from({ length: 60 }, (_, i) => add(log, `${i}`.padEnd(200)));
    await log.close();
    await disk.unlink(file(2));
    await assert.rejects(openLog(disk, [], { from: positions[0] }), /0000000002.seg: segment is missing/);
    await assert.rejects(openLog(disk, [], { from: { segment: 1, offset: 9999 } }), LogCorruptError);
    await assert.rejects(openLog(new MemoryDisk(), [], { from: positions[0] }), LogCorruptError);
  });

  it('keeps a prefix that holds all synced records, whatever a power cut leaves of the rest', async () => {
    const step = fc.record({
      size: fc.integer({ min: 0, max: 1500 }),
      wait: fc.constantFrom('nothing', 'written', 'sync', 'start sync'),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(step, { maxLength: 25 }), { minLength: 1, maxLength: 4 }),
        fc.integer(),
        async (lives, seed) => {
          const disk = new MemoryDisk();
          const prng = createPrng(seed);
          let expected: string[] = [];
          for (const life of lives) {
            const log = await openLog(disk.mounted());
            const appended = [...expected];
            let synced = expected.length;
            for (const { size, wait } of life) {
              const text = `${appended.length}:`.padEnd(
                size,
                String.fromCharCode(97 + (appended.length % 26)),
              );
              add(log, text);
              appended.push(text);
              if (wait === 'written') await log.written();
              if (wait === 'start sync') void log.sync().catch(() => undefined);
              if (wait === 'sync') {
                await log.sync();
                synced = appended.length;
              }
            }
            disk.crash('random', prng);
            const seen: Seen[] = [];
            const recovered = await openLog(disk.mounted(), seen);
            const texts = seen.map((each) => each.payload);
            assert.ok(texts.length >= synced, `${texts.length} records of ${synced} synced ones`);
            assert.deepEqual(texts, appended.slice(0, texts.length));
            expected = texts;
            if (prng.float() < 0.5) await recovered.close();
            else disk.crash('random', prng);
          }
        },
      ),
      { numRuns: 150 },
    );
  });
});
