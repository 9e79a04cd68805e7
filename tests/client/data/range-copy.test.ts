import assert from 'node:assert/strict';
import { COPY_BY_SERVERS_BYTES_MIN, copyByServers } from '../../../client/data/range-copy.js';
import { HoldfastError } from '../../../proto/errors.js';
import { CHUNK, DataHarness, MemoryInode, pattern } from '../support/data-harness.js';
import { caller, TestMount } from '../support/test-mount.js';

const UNHURRIED = { signal: new AbortController().signal, isWanted: () => false };

/** Two files of one mount; the source has `length` bytes that are still dirty. */
async function twoFiles(length: number) {
  const target = new DataHarness();
  const inode = new MemoryInode();
  inode.attr = { ...inode.attr, ino: 8 };
  const source = new DataHarness({ inode, chunks: target.chunks });
  await source.file.write(0, pattern(length, 3));
  return { target, source, chunks: target.chunks };
}

describe('copies by the servers', () => {
  it('move no byte through the client, at any offsets, and what is dirty of either file goes first', async () => {
    const { target, source, chunks } = await twoFiles(3 * CHUNK);
    await target.file.write(0, pattern(2 * CHUNK, 5));
    const range = { at: 100, to: CHUNK - 50, length: 2 * CHUNK };
    const before = chunks.writes.length;
    assert.equal(await copyByServers(chunks, source.file, target.file, range, UNHURRIED), range.length);
    assert.equal(chunks.writes.length - before, 5, 'the dirty chunks of both files, and nothing else');
    assert.equal(chunks.reads.length, 0);
    await target.file.flush();
    const expected = Buffer.concat([
      pattern(2 * CHUNK, 5).subarray(0, range.to),
      pattern(3 * CHUNK, 3).subarray(100, 100 + range.length),
    ]);
    assert.deepEqual(await target.read(0, 10 * CHUNK), expected);
    assert.deepEqual(await target.seenElsewhere(), expected);
    assert.equal(target.inode.attr.allocated, expected.length);
    assert.ok(chunks.copies.every(({ offset, length }) => offset + length <= CHUNK));
  });

  it('end at the first piece that the servers do not copy', async () => {
    const { target, source, chunks } = await twoFiles(6 * CHUNK);
    chunks.failCopy = (_, chunk) => (chunk === 2 ? new HoldfastError('EOPNOTSUPP') : undefined);
    const range = { at: 0, to: 0, length: 6 * CHUNK };
    assert.equal(await copyByServers(chunks, source.file, target.file, range, UNHURRIED), 2 * CHUNK);
    assert.equal(target.file.takeError(target.file.newMark()), undefined);
  });

  it('end when others wait for the target, with what has been begun', async () => {
    const { target, source, chunks } = await twoFiles(12 * CHUNK);
    const range = { at: 0, to: 0, length: 12 * CHUNK };
    const wanted = { ...UNHURRIED, isWanted: () => true };
    assert.equal(await copyByServers(chunks, source.file, target.file, range, wanted), 4 * CHUNK);
  });

  it('that all replicas lose before a sync are reported by it: there is nothing here to write again', async () => {
    const { target, source, chunks } = await twoFiles(2 * CHUNK);
    const range = { at: 0, to: 0, length: 2 * CHUNK };
    await copyByServers(chunks, source.file, target.file, range, UNHURRIED);
    await target.file.flush();
    const mark = target.file.newMark();
    chunks.crash();
    await target.file.fsync(false);
    assert.equal(target.file.takeError(mark)?.errorName, 'EIO');
  });

  it('that were synced survive', async () => {
    const { target, source, chunks } = await twoFiles(2 * CHUNK);
    await copyByServers(chunks, source.file, target.file, { at: 0, to: 0, length: 2 * CHUNK }, UNHURRIED);
    const mark = target.file.newMark();
    await target.file.fsync(false);
    chunks.crash();
    await target.file.fsync(false);
    assert.equal(target.file.takeError(mark), undefined);
    assert.deepEqual(await target.seenElsewhere(), pattern(2 * CHUNK, 3));
  });

  it('hold a truncate back until they have landed', async () => {
    const { target, source, chunks } = await twoFiles(2 * CHUNK);
    await source.file.flush();
    const release = chunks.hold();
    const copy = copyByServers(
      chunks,
      source.file,
      target.file,
      { at: 0, to: 0, length: 2 * CHUNK },
      UNHURRIED,
    );
    for (let i = 0; i < 10; i++) await Promise.resolve();
    const cut = target.truncate(10);
    release();
    await Promise.all([copy, cut]);
    await target.file.flush();
    assert.deepEqual(await target.seenElsewhere(), pattern(2 * CHUNK, 3).subarray(0, 10));
  });
});

describe('copy_file_range', () => {
  const LENGTH = COPY_BY_SERVERS_BYTES_MIN * 3;

  async function copied(mount: TestMount, length: number) {
    const from = await mount.create('from');
    await mount.write(from.handle, 0, pattern(LENGTH, 1));
    const to = await mount.create('to');
    const place = { ino: to.ino, handle: to.handle, offset: 7 };
    const done = await mount.fs.copyFileRange(
      caller(),
      { ino: from.ino, handle: from.handle, offset: 0 },
      place,
      length,
    );
    assert.equal(done, Math.min(length, LENGTH));
    await mount.close(to.handle);
    assert.deepEqual(
      await mount.readFile('to'),
      Buffer.concat([Buffer.alloc(7), pattern(LENGTH, 1).subarray(0, length)]),
    );
  }

  it('is made by the servers when it is long enough, else here', async () => {
    const long = new TestMount();
    await copied(long, LENGTH * 2);
    assert.equal(
      long.chunks.copies.reduce((sum, { length }) => sum + length, 0),
      LENGTH,
    );
    const short = new TestMount();
    await copied(short, COPY_BY_SERVERS_BYTES_MIN - 1);
    assert.deepEqual(short.chunks.copies, []);
  });

  it('goes on here when the servers cannot', async () => {
    const mount = new TestMount();
    mount.chunks.failCopy = () => new HoldfastError('PROTOCOL');
    await copied(mount, LENGTH);
    assert.deepEqual(mount.chunks.copies, []);
  });
});
