import assert from 'node:assert/strict';
import { RESERVES_AT_ONCE } from '../../../client/data/reserve.js';
import { MemoryKv } from '../../../metaserver/store/memory-kv.js';
import { HoldfastError } from '../../../proto/errors.js';
import { FLAG_NODUMP, reservesBehindEnd } from '../../../proto/inode-flags.js';
import { FILE_SIZE_MAX_BYTES } from '../../../proto/types.js';
import { b, Namespace } from '../../metaserver/namespace/harness.js';
import { MemoryMeta } from '../support/memory-meta.js';
import { caller, TestMount } from '../support/test-mount.js';

const KEEP_SIZE = 1;
const PUNCH = 3;
const ZERO_RANGE = 16;
const CHUNK = 2 ** 20;

const noChange = { killPriv: false };

async function opened(mount = new TestMount()) {
  const { ino, handle } = await mount.create('f');
  const allocate = (mode: number, offset: number, length: number, signal = new AbortController().signal) =>
    mount.fs.fallocate(caller({ signal }), ino, handle, mode, offset, length);
  const view = async () => {
    const { attr } = await mount.fs.getattr(caller(), ino);
    return [attr.size, attr.blocks * 512];
  };
  return { mount, ino, handle, allocate, view };
}

function full(): HoldfastError {
  return new HoldfastError('ENOSPC');
}

describe('fallocate', () => {
  it('has space reserved in each chunk once, some at a time, and then makes the file longer', async () => {
    const { mount, ino, allocate, view } = await opened();
    const chunks = 40;
    await allocate(0, 100, chunks * CHUNK);
    const { reserves, maxInFlight } = mount.chunks;
    assert.deepEqual(
      reserves.map(({ chunk, offset, length }) => [chunk, offset, length]).sort(([a = 0], [z = 0]) => a - z),
      Array.from({ length: chunks + 1 }, (_, chunk) => {
        if (chunk === 0) return [0, 100, CHUNK - 100];
        return [chunk, 0, chunk === chunks ? 100 : CHUNK];
      }),
    );
    assert.equal(maxInFlight, RESERVES_AT_ONCE);
    assert.deepEqual(await view(), [chunks * CHUNK + 100, chunks * CHUNK + 512]);
    assert.equal(reservesBehindEnd(mount.meta.namespace.get(ino)), false);
  });

  it('behind the end is known to the metaservers before, and given back by a truncate to the same size', async () => {
    const { mount, ino, handle, allocate, view } = await opened();
    const { namespace } = mount.meta;
    mount.chunks.failReserve = () => {
      assert.ok(reservesBehindEnd(namespace.get(ino)), 'it may lie anywhere from now on');
      return undefined;
    };
    await allocate(KEEP_SIZE, CHUNK, CHUNK);
    assert.deepEqual(await view(), [0, CHUNK]);
    assert.equal(await mount.fs.getFlags(caller(), ino), 0, 'no flag that lsattr shows');
    await mount.fs.setFlags(caller(), ino, FLAG_NODUMP);
    assert.equal(await mount.fs.getFlags(caller(), ino), FLAG_NODUMP);
    assert.ok(reservesBehindEnd(namespace.get(ino)), 'nor one that chattr takes away');
    await mount.fs.setattr(caller(), ino, { ...noChange, handle, size: 0 });
    assert.deepEqual(await view(), [0, 0]);
    const attr = namespace.get(ino);
    assert.equal(reservesBehindEnd(attr), false);
    assert.deepEqual(attr.truncates, [{ seq: 1, from: 0 }]);
    const [cut] = namespace.machine.reclaims(undefined, 10);
    assert.deepEqual(cut, { ino, truncateSeq: 1, from: 0, size: FILE_SIZE_MAX_BYTES, chunkSize: CHUNK });
    await mount.fs.setattr(caller(), ino, { ...noChange, handle, size: 0 });
    assert.equal(namespace.get(ino).truncates.length, 1, 'nothing more to give back');
  });

  it('behind the end of a file is asked for everywhere when the file is deleted, also when it had no name then', async () => {
    for (const unlinkedFirst of [false, true]) {
      const { mount, ino, allocate } = await opened();
      const { namespace } = mount.meta;
      if (!unlinkedFirst) await allocate(KEEP_SIZE, 0, 10);
      await mount.fs.unlink(caller(), 1, b('f'));
      await mount.fs.fsyncdir(caller(), 1, 0, false);
      if (unlinkedFirst) await allocate(KEEP_SIZE, 0, 10);
      const [gone] = namespace.machine.reclaims(undefined, 10);
      assert.deepEqual([gone?.ino, gone?.size], [ino, FILE_SIZE_MAX_BYTES]);
    }
  });

  it('that is refused midway leaves the size, counts what it has reserved, and lets it be found', async () => {
    const { mount, ino, allocate, view } = await opened();
    mount.chunks.failReserve = ({ chunk }) => (chunk >= 3 ? full() : undefined);
    await assert.rejects(allocate(0, 0, 100 * CHUNK), { errorName: 'ENOSPC' });
    assert.deepEqual(await view(), [0, 3 * CHUNK]);
    assert.ok(reservesBehindEnd(mount.meta.namespace.get(ino)));
    assert.ok(mount.chunks.reserves.length < RESERVES_AT_ONCE, 'no further chunk was asked');
  });

  it('of more than there is asks no chunk', async () => {
    const capacity = { totalBytes: 100 * CHUNK, freeBytes: 10 * CHUNK, availBytes: 10 * CHUNK };
    const namespace = new Namespace(new MemoryKv(), { capacity: () => capacity });
    const { mount, allocate, view } = await opened(new TestMount({ meta: new MemoryMeta(namespace) }));
    await allocate(0, 0, 8 * CHUNK);
    capacity.availBytes = 2 * CHUNK;
    mount.chunks.reserves.splice(0);
    await assert.rejects(allocate(0, 0, 11 * CHUNK), { errorName: 'ENOSPC' });
    assert.deepEqual(mount.chunks.reserves, []);
    assert.deepEqual(await view(), [8 * CHUNK, 8 * CHUNK]);
    await allocate(0, 0, 10 * CHUNK);
  });

  it('of a file that another mount wants meanwhile goes on behind that one', async () => {
    const { mount, ino, handle, allocate } = await opened();
    await mount.fs.fsync(caller(), ino, handle, false);
    const release = mount.chunks.hold();
    const running = allocate(0, 0, 40 * CHUNK);
    while (mount.chunks.inFlight < RESERVES_AT_ONCE) await new Promise((resolve) => setImmediate(resolve));
    const two = mount.second();
    let answered = -1;
    const looked = two.fs.lookup(caller(), 1, b('f')).then(() => {
      answered = mount.chunks.reserves.length;
    });
    while (mount.meta.recalls.length === 0) await new Promise((resolve) => setImmediate(resolve));
    release();
    await Promise.all([running, looked]);
    assert.ok(answered < 40, 'it was not held up until all was reserved');
    assert.equal(mount.chunks.reserves.length, 40);
    const { attr } = await two.fs.getattr(caller(), ino);
    assert.deepEqual([attr.size, attr.blocks * 512], [40 * CHUNK, 40 * CHUNK]);
  });

  it('that is interrupted begins no further chunk', async () => {
    const { mount, allocate } = await opened();
    const abort = new AbortController();
    const release = mount.chunks.hold();
    const running = allocate(0, 0, 1000 * CHUNK, abort.signal);
    while (mount.chunks.inFlight < RESERVES_AT_ONCE) await new Promise((resolve) => setImmediate(resolve));
    abort.abort();
    await assert.rejects(running, { errorName: 'EINTR' });
    release();
    while (mount.chunks.inFlight > 0) await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(mount.chunks.reserves.length, RESERVES_AT_ONCE);
  });

  it('with ZERO_RANGE makes a hole of what is there and reserves it again, a hole alone reserves nothing', async () => {
    const { mount, handle, allocate, view } = await opened();
    await mount.write(handle, 0, Buffer.alloc(10_000, 1));
    await allocate(ZERO_RANGE, 5000, 10_000);
    const ranges = (calls: typeof mount.chunks.punches) =>
      calls.map(({ offset, length }) => [offset, length]);
    assert.deepEqual(ranges(mount.chunks.punches), [[5000, 5000]]);
    assert.deepEqual(ranges(mount.chunks.reserves), [[5000, 10_000]]);
    assert.equal((await view())[0], 15_000);
    await allocate(PUNCH, 0, 20_000);
    assert.deepEqual(ranges(mount.chunks.reserves), [[5000, 10_000]]);
  });

  it('that all servers lose with their power is told by the next fsync, and what was written before it is not lost with it', async () => {
    const { mount, ino, handle, allocate } = await opened();
    await mount.write(handle, 0, Buffer.alloc(5000, 7));
    await mount.fs.fsync(caller(), ino, handle, false);
    await mount.write(handle, 5000, Buffer.alloc(5000, 8));
    await mount.fs.flush(caller(), ino, handle, 0n);
    await allocate(0, 0, 10_000);
    assert.deepEqual(await mount.read(handle, 4999, 2), Buffer.from([7, 8]));
    mount.chunks.crash();
    await assert.rejects(mount.fs.fsync(caller(), ino, handle, false), { errorName: 'EIO' });
    await mount.fs.fsync(caller(), ino, handle, false);
    assert.deepEqual(mount.chunks.chunk(ino, 0).subarray(5000), Buffer.alloc(5000, 8));
  });
});
