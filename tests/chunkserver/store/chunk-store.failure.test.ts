import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { ChunkContent, ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { MemoryIndexDb } from '../../../chunkserver/store/index-db.js';
import { openChunkStore } from '../../../chunkserver/store/open.js';
import { systemClock } from '../../../common/clock.js';
import { DirectoryLockedError } from '../../../common/dir-lock.js';
import { silentLogger } from '../../../common/logger.js';
import { LogCorruptError } from '../../../common/segment-log.js';
import { type ErrorName, HoldfastError } from '../../../proto/errors.js';
import { DIR, drained, dumpStore, Machine, pattern, SEGMENT_BYTES, version } from './harness.js';

const KEY = { ino: 7, chunk: 0 };

function named(name: ErrorName, text = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof HoldfastError, String(error));
    assert.equal(error.errorName, name);
    assert.match(error.message, text);
    return true;
  };
}

async function fill(store: ChunkStore, ino: number, bytes: number): Promise<number> {
  let written = 0;
  for (; written < bytes; written += 4096) {
    try {
      const key = { ino, chunk: Math.floor(written / 16_384) };
      await store.write(1, key, written % 16_384, pattern(written, 4096), version(written + 1));
    } catch (error) {
      named('ENOSPC')(error);
      break;
    }
  }
  return written;
}

describe('chunk store when data is damaged', () => {
  it('refuses a damaged block by name, and serves the blocks beside it', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    await store.write(1, KEY, 1000, pattern(1, 12_000), version(1));
    const file = `${DIR}/log/0000000001.seg`;
    machine.disk.flipBit(file, machine.disk.content(file).indexOf(pattern(1, 12_000)) + 4000);
    await assert.rejects(
      store.read(1, KEY, 0, 16_384),
      named('CORRUPT', /pg 1 inode 7 chunk 0: block at 4096/),
    );
    await assert.rejects(store.readChunk(1, KEY), named('CORRUPT'));
    assert.equal((await store.read(1, KEY, 1000, 3096)).length, 3096);
    assert.equal((await store.read(1, KEY, 8192, 100)).length, 100);
    await store.write(1, KEY, 4096, pattern(2, 4096), version(2));
    assert.equal((await store.read(1, KEY, 1000, 12_000)).length, 12_000);
  });

  it('salvages all but the damaged block; whoever installs that fails to read it, also behind a crash and a clean end', async () => {
    const source = new Machine();
    const from = await source.boot();
    await from.write(1, KEY, 1000, pattern(1, 12_000), version(1));
    const file = `${DIR}/log/0000000001.seg`;
    source.disk.flipBit(file, source.disk.content(file).indexOf(pattern(1, 12_000)) + 4000);
    const salvaged = (await from.salvageChunk(1, KEY)) as ChunkContent;
    assert.deepEqual(salvaged.lost, [{ start: 4096, end: 8192 }]);
    const machine = new Machine();
    let store = await machine.boot();
    const isAsSalvaged = async (): Promise<void> => {
      const sound = Buffer.concat((await store.read(1, KEY, 8192, 10_000)).data);
      assert.deepEqual(sound, pattern(1, 12_000).subarray(7192));
      assert.equal((await store.read(1, KEY, 1000, 3096)).length, 3096);
      await assert.rejects(store.read(1, KEY, 8191, 1), named('CORRUPT'));
      await assert.rejects(store.readChunk(1, KEY), named('CORRUPT'));
      assert.deepEqual((await store.salvageChunk(1, KEY))?.lost, salvaged.lost);
    };
    await store.install(1, KEY, salvaged);
    await store.sync();
    await isAsSalvaged();
    store = await machine.crash('nothing', 1);
    await isAsSalvaged();
    await store.close();
    store = await machine.boot();
    await isAsSalvaged();
    await store.write(1, KEY, 4096, pattern(2, 4096), version(2));
    assert.equal((await store.read(1, KEY, 1000, 12_000)).length, 12_000);
  });

  it('leaves a damaged block where it is when its segment is compacted', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    await store.write(1, KEY, 0, pattern(1, 4096), version(1));
    const file = `${DIR}/log/0000000001.seg`;
    machine.disk.flipBit(file, machine.disk.content(file).indexOf(pattern(1, 4096)));
    await fill(store, 8, 4 * SEGMENT_BYTES);
    await store.deleteInode(1, 8, version(1e6));
    await machine.clock.advance(60_000);
    await assert.rejects(store.read(1, KEY, 0, 1), named('CORRUPT'));
    assert.deepEqual(machine.failures, []);
    assert.ok((await machine.segmentFiles()).includes('0000000001.seg'));
    await store.install(1, KEY, {
      version: version(2),
      extents: [{ offset: 0, data: pattern(1, 10) }],
      truncateSeq: 0,
    });
    await machine.clock.advance(60_000);
    assert.equal((await machine.segmentFiles()).length, 1);
  });

  it('compacts a segment in which a record names an inode that cannot be', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    await store.write(1, KEY, 0, pattern(1, 4096), version(1));
    const file = `${DIR}/log/0000000001.seg`;
    const inode = Buffer.alloc(8);
    inode.writeDoubleLE(KEY.ino);
    // In the exponent: 7 becomes a number of 155 digits.
    machine.disk.flipBit(file, machine.disk.content(file).indexOf(inode) + 7, 5);
    await fill(store, 8, 4 * SEGMENT_BYTES);
    await store.deleteInode(1, 8, version(1e6));
    await machine.clock.advance(60_000);
    assert.deepEqual(machine.failures, []);
    assert.deepEqual(Buffer.concat((await store.read(1, KEY, 0, 4096)).data), pattern(1, 4096));
  });

  it('refuses offsets that no chunk has', async () => {
    const store = await new Machine().boot();
    await assert.rejects(store.write(1, KEY, -1, pattern(1, 1), version(1)), named('EINVAL'));
    await assert.rejects(store.write(1, KEY, 2 ** 32 - 1, pattern(1, 1), version(1)), named('EINVAL'));
    await assert.rejects(store.write(1, KEY, 0, Buffer.alloc(17 << 20), version(1)), named('EINVAL'));
    assert.deepEqual(store.pgs(), []);
  });

  it('fails for good when the disk fails, tells so once, and has what was synced after a restart', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    await store.write(1, KEY, 0, pattern(1, 100), version(1));
    await store.sync();
    machine.disk.fail('datasync', 'EIO');
    await store.write(1, KEY, 0, pattern(2, 100), version(2));
    await assert.rejects(store.sync(), named('EIO'));
    await assert.rejects(store.write(1, KEY, 0, pattern(3, 100), version(3)), named('EIO'));
    await machine.clock.advance(10_000);
    assert.equal(machine.failures.length, 1);
    await store.close();
    const again = await machine.crash('nothing', 1);
    assert.deepEqual(Buffer.concat((await again.read(1, KEY, 0, 100)).data), pattern(1, 100));
  });

  it('believes after a failed sync only what was synced before, whatever the system shows', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    await store.write(1, KEY, 0, pattern(1, 100), version(1));
    await store.sync();
    const written = await fill(store, 8, 3 * 4096);
    machine.disk.fail('datasync', 'EIO');
    await assert.rejects(store.sync(), named('EIO'));
    await store.close();
    assert.ok(
      machine.disk.content(`${DIR}/log/0000000001.seg`).length > 1000,
      'the bytes are still to be seen',
    );
    const again = await machine.boot();
    assert.deepEqual(Buffer.concat((await again.read(1, KEY, 0, 100)).data), pattern(1, 100));
    assert.deepEqual(again.pgState(1).last, version(1));
    assert.equal(again.list(1, undefined, 100).length, 1);
    await again.write(1, KEY, 0, pattern(2, 100), version(2));
    await again.close();
    const third = await machine.boot();
    assert.deepEqual(Buffer.concat((await third.read(1, KEY, 0, 100)).data), pattern(2, 100));
    assert.ok(written > 0);
  });

  it('treats what the disk cannot read as lost, and goes on', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    await store.write(1, KEY, 0, pattern(1, 4096), version(1));
    await fill(store, 8, 4 * SEGMENT_BYTES);
    machine.disk.fail('read', 'EIO');
    await assert.rejects(store.read(1, KEY, 0, 100), named('CORRUPT', /pg 1 inode 7 chunk 0: .*EIO/));
    await store.deleteInode(1, 8, version(1e6));
    machine.disk.fail('read', 'EIO', 0, 100);
    await machine.clock.advance(60_000);
    assert.deepEqual(machine.failures, []);
    await store.write(1, KEY, 0, pattern(3, 4096), version(1e6 + 1));
  });

  it('refuses a lost index, a lost log and a foreign one', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    await fill(store, 7, 4 * SEGMENT_BYTES);
    await store.deleteInode(1, 7, version(1e6));
    await store.write(1, KEY, 0, pattern(1, 10), version(1e6 + 1));
    await machine.clock.advance(60_000);
    await store.close();
    const { db } = machine;
    machine.db = new MemoryIndexDb();
    await assert.rejects(machine.boot(), /the index is lost/);
    machine.db = db;
    for (const name of await machine.segmentFiles()) await machine.disk.unlink(`${DIR}/log/${name}`);
    await assert.rejects(machine.boot(), LogCorruptError);
    const other = new Machine({ newUuid: () => '99999999-2222-4333-8444-555555555555' });
    other.db = db;
    await assert.rejects(other.boot(), /the index belongs to disk 11111111/);
  });
});

describe('chunk store when space is short', () => {
  const LIMIT_BYTES = 20 * SEGMENT_BYTES;

  it('refuses writes with ENOSPC, while deletes, truncates and states still work', async () => {
    const machine = new Machine({ capacityLimitBytes: LIMIT_BYTES });
    const store = await machine.boot();
    const written = await fill(store, 7, LIMIT_BYTES);
    assert.ok(written >= 10 * SEGMENT_BYTES && written < 18 * SEGMENT_BYTES, `${written} bytes`);
    // Record headers take the rest.
    assert.ok(store.usage().freeBytes < 0.04 * LIMIT_BYTES, `${store.usage().freeBytes} bytes`);
    await assert.rejects(store.install(1, KEY, await store.readChunk(1, KEY)), named('ENOSPC'));
    const before = await dumpStore(store);
    await store.setPgState(1, { last: version(1e6), clean: true });
    await store.truncate(1, 99, 0, 16_384, 1, version(1e6 + 1));
    assert.equal((await dumpStore(store)).length, before.length + 1);
    await store.deleteInode(1, 7, version(1e6 + 2));
    await machine.clock.advance(10_000);
    assert.equal(await fill(store, 7, written - SEGMENT_BYTES), written - SEGMENT_BYTES);
  });

  it('refuses writes early when the file system itself is nearly full', async () => {
    const machine = new Machine();
    machine.disk.capacityBytes = LIMIT_BYTES;
    const store = await machine.boot();
    await fill(store, 7, LIMIT_BYTES);
    await store.deleteInode(1, 7, version(1e6));
    await machine.clock.advance(10_000);
    assert.deepEqual(machine.failures, []);
    assert.ok((await fill(store, 7, 8 * SEGMENT_BYTES)) === 8 * SEGMENT_BYTES);
  });

  it('writes again when others have freed space on the disk', async () => {
    const machine = new Machine();
    machine.disk.capacityBytes = 2 * SEGMENT_BYTES;
    const store = await machine.boot();
    await assert.rejects(store.write(1, KEY, 0, pattern(1, 4096), version(1)), named('ENOSPC'));
    machine.disk.capacityBytes = LIMIT_BYTES;
    store.usage();
    await drained();
    assert.ok(store.usage().freeBytes > 8 * SEGMENT_BYTES);
    await store.write(1, KEY, 0, pattern(1, 4096), version(1));
  });

  it('takes what it has said there is room for, and more, while most of what it holds is dead', async () => {
    const machine = new Machine({ capacityLimitBytes: LIMIT_BYTES });
    const store = await machine.boot();
    let held = 0;
    for (let ino = 1; ino < 100; ino++) {
      const { roomBytes, freeBytes } = store.usage();
      assert.ok(roomBytes <= freeBytes);
      const taken = await fill(store, ino, Math.min(roomBytes, 2 * SEGMENT_BYTES) + SEGMENT_BYTES / 4);
      assert.ok(taken >= Math.min(roomBytes, 2 * SEGMENT_BYTES), `${taken} of ${roomBytes} bytes`);
      if (ino % 8 === 0)
        for (let each = ino - 7; each <= ino; each++) await store.deleteInode(1, each, version(1e6 + each));
      if (roomBytes < freeBytes - 4 * SEGMENT_BYTES) held++;
    }
    assert.ok(held > 0, 'it had to reclaim before it could take all that is free');
    assert.deepEqual(machine.failures, []);
  });

  it('reclaims nothing more when it was closed and is asked about its room', async () => {
    const machine = new Machine({ capacityLimitBytes: LIMIT_BYTES });
    const store = await machine.boot();
    // Two inodes in turns, so that no segment is free of live bytes when one of them goes.
    const blocks = (17 * SEGMENT_BYTES) / 4200;
    for (let i = 0; i < blocks; i++)
      await store.write(1, { ino: 7 + (i % 2), chunk: i }, 0, pattern(i, 4096), version(i + 1));
    const deleted = store.deleteInode(1, 7, version(1e6));
    await Promise.all([deleted, store.close()]);
    let checkpoints = 0;
    machine.db.commit = async () => void checkpoints++;
    const { roomBytes, freeBytes } = store.usage();
    assert.ok(roomBytes < freeBytes - 4 * SEGMENT_BYTES, `${roomBytes} of ${freeBytes} bytes`);
    await drained();
    assert.equal(checkpoints, 0);
  });

  it('takes overwrites without end on a disk that is three quarters full, by compaction', async () => {
    const machine = new Machine({ capacityLimitBytes: LIMIT_BYTES });
    const store = await machine.boot();
    const chunks = 22;
    for (let i = 0; i < 40 * chunks; i++) {
      const key = { ino: 7, chunk: (i * 5) % chunks };
      const data = pattern(i, 4096);
      const write = store.write(1, key, ((i * 11) % 4) * 4096, data, version(i + 1));
      if (i % 8 === 0) await machine.clock.advance(3000);
      await write;
    }
    assert.deepEqual(machine.failures, []);
    assert.ok((await machine.segmentFiles()).length <= 20);
    const before = await dumpStore(store);
    await machine.crash('everything', 0);
    assert.deepEqual(await dumpStore(machine.store), before);
  });
});

describe('chunk store in the background', () => {
  it('puts a chunk together that lies in very many pieces', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    for (let i = 0; i < 1024; i++) void store.write(1, KEY, i * 10, pattern(i, 10), version(i + 1));
    const calls = machine.disk.calls;
    await machine.clock.advance(60_000);
    const reads = calls.get('read') ?? 0;
    const { length } = await store.read(1, KEY, 0, 16_384);
    assert.equal(length, 10_240);
    assert.equal((calls.get('read') ?? 0) - reads, 1);
  });

  it('checkpoints by itself, so that a restart has little to replay', async () => {
    const machine = new Machine();
    const store = await machine.boot();
    await fill(store, 7, SEGMENT_BYTES);
    await machine.clock.advance(4000);
    await machine.crash('nothing', 1);
    assert.equal(machine.store.list(1, undefined, 10).length, 2);
  });
});

describe('openChunkStore on a directory', () => {
  let dir: string;
  const open = (): Promise<ChunkStore> => openChunkStore({ dir, clock: systemClock, logger: silentLogger });
  beforeEach(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-store-'));
  });
  afterEach(() => fs.rmSync(dir, { recursive: true }));

  it('locks it against a second opener until it is closed', async () => {
    const store = await open();
    await assert.rejects(open(), DirectoryLockedError);
    await store.close();
    await (await open()).close();
  });

  it('gives a wiped directory a new uuid', async () => {
    const first = await open();
    await first.close();
    for (const name of fs.readdirSync(dir)) fs.rmSync(path.join(dir, name), { recursive: true });
    const second = await open();
    assert.notEqual(second.diskUuid, first.diskUuid);
    await second.close();
  });

  it('refuses an unknown version, a damaged format file and data without one, and leaves no lock', async () => {
    await (await open()).close();
    const file = path.join(dir, 'format.json');
    const text = fs.readFileSync(file, 'utf8');
    fs.writeFileSync(file, text.replace('"formatVersion": 2', '"formatVersion": 3'));
    await assert.rejects(open(), named('VERSION', /format version 3; this program knows 2/));
    fs.writeFileSync(file, text.replace('"formatVersion": 2', '"formatVersion": 0'));
    await assert.rejects(open(), named('VERSION', /format version 0; this program knows 2/));
    fs.writeFileSync(file, text.slice(0, 20));
    await assert.rejects(open(), named('EINVAL', /damaged/));
    fs.writeFileSync(file, '{"product": "something else"}');
    await assert.rejects(open(), named('EINVAL', /is not of a holdfast chunk store/));
    fs.unlinkSync(file);
    await assert.rejects(open(), named('EINVAL', /holds chunk data but no format.json/));
    fs.writeFileSync(file, text);
    await (await open()).close();
  });

  it('opens a store of the version before, and marks it, so that an older program refuses what may be in it', async () => {
    const before = await open();
    await before.write(1, KEY, 0, pattern(1, 100), version(1));
    await before.close();
    const file = path.join(dir, 'format.json');
    const text = fs.readFileSync(file, 'utf8');
    fs.writeFileSync(file, text.replace('"formatVersion": 2', '"formatVersion": 1'));
    const after = await open();
    assert.equal(fs.readFileSync(file, 'utf8'), text);
    assert.deepEqual(Buffer.concat((await after.read(1, KEY, 0, 100)).data), pattern(1, 100));
    await after.close();
  });
});
