import assert from 'node:assert/strict';
import fc from 'fast-check';
import { WRITE_TIME_KEPT_MS } from '../../../client/data/write-times.js';
import { HoldfastError } from '../../../proto/errors.js';
import { CHUNK, DataHarness, MemoryInode, pattern } from '../support/data-harness.js';
import { settle } from '../support/manual-clock.js';
import { MemoryChunks } from '../support/memory-chunks.js';

describe('the data of a file', () => {
  it('reads back what was written, before and after it was flushed', async () => {
    const mount = new DataHarness();
    const data = pattern(3 * CHUNK + 100, 1);
    await mount.file.write(50, Buffer.from(data));
    const expected = Buffer.concat([Buffer.alloc(50), data]);
    assert.deepEqual(await mount.read(0, 10 * CHUNK), expected);
    assert.equal(mount.chunks.reads.length, 0, 'nothing was asked of a server that holds nothing');
    await mount.file.flush();
    assert.ok(mount.file.clean);
    assert.deepEqual(await mount.read(0, 10 * CHUNK), expected);
    assert.deepEqual(await mount.seenElsewhere(), expected);
  });

  it('gathers small sequential writes into one frame for each slot, and commits once', async () => {
    const mount = new DataHarness();
    const data = pattern(CHUNK + 64, 2);
    for (let at = 0; at < data.length; at += 64) await mount.file.write(at, data.subarray(at, at + 64));
    await mount.file.flush();
    assert.deepEqual(
      mount.chunks.writes.map(({ chunk, offset, length }) => [chunk, offset, length]),
      [
        [0, 0, CHUNK],
        [1, 0, 64],
      ],
    );
    assert.deepEqual(
      mount.inode.commits.map(({ newSize, allocatedDelta }) => [newSize, allocatedDelta]),
      [[CHUNK + 64, CHUNK + 64]],
    );
    assert.deepEqual(await mount.seenElsewhere(), data);
  });

  it('sends what lies scattered in a chunk in one message, and what is left of it when some is on its way already', async () => {
    const mount = new DataHarness();
    const expected = Buffer.alloc(2 * CHUNK);
    const put = async (at: number, bytes: number, seed: number): Promise<void> => {
      pattern(bytes, seed).copy(expected, at);
      await mount.file.write(at, pattern(bytes, seed));
    };
    for (const at of [3000, 100, 2000, 1000, CHUNK, CHUNK + 500]) await put(at, 50, at);
    const release = mount.chunks.hold();
    const first = mount.file.flush();
    await settle();
    assert.deepEqual(mount.chunks.gathered, [4, 2]);
    assert.deepEqual(
      mount.chunks.writes.map(({ chunk, offset }) => [chunk, offset]),
      [100, 1000, 2000, 3000]
        .map((at) => [0, at])
        .concat([
          [1, 0],
          [1, 500],
        ]),
    );
    await put(1020, 50, 9); // overlaps one that is on its way
    for (const at of [200, 3500]) await put(at, 50, at);
    const second = mount.file.flush();
    await settle();
    assert.deepEqual(mount.chunks.gathered, [4, 2, 2], 'the overlapping one waits alone');
    release();
    await Promise.all([first, second]);
    assert.deepEqual(await mount.seenElsewhere(), expected.subarray(0, CHUNK + 550));
  });

  it('loses all of a message that fails, tells so once, and lets the next ones pass', async () => {
    const mount = new DataHarness();
    const mark = mount.file.newMark();
    for (const at of [0, 1000, 2000]) await mount.file.write(at, pattern(50, at));
    mount.chunks.failWrite = ({ offset }) => (offset === 1000 ? new HoldfastError('ENOSPC') : undefined);
    await mount.file.flush();
    assert.equal(mount.file.takeError(mark)?.errorName, 'ENOSPC');
    assert.equal(mount.file.takeError(mark), undefined);
    assert.equal(mount.inode.attr.size, 0, 'nothing that failed is in the size');
    assert.ok(mount.file.clean);
  });

  it('syncs the only message of a group with it, however many places it writes', async () => {
    const mount = new DataHarness();
    for (const at of [0, 1000, 2000]) await mount.file.write(at, pattern(50, at));
    await mount.file.fsync(false);
    assert.deepEqual(mount.chunks.gathered, [3]);
    assert.ok(mount.chunks.writes.every(({ sync }) => sync));
    assert.deepEqual(mount.chunks.syncs, []);
  });

  it('never has two frames under way over the same bytes, and the later bytes win', async () => {
    const mount = new DataHarness();
    const release = mount.chunks.hold();
    await mount.file.write(0, pattern(1000, 1));
    const first = mount.file.flush();
    await settle();
    await mount.file.write(500, pattern(1000, 2));
    const second = mount.file.flush();
    await settle();
    assert.equal(mount.chunks.writes.length, 1, 'the overlapping frame waits');
    const expected = Buffer.concat([pattern(1000, 1).subarray(0, 500), pattern(1000, 2)]);
    assert.deepEqual(await mount.read(0, CHUNK), expected);
    release();
    await Promise.all([first, second]);
    assert.equal(mount.chunks.writes.length, 2);
    assert.deepEqual(await mount.seenElsewhere(), expected);
  });

  it('waits, when the size is committed, until all bytes below it have landed', async () => {
    const mount = new DataHarness();
    const release = mount.chunks.hold();
    await mount.file.write(0, pattern(2 * CHUNK, 1));
    const flushed = mount.file.flush();
    await settle();
    assert.equal(mount.inode.commits.length, 0);
    release();
    await flushed;
    assert.equal(mount.inode.attr.size, 2 * CHUNK);
  });

  it('writes dirty data back by age', async () => {
    const mount = new DataHarness();
    await mount.file.write(0, pattern(100, 1));
    await mount.clock.advance(mount.limits.dirtyAgeMs + 300);
    assert.ok(mount.file.clean);
    assert.equal(mount.inode.attr.size, 100);
    await mount.clock.advance(300);
    assert.equal(mount.clock.timers, 0, 'nothing is dirty: the timer has ended');
  });

  it('lets a writer wait while too much is dirty, and lets it be interrupted', async () => {
    const limits = { dirtyBytesMax: 8192, fileDirtyBytesMax: 4096 };
    const mount = new DataHarness({ limits });
    const release = mount.chunks.hold();
    await mount.file.write(0, pattern(4096, 1));
    const interrupt = new AbortController();
    const refused = mount.file.write(4096, pattern(4096, 2), interrupt.signal);
    const waiting = mount.file.write(8192, pattern(4096, 3));
    await settle();
    assert.equal(mount.flusher.dirtyBytes, 4096);
    assert.equal(mount.file.size, 4096);
    interrupt.abort();
    await assert.rejects(
      async () => refused,
      (error: HoldfastError) => error.errorName === 'EINTR',
    );
    release();
    await waiting;
    await mount.file.flush();
    assert.equal(mount.flusher.dirtyBytes, 0);
    const expected = Buffer.concat([pattern(4096, 1), Buffer.alloc(4096), pattern(4096, 3)]);
    assert.deepEqual(await mount.seenElsewhere(), expected);
  });

  it('keeps frames under way within the window', async () => {
    const mount = new DataHarness({ limits: { flushFramesInFlightMax: 3 } });
    const release = mount.chunks.hold();
    await mount.file.write(0, pattern(10 * CHUNK, 1));
    const flushed = mount.file.flush();
    await settle();
    assert.equal(mount.chunks.inFlight, 3);
    release();
    await flushed;
    assert.equal(mount.chunks.maxInFlight, 3);
    assert.equal(mount.chunks.writes.length, 10);
  });

  it('reports a write error once to each description and drops the bytes', async () => {
    const mount = new DataHarness();
    const marks = [mount.file.newMark(), mount.file.newMark()];
    mount.chunks.failWrite = ({ chunk }) => (chunk === 1 ? new HoldfastError('ENOSPC') : undefined);
    await mount.file.write(0, pattern(2 * CHUNK, 1));
    await mount.file.flush();
    for (const mark of marks) {
      assert.equal(mount.file.takeError(mark)?.errorName, 'ENOSPC');
      assert.equal(mount.file.takeError(mark), undefined);
    }
    assert.equal(mount.file.takeError(mount.file.newMark()), undefined, 'a later open has no part in it');
    assert.equal(mount.chunks.writes.length, 2, 'ENOSPC is not repeated');
    assert.equal(mount.flusher.dirtyBytes, 0);
    assert.equal(mount.inode.attr.size, CHUNK, 'the size covers what has landed');
    assert.equal(mount.file.size, CHUNK);
  });

  it('names a file stale whose making went with the session, for an open file cannot be missing', async () => {
    const mount = new DataHarness();
    mount.inode.beforeCommit = () => Promise.reject(new HoldfastError('ENOENT'));
    const mark = mount.file.newMark();
    await mount.file.write(0, pattern(100, 1));
    await mount.file.flush();
    assert.equal(mount.file.takeError(mark)?.errorName, 'ESTALE');
  });

  it('tells the next description of a write error that nobody was told of, also after the last close', async () => {
    const mount = new DataHarness();
    mount.file.newMark();
    mount.chunks.failWrite = () => new HoldfastError('ENOSPC');
    await mount.file.write(0, pattern(100, 1));
    await mount.file.flush();
    assert.equal(mount.file.takeError(mount.file.newMark())?.errorName, 'ENOSPC', 'behind a close');
    await mount.file.write(0, pattern(100, 1));
    await mount.file.flush();
    mount.unsynced.closed(mount.file.ino, () => false);
    const file = mount.reopened();
    const [reader, writer] = [file.newMark(), file.newMark()];
    await file.fsync(false);
    assert.equal(file.takeError(writer)?.errorName, 'ENOSPC', 'behind the last close');
    assert.equal(file.takeError(file.newMark()), undefined);
    assert.equal(file.takeError(reader)?.errorName, 'ENOSPC');
  });

  it('leaves times set by utimes as they are when earlier writes are committed', async () => {
    const mount = new DataHarness();
    await mount.file.write(0, pattern(10, 1));
    const attr = { ...mount.inode.attr, mtime: { sec: 5, nsec: 6 }, change: mount.inode.attr.change + 1 };
    mount.inode.attr = attr;
    mount.file.applyAttr(attr, true);
    mount.file.timesSet(attr, true);
    assert.deepEqual(mount.file.view().mtime, { sec: 5, nsec: 6 });
    await mount.file.flush();
    assert.deepEqual(mount.inode.attr.mtime, { sec: 5, nsec: 6 });
  });

  it('shows its own size, times and space while they are not committed', async () => {
    const mount = new DataHarness();
    await mount.file.write(1000, pattern(24, 1));
    const view = mount.file.view();
    assert.equal(view.size, 1024);
    assert.equal(view.allocated, 24);
    assert.deepEqual(view.mtime, mount.clock.wall());
    mount.file.applyAttr({ ...mount.inode.attr, change: 2 }, false);
    assert.equal(mount.file.view().size, 1024);
  });
});

describe('fsync', () => {
  it('costs one synced frame and one commit, data first, when a small file grows', async () => {
    const mount = new DataHarness();
    let landed = -1;
    mount.inode.beforeCommit = async () => {
      landed = mount.chunks.chunk(7, 0).length;
    };
    await mount.file.write(0, pattern(100, 1));
    await mount.file.fsync(false);
    assert.deepEqual(mount.chunks.writes, [{ ino: 7, chunk: 0, offset: 0, length: 100, sync: true }]);
    assert.deepEqual(mount.chunks.syncs, []);
    assert.equal(mount.inode.commits.length, 1);
    assert.equal(landed, 100);
  });

  it('commits the times beside the data when the size stays, and once more for others to notice', async () => {
    const mount = new DataHarness();
    await mount.file.write(0, pattern(100, 1));
    await mount.file.fsync(false);
    const release = mount.chunks.hold();
    await mount.clock.advance(WRITE_TIME_KEPT_MS);
    await mount.file.write(0, pattern(50, 2));
    const synced = mount.file.fsync(false);
    await settle();
    assert.equal(mount.inode.commits.length, 2, 'the commit does not wait for the data');
    release();
    await synced;
    assert.equal(mount.file.clean, false);
    const { change } = mount.inode.attr;
    await mount.file.flush();
    assert.ok(mount.inode.attr.change > change);
    assert.ok(mount.file.clean);
  });

  it('needs no commit for fdatasync when the size stays', async () => {
    const mount = new DataHarness();
    await mount.file.write(0, pattern(100, 1));
    await mount.file.fsync(true);
    await mount.file.write(0, pattern(100, 2));
    await mount.file.fsync(true);
    assert.equal(mount.inode.commits.length, 1);
  });

  it('sends SYNC to every group that was written since the last one, and to no other', async () => {
    const mount = new DataHarness();
    await mount.file.write(0, pattern(3 * CHUNK, 1));
    await mount.file.flush();
    await mount.file.fsync(false);
    const groups = [0, 1, 2].map((chunk) => mount.chunks.pgOf(7, chunk));
    assert.deepEqual(
      [...mount.chunks.syncs].sort((a, b) => a - b),
      groups.sort((a, b) => a - b),
    );
    mount.chunks.syncs.length = 0;
    await mount.file.fsync(false);
    assert.deepEqual(mount.chunks.syncs, []);
  });

  it('speaks at first for what was in the file before it was opened', async () => {
    const before = new DataHarness();
    await before.file.write(0, pattern(2 * CHUNK, 1));
    await before.file.flush();
    const { inode, chunks } = before;
    const mount = new DataHarness({ inode, chunks, isNew: false });
    await mount.file.fsync(false);
    chunks.crash();
    assert.deepEqual(await before.seenElsewhere(), pattern(2 * CHUNK, 1));
  });

  it('reports a failed SYNC', async () => {
    const mount = new DataHarness();
    const mark = mount.file.newMark();
    await mount.file.write(0, pattern(CHUNK, 1));
    await mount.file.flush();
    mount.chunks.failSync = () => new HoldfastError('EIO');
    await mount.file.fsync(false);
    assert.equal(mount.file.takeError(mark)?.errorName, 'EIO');
  });

  it('makes everything survive a power cut, whatever was written before (property)', async () => {
    const write = fc.record({ offset: fc.nat(5 * CHUNK), length: fc.integer({ min: 1, max: CHUNK }) });
    const step = fc.oneof(write, fc.constant('flush' as const), fc.constant('fsync' as const));
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
        const mount = new DataHarness();
        let model = Buffer.alloc(0);
        for (const [number, one] of steps.entries()) {
          if (one === 'flush') await mount.file.flush();
          else if (one === 'fsync') await mount.file.fsync(false);
          else {
            const data = pattern(one.length, number);
            model = overwrite(model, one.offset, data);
            await mount.file.write(one.offset, data);
          }
        }
        await mount.file.fsync(true);
        mount.chunks.crash();
        assert.deepEqual(await mount.seenElsewhere(), model);
      }),
      { numRuns: 60, seed: 20 },
    );
  });
});

describe('truncate', () => {
  it('drops what is dirty behind the cut and waits for what is under way', async () => {
    const mount = new DataHarness();
    const release = mount.chunks.hold();
    await mount.file.write(0, pattern(2 * CHUNK, 1));
    const flushed = mount.file.flush();
    await settle();
    const cut = mount.truncate(10);
    await settle();
    assert.equal(mount.inode.attr.change, 1, 'the server is not asked before the frames have landed');
    release();
    await Promise.all([cut, flushed]);
    await mount.file.flush();
    await mount.truncate(2 * CHUNK);
    const expected = Buffer.concat([pattern(10, 1), Buffer.alloc(2 * CHUNK - 10)]);
    assert.deepEqual(await mount.read(0, 3 * CHUNK), expected);
    assert.deepEqual(await mount.seenElsewhere(), expected);
  });

  it('holds writes and commits back while it runs', async () => {
    const mount = new DataHarness();
    await mount.file.write(0, pattern(100, 1));
    let finish = (): void => {};
    const gate = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const cut = mount.file.truncate(0, async () => {
      await gate;
      return mount.inode.setSize(0);
    });
    const appended = mount.file.write('end', pattern(5, 2));
    await settle();
    assert.equal(mount.file.view().size, 100);
    finish();
    await cut;
    assert.equal(await appended, 0);
    await mount.file.flush();
    assert.deepEqual(await mount.seenElsewhere(), pattern(5, 2));
  });

  it('waits for a commit that is under way: the server would cut nothing that it does not know of', async () => {
    const mount = new DataHarness();
    let answer = (): void => {};
    mount.inode.beforeCommit = () =>
      new Promise<void>((resolve) => {
        answer = resolve;
      });
    await mount.file.write(0, pattern(100, 1));
    const flushed = mount.file.flush();
    await settle();
    const cut = mount.truncate(10);
    await settle();
    assert.equal(mount.inode.attr.size, 0);
    mount.inode.beforeCommit = undefined;
    answer();
    await Promise.all([flushed, cut]);
    assert.deepEqual([mount.inode.attr.size, mount.inode.attr.truncateSeq], [10, 1]);
    await mount.truncate(100);
    assert.deepEqual(await mount.seenElsewhere(), Buffer.concat([pattern(10, 1), Buffer.alloc(90)]));
  });

  it('goes on after a truncate that the server refused', async () => {
    const mount = new DataHarness();
    await mount.file.write(0, pattern(100, 1));
    const refused = mount.file.truncate(200, () => Promise.reject(new HoldfastError('EFBIG')));
    await assert.rejects(
      async () => refused,
      (error: HoldfastError) => error.errorName === 'EFBIG',
    );
    await mount.file.write(100, pattern(5, 2));
    await mount.file.flush();
    assert.equal(mount.inode.attr.size, 105);
  });
});

describe('reads, writes, truncates and flushes in any order', () => {
  const offset = fc.nat(4 * CHUNK);
  const length = fc.integer({ min: 1, max: 2 * CHUNK });
  // Reads from one place on, so that reading ahead has something to do.
  const step = fc.oneof(
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('next' as const), length: fc.nat(CHUNK / 2) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('write' as const), offset, length }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('append' as const), length }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('read' as const), offset, length }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('truncate' as const), size: offset }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('flush' as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('fsync' as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('age' as const) }) },
  );

  it('are those of a plain buffer, here and for other mounts after a flush (property)', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40 }), fc.boolean(), async (steps, wait) => {
        // Without waiting, background work of one step overlaps the following ones.
        const limits = {
          readAheadRunBytesMin: 1,
          readAheadBytesMax: 3 * CHUNK,
          blockCacheBytesMax: 6 * CHUNK,
        };
        const mount = new DataHarness({ chunks: new MemoryChunks(3), inode: new MemoryInode(), limits });
        const pending: Promise<unknown>[] = [];
        let model = Buffer.alloc(0);
        let at = 0;
        for (const [number, one] of steps.entries()) {
          if (one.kind === 'write' || one.kind === 'append') {
            const data = pattern(one.length, number);
            model = overwrite(model, one.kind === 'append' ? model.length : one.offset, data);
            await mount.file.write(one.kind === 'append' ? 'end' : one.offset, data);
          } else if (one.kind === 'read') {
            const got = await mount.read(one.offset, one.length);
            assert.deepEqual(got, model.subarray(one.offset, one.offset + one.length));
          } else if (one.kind === 'next') {
            const got = await mount.read(at, one.length);
            assert.deepEqual(got, model.subarray(at, at + one.length));
            at = got.length === 0 ? 0 : at + got.length;
          } else if (one.kind === 'truncate') {
            model = resize(model, one.size);
            await mount.truncate(one.size);
          } else if (one.kind === 'age') {
            await mount.clock.advance(600);
          } else {
            pending.push(one.kind === 'flush' ? mount.file.flush() : mount.file.fsync(false));
            if (wait) await pending.at(-1);
          }
        }
        await Promise.all(pending);
        await mount.file.flush();
        assert.ok(mount.file.clean);
        assert.equal(mount.file.buffer.slots, 0);
        assert.equal(mount.flusher.dirtyBytes, 0);
        assert.deepEqual(await mount.read(0, 10 * CHUNK), model);
        assert.deepEqual(await mount.seenElsewhere(), model);
      }),
      { numRuns: 150, seed: 7 },
    );
  });
});

function overwrite(model: Buffer, offset: number, data: Buffer): Buffer<ArrayBuffer> {
  const result = Buffer.alloc(Math.max(model.length, offset + data.length));
  model.copy(result);
  data.copy(result, offset);
  return result;
}

function resize(model: Buffer, size: number): Buffer<ArrayBuffer> {
  const result = Buffer.alloc(size);
  model.copy(result);
  return result;
}
