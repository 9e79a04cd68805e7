import assert from 'node:assert/strict';
import type { ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { MemoryIndexDb } from '../../../chunkserver/store/index-db.js';
import { openChunkStore } from '../../../chunkserver/store/open.js';
import { systemClock } from '../../../common/clock.js';
import type { Disk, DiskFile } from '../../../common/disk.js';
import { silentLogger } from '../../../common/logger.js';
import { MemoryDisk } from '../../../common/memory-disk.js';
import { DIR, pattern, version } from './harness.js';

const KEY = { ino: 7, chunk: 0 };
const SEGMENT = `${DIR}/log/0000000001.seg`;

/** A disk in memory whose files can be read at once. */
class QuickDisk extends MemoryDisk {
  reads = 0;
  quick = true;

  override async open(...args: Parameters<Disk['open']>): Promise<DiskFile> {
    const file = await super.open(...args);
    const readNow = (target: Buffer, position: number): number | undefined => {
      if (!this.quick) return undefined;
      this.reads++;
      return this.content(args[0]).copy(target, 0, position);
    };
    return { ...file, readNow };
  }
}

describe('chunk store when it is read without waiting', () => {
  let disk: QuickDisk;
  let store: ChunkStore;

  beforeEach(async () => {
    disk = new QuickDisk();
    store = await openChunkStore({
      dir: DIR,
      logger: silentLogger,
      clock: systemClock,
      disk,
      openIndex: () => new MemoryIndexDb(),
      lock: async () => async () => undefined,
    });
    await store.write(1, KEY, 1000, pattern(1, 12_000), version(1));
  });

  afterEach(() => store.close());

  /** What both ways give must be the same. */
  async function read(offset: number, length: number): Promise<Buffer | undefined> {
    const now = store.readNow?.(1, KEY, offset, length);
    if (!now) return undefined;
    const later = await store.read(1, KEY, offset, length);
    assert.deepEqual(now, later);
    return Buffer.concat(now.data);
  }

  it('gives what read() gives, holes and ends included, with one read of the disk', async () => {
    assert.deepEqual(await read(2000, 500), pattern(1, 12_000).subarray(1000, 1500));
    assert.equal(disk.reads, 1);
    assert.equal((await read(0, 1500))?.length, 1500);
    assert.equal((await read(12_000, 5000))?.length, 1000);
    assert.equal((await read(20_000, 5000))?.length, 0);
  });

  it('leaves the rest to read(): what is not there, lies in several places, is damaged, or would take waiting', async () => {
    assert.equal(store.readNow?.(1, { ino: 8, chunk: 0 }, 0, 100), undefined);
    await store.write(1, { ino: 9, chunk: 0 }, 0, pattern(5, 100_000), version(2));
    await store.write(1, KEY, 13_000, pattern(2, 1000), version(3));
    assert.equal(await read(12_000, 2000), undefined);
    disk.flipBit(SEGMENT, disk.content(SEGMENT).indexOf(pattern(1, 12_000)) + 4000);
    assert.equal(store.readNow?.(1, KEY, 5000, 100), undefined);
    await assert.rejects(store.read(1, KEY, 5000, 100), /block at 4096/);
    disk.quick = false;
    assert.equal(await read(1000, 100), undefined);
  });
});
