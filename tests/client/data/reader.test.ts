import assert from 'node:assert/strict';
import { DENSE_FETCHES_MAX, DENSE_READS_MIN, newReadStream } from '../../../client/data/reader.js';
import { CHUNK, DataHarness, MemoryInode, pattern } from '../support/data-harness.js';
import { settle } from '../support/manual-clock.js';

const MIB = 1024 * 1024;

async function withFile(size: number, chunkSize: number, limits = {}): Promise<DataHarness> {
  const before = new DataHarness({ inode: new MemoryInode(chunkSize) });
  await before.file.write(0, pattern(size, 1));
  await before.file.flush();
  const { inode, chunks } = before;
  chunks.writes.length = 0;
  return new DataHarness({ inode, chunks, limits, isNew: false });
}

describe('reading', () => {
  it('shows a file before a truncate or behind it, and no hole where it is being cut', async () => {
    const mount = await withFile(1000, 4096);
    await mount.file.write(0, pattern(1000, 2)); // dirty
    let carryOut = (): void => {};
    const asked = new Promise<void>((resolve) => {
      carryOut = resolve;
    });
    const cut = mount.file.truncate(10, () => asked.then(() => mount.inode.setSize(10)));
    const meanwhile = Promise.all([mount.read(5, 5), mount.read(500, 8)]);
    await settle();
    carryOut();
    await cut;
    assert.deepEqual(await meanwhile, [pattern(10, 2).subarray(5), Buffer.alloc(0)]);
  });

  it('is repeated when the file is cut before the servers answer', async () => {
    const mount = await withFile(1000, 4096);
    const { chunks } = mount;
    const read = chunks.read.bind(chunks);
    let reads = 0;
    chunks.read = async (...where) => {
      if (++reads === 1) await mount.truncate(10);
      return read(...where);
    };
    assert.deepEqual(await mount.read(5, 100), pattern(1000, 1).subarray(5, 10));
    assert.equal(reads, 2);
  });

  it('asks only for the bytes wanted while it is not sequential', async () => {
    const mount = await withFile(8 * MIB, 4 * MIB);
    for (const offset of [5 * MIB, 1 * MIB, 7 * MIB, 3 * MIB]) {
      assert.deepEqual(await mount.read(offset, 4096), pattern(8 * MIB, 1).subarray(offset, offset + 4096));
    }
    assert.deepEqual(
      mount.chunks.reads.map(({ length }) => length),
      [4096, 4096, 4096, 4096],
    );
    assert.equal(mount.blocks.bytes, 0);
  });

  it('fetches a block whole when many small reads fall into it, until something of it changes', async () => {
    const mount = await withFile(8 * MIB, 4 * MIB);
    const expected = pattern(8 * MIB, 1);
    const places = Array.from({ length: 256 }, (_, i) => ((i * 101) % 256) * 4096);
    const read = async (at: number): Promise<void> =>
      assert.deepEqual(await mount.read(at, 4096), expected.subarray(at, at + 4096));
    for (const place of places) {
      await read(2 * MIB + place);
      await read(6 * MIB + ((place + 2048 * 4096) % MIB));
    }
    const small = mount.chunks.reads.filter(({ length }) => length === 4096);
    const whole = mount.chunks.reads.filter(({ length }) => length === MIB);
    assert.deepEqual([small.length, whole.length], [2 * (DENSE_READS_MIN + 1), 2]);
    pattern(100, 2).copy(expected, 2 * MIB + 500);
    await mount.file.write(2 * MIB + 500, pattern(100, 2));
    await mount.file.flush();
    mount.unsynced.shared(mount.file.ino);
    await read(2 * MIB);
    await read(6 * MIB);
    assert.equal(mount.chunks.reads.length, 2 * (DENSE_READS_MIN + 1) + 3, 'the changed block is asked for');
  });

  it('lets nobody wait for a block that is fetched for reads to come, and fetches few of them at a time', async () => {
    const blocks = DENSE_FETCHES_MAX + 3;
    const mount = await withFile(blocks * MIB, 4 * MIB);
    const expected = pattern(blocks * MIB, 1);
    const { chunks } = mount;
    const read = chunks.read.bind(chunks);
    const held: (() => void)[] = [];
    chunks.read = async (file, chunk, offset, length, ...rest) => {
      if (length === MIB) await new Promise<void>((resolve) => held.push(resolve));
      return read(file, chunk, offset, length, ...rest);
    };
    const readAll = async (page: number): Promise<void> => {
      for (let block = blocks - 1; block >= 0; block--) {
        const at = block * MIB + page * 8192;
        assert.deepEqual(await mount.read(at, 4096), expected.subarray(at, at + 4096));
      }
    };
    for (let page = 0; page <= DENSE_READS_MIN; page++) await readAll(page);
    assert.equal(held.length, DENSE_FETCHES_MAX);
    for (const release of held.splice(0)) release();
    await settle();
    await readAll(DENSE_READS_MIN + 1);
    assert.equal(held.length, 3, 'the others as soon as there is room');
    for (const release of held) release();
  });

  it('reads ahead of a sequential reader over several chunks, each byte once', async () => {
    const mount = await withFile(6 * MIB, MIB);
    const got: Buffer[] = [];
    for (let at = 0; at < 6 * MIB; at += 128 * 1024) got.push(await mount.read(at, 128 * 1024));
    assert.ok(Buffer.concat(got).equals(pattern(6 * MIB, 1)));
    const chunks = mount.chunks.reads.map(({ chunk }) => chunk);
    assert.deepEqual([...new Set(chunks)].sort(), [0, 1, 2, 3, 4, 5]);
    assert.ok(chunks.length <= 8, `${chunks.length} requests`);
  });

  it('forgets a block of which everything was read, in whatever order, and does not ask for it again', async () => {
    const mount = await withFile(6 * MIB - 5, 4 * MIB);
    for (let at = 0; at < MIB; at += 256 * 1024) await mount.read(at, 256 * 1024);
    for (let at = MIB; at < 6 * MIB; at += 512 * 1024) {
      const behind = mount.read(at + 256 * 1024, 256 * 1024);
      await mount.read(at, 256 * 1024);
      await behind;
    }
    assert.equal(mount.blocks.bytes, 0);
    const bytes = mount.chunks.reads.reduce((sum, { length }) => sum + length, 0);
    assert.ok(bytes <= 6 * MIB + 256 * 1024, `${bytes} bytes were asked for`);
  });

  it('keeps read-ahead and cached blocks within their bounds', async () => {
    const limits = { blockCacheBytesMax: 4 * MIB, readAheadBytesMax: 2 * MIB };
    const mount = await withFile(12 * MIB, MIB, limits);
    for (let at = 0; at < 12 * MIB; at += 256 * 1024) {
      await mount.read(at, 256 * 1024);
      assert.ok(mount.blocks.bytes <= 4 * MIB);
      const furthest = Math.max(...mount.chunks.reads.map(({ chunk }) => chunk + 1)) * MIB;
      assert.ok(furthest <= at + 256 * 1024 + 3 * MIB, `at ${at} up to ${furthest}`);
    }
  });

  it('gives zeros for holes and for what a short answer lacks, and nothing behind the end', async () => {
    const mount = await withFile(10, CHUNK);
    await mount.truncate(3 * CHUNK);
    await mount.file.write(2 * CHUNK, pattern(5, 2));
    const expected = Buffer.alloc(3 * CHUNK);
    pattern(10, 1).copy(expected);
    pattern(5, 2).copy(expected, 2 * CHUNK);
    assert.deepEqual(await mount.read(0, 100 * CHUNK), expected);
    assert.deepEqual(await mount.read(3 * CHUNK, 10), Buffer.alloc(0));
  });

  it('shows bytes that land while an answer with the old ones is on its way', async () => {
    const mount = await withFile(CHUNK, CHUNK);
    await mount.file.write(10, pattern(20, 2));
    const read = mount.read(0, CHUNK);
    await mount.file.flush();
    const expected = Buffer.from(pattern(CHUNK, 1));
    pattern(20, 2).copy(expected, 10);
    assert.deepEqual(await read, expected);
  });

  it('asks nobody for what was written here, until it is synced or others may write', async () => {
    const mount = new DataHarness({ inode: new MemoryInode(MIB) });
    await mount.file.write(0, pattern(10_000, 1));
    await mount.file.flush();
    await mount.file.write(5_000, pattern(100, 2));
    const expected = pattern(10_000, 1);
    pattern(100, 2).copy(expected, 5_000);
    assert.deepEqual(await mount.read(0, 20_000), expected);
    await mount.file.flush();
    assert.deepEqual(await mount.read(4_000, 1_000), expected.subarray(4_000, 5_000));
    assert.deepEqual(await mount.read(5_000, 100), expected.subarray(5_000, 5_100));
    assert.equal(mount.chunks.reads.length, 0);
    assert.deepEqual(await mount.read(4_000, 1_100), expected.subarray(4_000, 5_100), 'of two writes');
    assert.equal(mount.chunks.reads.length, 1);
    await mount.truncate(9_000);
    await mount.truncate(10_000);
    expected.fill(0, 9_000);
    assert.deepEqual(await mount.read(8_000, 2_000), expected.subarray(8_000), 'not behind a cut');
    const asked = mount.chunks.reads.length;
    mount.unsynced.shared(mount.file.ino);
    assert.deepEqual(await mount.read(0, 1_000), expected.subarray(0, 1_000));
    assert.equal(mount.chunks.reads.length, asked + 1);
  });

  it('does not believe a block that was fetched before bytes of it landed', async () => {
    const mount = await withFile(2 * MIB, MIB);
    await mount.file.write(1.5 * MIB, pattern(100, 2));
    for (let at = 0; at < MIB; at += 128 * 1024) await mount.read(at, 128 * 1024);
    assert.ok(mount.blocks.has(7, 1), 'the block behind was read ahead');
    await mount.file.flush();
    assert.deepEqual(await mount.read(1.5 * MIB, 100), pattern(100, 2));
  });

  it('forgets blocks when somebody else changed the file, and when the lease was interrupted', async () => {
    const mount = await withFile(4 * MIB, MIB);
    const fill = async (): Promise<void> => {
      mount.stream = newReadStream();
      for (let at = 0; at < MIB; at += 128 * 1024) await mount.read(at, 128 * 1024);
    };
    await fill();
    assert.ok(mount.blocks.bytes > 0);
    mount.file.applyAttr({ ...mount.inode.attr, change: mount.inode.attr.change + 1 }, false);
    assert.equal(mount.blocks.bytes, 0);
    await fill();
    await mount.clock.advance(60_000);
    assert.ok(mount.blocks.get(7, 1), 'under one lease time does not matter');
    mount.leasedSince++;
    assert.equal(mount.blocks.get(7, 1), undefined);
  });

  it('hands out one buffer when there would be too many for one writev', async () => {
    const mount = new DataHarness();
    for (let at = 0; at < CHUNK; at += 8) await mount.file.write(at, pattern(4, at));
    const parts = await mount.reader.read(mount.file, newReadStream(), 0, CHUNK);
    assert.equal(parts.length, 1);
    await settle();
  });
});
