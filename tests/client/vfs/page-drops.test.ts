import assert from 'node:assert/strict';
import { PAGES_WAIT_MAX_MS, PageDrops } from '../../../client/vfs/page-drops.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { LeaseMode } from '../../../proto/gen/meta.js';
import { ManualClock, settle } from '../support/manual-clock.js';
import { boundTo } from '../support/stand-in-kernel.js';
import { caller, TestMount } from '../support/test-mount.js';

const [FILE, OTHER] = [7, 8];

/** A mount whose kernel drops pages when the test lets it, with a file whose lease was recalled during a write. */
async function recalledDuringWrite() {
  const mount = new TestMount();
  const drops: Deferred<void>[] = [];
  const invalidateInode = (): Promise<void> => {
    const drop = deferred<void>();
    drops.push(drop);
    return drop.promise;
  };
  await mount.fs.init(boundTo({ invalidateInode }));
  const { ino, handle } = await mount.create('f');
  const { meta, fs } = mount;
  await fs.fsync(caller(), ino, handle, false);
  const returned: number[] = [];
  meta.returnLeases = (leases) => returned.push(...leases.map((lease) => lease.ino));
  const release = meta.hold();
  meta.leaseEvents?.onRecall([meta.leases.recalled({ ino, mode: LeaseMode.LEASE_NONE, seq: 1_000_000 })]);
  const written = fs.write(caller(), ino, {
    ...{ handle, offset: 0, data: Buffer.from('a'), fromCache: false, killPriv: false, flags: 1 },
  });
  await settle();
  assert.deepEqual(returned, [ino]);
  release();
  await written;
  assert.equal(drops.length, 1);
  return { ...mount, mount, ino, drops };
}

/** @returns what is known of an answer: whether it has come */
function watched(answer: unknown): { done: boolean; error?: { errorName?: string } } {
  const seen: { done: boolean; error?: { errorName?: string } } = { done: false };
  void Promise.resolve(answer).then(
    () => {
      seen.done = true;
    },
    (error: { errorName?: string }) => {
      Object.assign(seen, { done: true, error });
    },
  );
  return seen;
}

describe('pages that the kernel has yet to drop', () => {
  it('hold up the attributes of their file, and of no other, until they are gone', async () => {
    const { mount, ino, drops } = await recalledDuringWrite();
    const other = await mount.create('g');
    const asked = watched(mount.fs.getattr(caller(), ino));
    const elsewhere = watched(mount.fs.getattr(caller(), other.ino));
    await settle();
    assert.deepEqual([asked.done, elsewhere.done], [false, true]);
    drops[0]?.resolve();
    await settle();
    assert.equal(asked.done, true);
  });

  it('hold them up under a newer lease, too', async () => {
    const { mount, ino, drops } = await recalledDuringWrite();
    mount.meta.leases.granted({ ino, mode: LeaseMode.LEASE_SHARED, seq: 2_000_000 });
    await mount.fs.lookup(caller(), 1, Buffer.from('f'));
    const asked = watched(mount.fs.getattr(caller(), ino));
    await settle();
    assert.equal(asked.done, false);
    drops[0]?.resolve();
    await settle();
    assert.equal(asked.done, true);
  });

  it('hold them up for no longer than the bound', async () => {
    const { mount, ino } = await recalledDuringWrite();
    const asked = watched(mount.fs.getattr(caller(), ino));
    await mount.clock.advance(PAGES_WAIT_MAX_MS - 1);
    assert.equal(asked.done, false);
    await mount.clock.advance(1);
    assert.deepEqual(asked, { done: true });
  });

  it('hold up nobody who is interrupted', async () => {
    const { mount, ino } = await recalledDuringWrite();
    const interrupt = new AbortController();
    const asked = watched(mount.fs.getattr({ ...caller(), signal: interrupt.signal }, ino));
    await settle();
    assert.equal(asked.done, false);
    interrupt.abort();
    await settle();
    assert.equal(asked.error?.errorName, 'EINTR');
  });

  it('are waited for as far as the kernel was told of them before, whether it can drop them or not', async () => {
    const drops = new PageDrops(new ManualClock());
    const [first, second, third] = [deferred<void>(), deferred<void>(), deferred<void>()];
    assert.equal(drops.dropped(FILE, undefined), undefined);
    drops.track(FILE, first.promise);
    drops.track(FILE, second.promise);
    const waits = watched(drops.dropped(FILE, undefined));
    drops.track(FILE, third.promise);
    assert.equal(drops.dropped(OTHER, undefined), undefined);
    second.resolve();
    await settle();
    assert.equal(waits.done, false);
    first.reject(new Error('the queue is full'));
    await settle();
    assert.deepEqual(waits, { done: true });
    assert.notEqual(drops.dropped(FILE, undefined), undefined);
    third.resolve();
    await settle();
    assert.equal(drops.dropped(FILE, undefined), undefined);
  });
});
