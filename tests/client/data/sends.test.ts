import assert from 'node:assert/strict';
import { piecesBefore } from '../../../client/data/extent.js';
import { HoldfastError } from '../../../proto/errors.js';
import { CHUNK, DataHarness, pattern } from '../support/data-harness.js';
import { settle } from '../support/manual-clock.js';

const SIZE = 1000;
const OLD = pattern(SIZE, 1);
const NEW = pattern(SIZE, 2);

/** A file of 1000 bytes that the servers hold. */
async function old(): Promise<DataHarness> {
  const mount = new DataHarness();
  await mount.file.write(0, OLD);
  await mount.file.flush();
  mount.chunks.writes.length = 0;
  mount.inode.commits.length = 0;
  return mount;
}

/** Another mount cuts the file, and the servers have carried it out. */
async function cutElsewhere(mount: DataHarness, size: number): Promise<void> {
  const { chunkSize } = mount.file;
  mount.chunks.truncateAhead({ ...(await mount.inode.setSize(size)), chunkSize }, 0, 1);
}

describe('a write that a truncate overtakes', () => {
  it('is written again where it lies before the end of a truncate made here', async () => {
    const mount = await old();
    const release = mount.chunks.hold();
    await mount.file.write(0, NEW.subarray(0, 100));
    const flushed = mount.file.flush();
    await settle();
    await mount.truncate(500);
    release();
    await flushed;
    assert.equal(mount.chunks.writes.length, 2);
    assert.equal(mount.file.takeError(mount.file.newMark()), undefined);
    const expected = Buffer.concat([NEW.subarray(0, 100), OLD.subarray(100, 500)]);
    assert.deepEqual(await mount.seenElsewhere(), expected);
  });

  it('leaves of several runs in one message what lies before the end', async () => {
    const mount = await old();
    const release = mount.chunks.hold();
    const mark = mount.file.newMark();
    for (const start of [0, 200, 400, 600]) await mount.file.write(start, NEW.subarray(0, 100));
    const flushed = mount.file.flush();
    await settle();
    assert.deepEqual(mount.chunks.gathered, [4]);
    await cutElsewhere(mount, 450);
    release();
    await flushed;
    assert.equal(mount.file.takeError(mark), undefined);
    assert.deepEqual(mount.chunks.gathered, [4, 3]);
    assert.equal(mount.inode.attr.size, 450);
    await mount.inode.setSize(SIZE);
    const expected = Buffer.alloc(SIZE);
    OLD.copy(expected, 0, 0, 450);
    for (const start of [0, 200]) NEW.copy(expected, start, 0, 100);
    NEW.copy(expected, 400, 0, 50);
    assert.deepEqual(await mount.seenElsewhere(), expected);
  });

  it('makes the file no longer, heard of before or behind it', async () => {
    for (const heard of ['before', 'behind'] as const) {
      const mount = await old();
      const release = mount.chunks.hold();
      await mount.file.write(900, NEW.subarray(0, 100));
      const flushed = mount.file.flush();
      await settle();
      await cutElsewhere(mount, 10);
      if (heard === 'before') mount.file.applyAttr(mount.inode.attr, false);
      release();
      await flushed;
      assert.deepEqual([mount.inode.attr.size, mount.file.size], [10, 10], heard);
      assert.ok(mount.inode.commits.every(({ newSize }) => newSize === 0));
    }
  });

  it('is not sent at all from the end on when it had not left yet', async () => {
    const mount = await old();
    await mount.file.write(5, NEW.subarray(0, 20));
    await mount.file.write(900, NEW.subarray(0, 100));
    await cutElsewhere(mount, 10);
    mount.file.applyAttr(mount.inode.attr, false);
    assert.equal(mount.flusher.dirtyBytes, 5);
    await mount.file.flush();
    const expected = Buffer.concat([OLD.subarray(0, 5), NEW.subarray(0, 5)]);
    assert.deepEqual(await mount.seenElsewhere(), expected);
  });

  it('is an error when the metaservers know nothing of the truncate', async () => {
    const mount = await old();
    const mark = mount.file.newMark();
    mount.chunks.failWrite = () => new HoldfastError('CUT');
    await mount.file.write(0, NEW.subarray(0, 100));
    await mount.file.flush();
    assert.equal(mount.file.takeError(mark)?.errorName, 'EIO');
    assert.equal(mount.chunks.writes.length, 1);
  });

  it('is not written again in the name of the next session', async () => {
    const mount = await old();
    const release = mount.chunks.hold();
    await mount.file.write(0, NEW.subarray(0, 100));
    const flushed = mount.file.flush();
    await settle();
    await cutElsewhere(mount, 500);
    const { attrNow } = mount.inode;
    mount.inode.attrNow = () => {
      mount.file.discard(new HoldfastError('EIO'));
      return attrNow.call(mount.inode);
    };
    release();
    await flushed;
    assert.equal(mount.chunks.writes.length, 1);
    assert.deepEqual(await mount.seenElsewhere(), OLD.subarray(0, 500));
  });
});

describe('what of runs of bytes lies before an end', () => {
  it('is all of some, the begin of one, and nothing of others', () => {
    const piece = (start: number) => ({ start, end: start + 10, parts: [NEW.subarray(0, 10)] });
    const pieces = [piece(0), piece(CHUNK), piece(2 * CHUNK)];
    assert.deepEqual(piecesBefore(pieces, 3 * CHUNK), pieces);
    assert.deepEqual(piecesBefore(pieces, 0), []);
    const [first, second] = pieces as [(typeof pieces)[0], (typeof pieces)[0]];
    assert.deepEqual(piecesBefore(pieces, CHUNK), [first]);
    const rest = { start: CHUNK, end: CHUNK + 4, parts: [(second.parts[0] as Buffer).subarray(0, 4)] };
    assert.deepEqual(piecesBefore(pieces, CHUNK + 4), [first, rest]);
  });
});
