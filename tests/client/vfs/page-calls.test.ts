import assert from 'node:assert/strict';
import { PageCalls } from '../../../client/vfs/page-calls.js';
import { deferred } from '../../../common/deferred.js';
import { LeaseMode } from '../../../proto/gen/meta.js';
import { settle } from '../support/manual-clock.js';
import { boundTo } from '../support/stand-in-kernel.js';
import { caller, TestMount } from '../support/test-mount.js';

const [FILE, OTHER] = [7, 8];

describe('calls for which the kernel locks pages', () => {
  it('end the wait for an invalidation of pages of the same file, before it and while it lasts', async () => {
    const calls = new PageCalls();
    const invalidated = deferred<void>();
    const call = deferred<void>();
    const waits: number[] = [];
    for (const ino of [FILE, OTHER])
      void calls.orCalled(ino, invalidated.promise).then(() => waits.push(ino));
    await settle();
    assert.equal(waits.length, 0);
    const answer = calls.during(FILE, call.promise);
    await settle();
    assert.deepEqual(waits, [FILE]);
    await calls.orCalled(FILE, invalidated.promise);
    call.resolve();
    await answer;
    void calls.orCalled(FILE, invalidated.promise).then(() => waits.push(FILE));
    await settle();
    assert.deepEqual(waits, [FILE]);
    invalidated.resolve();
    await settle();
    assert.deepEqual(waits.sort(), [FILE, FILE, OTHER]);
  });

  it('are none where the answer is known at once', async () => {
    const calls = new PageCalls();
    assert.equal(calls.during(FILE, 5), 5);
    const invalidated = deferred<void>();
    let waits = true;
    void calls.orCalled(FILE, invalidated.promise).then(() => {
      waits = false;
    });
    await settle();
    assert.ok(waits);
  });

  it('let the lease of the file be given back, and nothing of it be believed until its pages are gone', async () => {
    const mount = new TestMount();
    const pages = deferred<void>();
    const expired: number[] = [];
    const expireAttr = (ino: number): void => void expired.push(ino);
    await mount.fs.init(boundTo({ invalidateInode: () => pages.promise, expireAttr }));
    const { ino, handle } = await mount.create('f');
    await mount.fs.fsync(caller(), ino, handle, false);
    const { meta, fs } = mount;
    const returned: number[] = [];
    meta.returnLeases = (leases) => returned.push(...leases.map((lease) => lease.ino));
    meta.leaseEvents?.onRecall([meta.leases.recalled({ ino, mode: LeaseMode.LEASE_NONE, seq: 1_000_000 })]);
    await settle();
    assert.deepEqual([returned, expired.includes(ino)], [[], true]);
    const release = meta.hold();
    const written = fs.write(caller(), ino, {
      ...{ handle, offset: 0, data: Buffer.from('a'), fromCache: false, killPriv: false, flags: 1 },
    });
    await settle();
    assert.deepEqual(returned, [ino]);
    release();
    await written;
    meta.leases.granted({ ino, mode: LeaseMode.LEASE_SHARED, seq: 2_000_000 });
    assert.equal((await fs.lookup(caller(), 1, Buffer.from('f'))).attrTtlMs, 0);
    pages.resolve();
    await settle();
    assert.ok((await fs.getattr(caller(), ino)).ttlMs > 0);
  });
});
