import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { openChunkStore } from '../../../chunkserver/store/open.js';
import { systemClock } from '../../../common/clock.js';
import { crc32c } from '../../../common/crc32c.js';
import { silentLogger } from '../../../common/logger.js';
import { HoldfastError } from '../../../proto/errors.js';
import { Machine, pattern, version } from './harness.js';

const KEY = { ino: 7, chunk: 0 };

async function readAll(store: ChunkStore, offset = 0, length = 1 << 20, key = KEY): Promise<Buffer> {
  const result = await store.read(1, key, offset, length);
  const data = Buffer.concat(result.data);
  assert.equal(data.length, result.length);
  if (result.crc !== undefined) assert.equal(result.crc, crc32c(data));
  return data;
}

interface Case {
  store: ChunkStore;
  /** Reopens the store as after the death of the process. */
  reopen(): Promise<ChunkStore>;
  end(): Promise<void>;
}

function contract(name: string, make: () => Promise<Case>): void {
  describe(`ChunkStore contract: ${name}`, () => {
    let each: Case;
    let store: ChunkStore;
    beforeEach(async () => {
      each = await make();
      store = each.store;
    });
    afterEach(() => each.end());

    it('reads what was written at once, with inner holes as zeros and the hole at the end left off', async () => {
      const first = store.write(1, KEY, 100, pattern(1, 50), version(1));
      const second = store.write(1, KEY, 300, pattern(2, 20), version(2));
      const data = await readAll(store);
      const expected = Buffer.alloc(320);
      pattern(1, 50).copy(expected, 100);
      pattern(2, 20).copy(expected, 300);
      assert.deepEqual(data, expected);
      assert.deepEqual(await Promise.all([first, second]), [{ allocatedDelta: 50 }, { allocatedDelta: 20 }]);
      assert.deepEqual(await readAll(store, 310, 5), pattern(2, 20).subarray(10, 15));
      assert.equal((await store.read(1, KEY, 320, 10)).length, 0);
      assert.deepEqual((await store.read(1, KEY, 0, 1)).version, version(2));
    });

    it('tells a missing chunk from an empty range', async () => {
      assert.deepEqual(await store.read(1, KEY, 0, 10), { version: undefined, data: [], length: 0, crc: 0 });
      assert.equal(store.chunkInfo(1, KEY), undefined);
      assert.equal(await store.readChunk(1, KEY), undefined);
    });

    it('lets later writes win where they overlap, and counts newly covered bytes only', async () => {
      await store.write(1, KEY, 0, pattern(1, 10_000), version(1));
      const { allocatedDelta } = await store.write(1, KEY, 4000, pattern(2, 8000), version(2));
      assert.equal(allocatedDelta, 2000);
      const expected = Buffer.concat([pattern(1, 4000), pattern(2, 8000)]);
      assert.deepEqual(await readAll(store), expected);
      assert.deepEqual(await readAll(store, 3999, 2), expected.subarray(3999, 4001));
      assert.deepEqual(store.chunkInfo(1, KEY), { ...KEY, version: version(2), bytes: 12_000 });
    });

    it('truncates in the middle of a chunk, drops later ones, and remembers the number', async () => {
      for (const chunk of [0, 1, 2]) {
        await store.write(1, { ino: 7, chunk }, 0, pattern(chunk, 8192), version(chunk + 1));
      }
      const { allocatedDelta } = await store.truncate(1, 7, 8192 + 100, 8192, 5, version(4));
      assert.equal(allocatedDelta, -(8192 - 100) - 8192);
      assert.deepEqual(
        store.list(1, undefined, 10).map(({ chunk, bytes, version: { seq } }) => [chunk, bytes, seq]),
        [
          [0, 8192, 1],
          [1, 100, 4],
        ],
      );
      assert.equal(store.truncateSeq(1, 7), 5);
      assert.equal(store.truncateSeq(2, 7), 0);
      await store.truncate(1, 7, 1 << 20, 8192, 3, version(5));
      assert.equal(store.truncateSeq(1, 7), 5);
      await store.deleteInode(1, 7, version(6));
      assert.deepEqual([store.list(1, undefined, 10), store.truncateSeq(1, 7)], [[], 0]);
    });

    it('knows of which inodes it has anything, be it an empty chunk or a truncate number alone', async () => {
      const held = () => [6, 7, 8, 9].filter((ino) => store.holds(1, ino));
      assert.deepEqual(held(), []);
      await store.write(1, KEY, 0, pattern(1, 100), version(1));
      await store.write(2, { ino: 6, chunk: 0 }, 0, pattern(1, 100), version(1));
      assert.deepEqual(held(), [7]);
      await store.punch(1, KEY, 0, 100, version(2));
      assert.deepEqual(held(), [7]);
      await store.truncate(1, 8, 0, 8192, 1, version(3));
      assert.deepEqual(held(), [7, 8]);
      await store.truncate(1, 7, 0, 8192, 0, version(4));
      await store.deleteInode(1, 8, version(5));
      assert.deepEqual(held(), []);
    });

    it('lists chunks in order of inode and chunk, in pages, each group by itself', async () => {
      const keys = [300, 2, 70_000_000_000].flatMap((ino) => [2, 0, 1].map((chunk) => ({ ino, chunk })));
      for (const key of keys) await store.write(1, key, 0, pattern(1, 10), version(1));
      await store.write(2, { ino: 1, chunk: 0 }, 0, pattern(1, 10), version(1));
      const found: { ino: number; chunk: number }[] = [];
      for (;;) {
        const page = store.list(1, found.at(-1), 4);
        if (page.length === 0) break;
        found.push(...page.map(({ ino, chunk }) => ({ ino, chunk })));
      }
      assert.deepEqual(
        found,
        [2, 300, 70_000_000_000].flatMap((ino) => [0, 1, 2].map((chunk) => ({ ino, chunk }))),
      );
      assert.deepEqual(store.pgs(), [1, 2]);
    });

    it('tells the checksum of what it reads where whole blocks follow one another, and none elsewhere', async () => {
      await store.write(1, KEY, 0, pattern(1, 8192), version(1));
      await store.write(1, KEY, 8192, pattern(2, 5000), version(2));
      await store.write(1, KEY, 4096, pattern(3, 4096), version(3));
      await store.write(1, KEY, 20_000, pattern(4, 10), version(4));
      const known = async (offset: number, length: number): Promise<boolean> => {
        await readAll(store, offset, length); // compares it
        return (await store.read(1, KEY, offset, length)).crc !== undefined;
      };
      assert.deepEqual(
        [await known(0, 4096), await known(0, 13_192), await known(4096, 8192)],
        [true, true, true],
      );
      assert.deepEqual(
        [await known(1, 4095), await known(0, 9000), await known(8192, 12_000)],
        [false, false, false],
      );
    });

    it('hands out and installs whole chunks, holes and version included', async () => {
      await store.write(1, KEY, 10, pattern(1, 5000), version(1));
      await store.write(1, KEY, 9000, pattern(2, 10), version(9));
      await store.setTruncateSeq(1, KEY.ino, 4);
      const snapshot = store.readChunk(1, KEY);
      void store.write(1, KEY, 0, pattern(3, 100), version(10));
      const content = await snapshot;
      assert.ok(content);
      assert.deepEqual([content.version, content.truncateSeq], [version(9), 4]);
      await store.install(2, { ino: 8, chunk: 3 }, content);
      assert.deepEqual(await store.readChunk(2, { ino: 8, chunk: 3 }), content);
      assert.equal(store.truncateSeq(2, 8), 4);
      assert.deepEqual(store.chunkInfo(2, { ino: 8, chunk: 3 })?.bytes, 5010);
      await store.install(2, { ino: 8, chunk: 3 }, { version: version(2), extents: [], truncateSeq: 0 });
      assert.deepEqual(store.chunkInfo(2, { ino: 8, chunk: 3 }), {
        ino: 8,
        chunk: 3,
        version: version(2),
        bytes: 0,
      });
      await store.install(2, { ino: 8, chunk: 3 }, undefined);
      assert.equal(store.chunkInfo(2, { ino: 8, chunk: 3 }), undefined);
      assert.deepEqual(store.listTruncateSeqs(2, 0, 10), [{ ino: 8, truncateSeq: 4 }]);
    });

    it('keeps the state of a group: the newest operation, and whether it is clean', async () => {
      assert.deepEqual(store.pgState(1), { last: version(0, 0), clean: false });
      await store.setPgState(1, { last: version(5, 2), clean: true });
      await store.write(1, KEY, 0, pattern(1, 1), version(6, 2));
      await store.write(1, KEY, 0, pattern(1, 1), version(4, 2));
      assert.deepEqual(store.pgState(1), { last: version(6, 2), clean: true });
    });

    it('drops a group whole and leaves the others', async () => {
      for (let chunk = 0; chunk < 600; chunk++) {
        void store.write(1, { ino: 7, chunk }, 0, pattern(1, 10), version(chunk + 1));
      }
      await store.setTruncateSeq(1, 9, 1);
      await store.write(2, KEY, 0, pattern(1, 10), version(1));
      await store.dropPg(1);
      assert.deepEqual(store.pgs(), [2]);
      assert.deepEqual([store.list(1, undefined, 1), store.listTruncateSeqs(1, 0, 1)], [[], []]);
      assert.equal(store.usage().liveBytes, 10);
    });

    it('has everything that was acknowledged after the process died', async () => {
      await store.write(1, KEY, 0, pattern(1, 9000), version(1));
      await store.truncate(1, 7, 8000, 8192, 2, version(2));
      await store.setPgState(2, { last: version(3), clean: true });
      const before = store.usage().liveBytes;
      store = await each.reopen();
      assert.deepEqual(await readAll(store), pattern(1, 9000).subarray(0, 8000));
      assert.deepEqual([store.truncateSeq(1, 7), store.pgState(1).last], [2, version(2)]);
      assert.deepEqual(store.pgState(2), { last: version(3), clean: true });
      assert.equal(store.usage().liveBytes, before);
      await store.write(1, KEY, 0, pattern(4, 10), version(3));
      assert.deepEqual(await readAll(store, 0, 10), pattern(4, 10));
    });

    it('belongs to one cluster for good, and keeps its uuid', async () => {
      const { diskUuid } = store;
      assert.equal(store.clusterId, '');
      await store.adoptCluster('blue');
      await store.adoptCluster('blue');
      store = await each.reopen();
      assert.deepEqual([store.clusterId, store.diskUuid], ['blue', diskUuid]);
      await assert.rejects(store.adoptCluster('red'), (error: unknown) => {
        return error instanceof HoldfastError && error.errorName === 'WRONG_CLUSTER';
      });
    });

    it('joins its cluster once when it is told so again before that is on the disk', async () => {
      await Promise.all([store.adoptCluster('blue'), store.adoptCluster('blue')]);
      store = await each.reopen();
      assert.equal(store.clusterId, 'blue');
    });
  });
}

contract('in memory', async () => {
  const machine = new Machine();
  return {
    store: await machine.boot(),
    reopen: () => machine.crash('everything', 0),
    end: () => machine.store.close(),
  };
});

contract('on LMDB and the file system', async () => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-store-'));
  let generation = 0;
  const open: ChunkStore[] = [];
  const boot = async (): Promise<ChunkStore> => {
    const dir = path.join(root, String(generation));
    const store = await openChunkStore({ dir, clock: systemClock, logger: silentLogger });
    open.push(store);
    return store;
  };
  return {
    store: await boot(),
    // A copy of the files as they are while the store is open is what the death of its process leaves.
    reopen: () => {
      const from = path.join(root, String(generation++));
      fs.cpSync(from, path.join(root, String(generation)), { recursive: true });
      fs.unlinkSync(path.join(root, String(generation), 'lock'));
      return boot();
    },
    end: async () => {
      for (const store of open) await store.close();
      fs.rmSync(root, { recursive: true });
    },
  };
});
