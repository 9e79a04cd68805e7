import assert from 'node:assert/strict';
import type { Entry } from '../../../client/fuse/binding.js';
import { deferred } from '../../../common/deferred.js';
import { LeaseMode } from '../../../proto/gen/meta.js';
import { settle } from '../support/manual-clock.js';
import { boundTo } from '../support/stand-in-kernel.js';
import { caller, TestMount } from '../support/test-mount.js';

const ROOT = 1;
const NAME = Buffer.from('f');
const S_IFREG = 0o100000;

/** Two mounts that are granted no lease, unless the test grants the first one that on the directory. */
async function twoMounts(): Promise<{ one: TestMount; two: TestMount; grant: () => void }> {
  const one = new TestMount();
  await one.fs.init(boundTo({}));
  const two = one.second();
  one.meta.granting = two.meta.granting = false;
  const grant = (): void => {
    one.meta.leases.granted({ ino: ROOT, mode: LeaseMode.LEASE_SHARED, seq: 1_000_000 });
  };
  return { one, two, grant };
}

const make = (mount: TestMount): Promise<Entry> => mount.fs.mknod(caller(), ROOT, NAME, S_IFREG, 0, 0);
const remove = async (mount: TestMount): Promise<undefined> => {
  await mount.fs.unlink(caller(), ROOT, NAME);
};
const isThere = (mount: TestMount): Promise<boolean> =>
  mount.fs.lookup(caller(), ROOT, NAME).then(
    ({ attr }) => attr.ino !== 0,
    ({ errorName }: { errorName?: string }) => {
      assert.equal(errorName, 'ENOENT');
      return false;
    },
  );

describe('the answer to a change of a name', () => {
  for (const [what, change, undo] of [
    ['was made', make, remove],
    ['was removed', remove, make],
  ] as const) {
    it(`tells no more that the name ${what} when a lease has come behind it, and others had the directory in between`, async () => {
      const { one, two, grant } = await twoMounts();
      if (change === remove) await make(two);
      const arrive = one.meta.holdAnswers('changes');
      const changed = change(one);
      await settle();
      await undo(two);
      grant();
      arrive();
      const entry = await changed;
      assert.equal(entry?.entryTtlMs ?? 0, 0, 'the kernel may believe it');
      assert.equal(await isThere(one), change === remove);
      const seen = await one.fs.getattr(caller(), ROOT);
      assert.deepEqual(seen.attr.mtime, (await two.fs.getattr(caller(), ROOT)).attr.mtime);
    });

    it(`tells that the name ${what} when it came under the lease`, async () => {
      const { one, two, grant } = await twoMounts();
      if (change === remove) await make(two);
      grant();
      one.meta.granting = true;
      const entry = await change(one);
      if (entry) assert.ok(entry.entryTtlMs > 0);
      one.meta.take();
      assert.equal(await isThere(one), change === make);
      assert.deepEqual(
        one.meta.take().filter((call) => call === 'lookup'),
        [],
      );
    });
  }
});

describe('the answer to a lookup', () => {
  it('that tells of the time before a change made here, whose own answer was read first, is not shown', async () => {
    const mount = new TestMount();
    await mount.fs.init(boundTo({}));
    const { meta, fs } = mount;
    const { ino, handle } = await mount.create('f');
    const other = await mount.create('other');
    await fs.fsync(caller(), other.ino, other.handle, false);
    await mount.close(handle);
    // Its inode is leased exclusively, its name is not known any more.
    meta.leaseEvents?.onRecall([
      meta.leases.recalled({ ino: ROOT, mode: LeaseMode.LEASE_NONE, seq: 1_000_000 }),
    ]);
    await settle();
    const batch = meta.mutateBatch.bind(meta);
    const sent = deferred<void>();
    meta.mutateBatch = async (changes) => {
      await sent.promise;
      return batch(changes);
    };
    const mtime = { sec: 3, nsec: 0 };
    meta.take();
    await fs.setattr(caller(), ino, { mtime });
    const arrive = meta.holdAnswers();
    const looked = fs.lookup(caller(), ROOT, NAME);
    await settle();
    assert.deepEqual(meta.take(), ['lookup']);
    sent.resolve();
    // Behind it in the lane, whose answers are taken in before that of the lookup is.
    await fs.setattr(caller(), other.ino, { mtime });
    await fs.fsync(caller(), other.ino, other.handle, false);
    assert.deepEqual(meta.batches.at(-1), ['setAttr', 'setAttr']);
    arrive();
    assert.deepEqual((await looked).attr.mtime, mtime);
  });
});
