import assert from 'node:assert/strict';
import { LeaseMode } from '../../../proto/gen/meta.js';
import { S_IFREG } from '../../../proto/types.js';
import { settle } from '../support/manual-clock.js';
import { boundTo } from '../support/stand-in-kernel.js';
import { caller, TestMount } from '../support/test-mount.js';

const { LEASE_SHARED: SHARED } = LeaseMode;
const NAME = Buffer.from('user.a');
const [ONE, TWO] = [Buffer.from('1'), Buffer.from('2')];

/** Two mounts that may look at a file, and the inodes of which the kernel above the first was made to forget the attributes. */
async function looking(): Promise<{ one: TestMount; two: TestMount; ino: number; expired: number[] }> {
  const one = new TestMount();
  const two = one.second();
  const expired: number[] = [];
  await one.fs.init(boundTo({ expireAttr: (ino) => expired.push(ino) }));
  // Not made by the first one: at its second change of names there it would take the directory over.
  const { ino, handle } = await two.create('f');
  await two.close(handle);
  await one.fs.setxattr(caller(), ino, NAME, ONE, 0);
  await two.fs.lookup(caller(), 1, Buffer.from('f'));
  await one.fs.lookup(caller(), 1, Buffer.from('f'));
  await one.fs.getxattr(caller(), ino, NAME);
  assert.equal(one.meta.leases.mode(ino, one.clock.now()), SHARED);
  one.meta.take();
  expired.length = 0;
  return { one, two, ino, expired };
}

const FLAG_NODUMP = 0x40;

type Change = (mount: TestMount, ino: number) => Promise<unknown>;
const CHANGES: [string, Change][] = [
  ['chmod', ({ fs }, ino) => fs.setattr(caller(), ino, { mode: S_IFREG | 0o600 })],
  ['utimes', ({ fs }, ino) => fs.setattr(caller(), ino, { mtime: { sec: 5, nsec: 0 } })],
  ['chattr', ({ fs }, ino) => fs.setFlags(caller(), ino, FLAG_NODUMP)],
  ['setxattr', ({ fs }, ino) => fs.setxattr(caller(), ino, NAME, TWO, 0)],
  ['link', ({ fs }, ino) => fs.link(caller(), ino, 1, Buffer.from('g'))],
  ['unlink', ({ fs }) => fs.unlink(caller(), 1, Buffer.from('f'))],
];

describe('what a mount changes that others may look at', () => {
  for (const [what, change] of CHANGES) {
    it(`is not told here as it was, when others were shown it as it is: ${what}`, async () => {
      const { one, two, ino } = await looking();
      const release = one.meta.holdAnswers('changes');
      const changed = change(one, ino);
      await settle();
      const other = await two.fs.getattr(caller(), ino).catch(() => undefined);
      const own = await one.fs.getattr(caller(), ino);
      assert.deepEqual(own.attr, other?.attr ?? { ...own.attr, nlink: 0 });
      assert.equal(own.ttlMs, 0, 'nor may the kernel tell it again');
      release();
      await changed;
    });
  }

  it('is asked for no more when the change is answered', async () => {
    const { one, ino } = await looking();
    await one.fs.setattr(caller(), ino, { mode: S_IFREG | 0o600 });
    one.meta.take();
    const { attr, ttlMs } = await one.fs.getattr(caller(), ino);
    assert.deepEqual([attr.mode & 0o777, ttlMs > 0, one.meta.take()], [0o600, true, []]);
  });

  it('is not told to be absent while it is made, when others were shown it', async () => {
    const { one, two } = await looking();
    const absent = one.fs.lookup(caller(), 1, Buffer.from('new'));
    assert.equal((await absent.catch(() => undefined))?.attr.ino ?? 0, 0);
    const release = one.meta.holdAnswers('changes');
    const made = one.fs.mkdir(caller(), 1, Buffer.from('new'), 0o755, 0);
    await settle();
    const { attr } = await two.fs.lookup(caller(), 1, Buffer.from('new'));
    assert.equal((await one.fs.lookup(caller(), 1, Buffer.from('new'))).attr.ino, attr.ino);
    release();
    await made;
  });

  it('is not told as it was either when the caller of the change has gone', async () => {
    const { one, two, ino } = await looking();
    const release = one.meta.holdAnswers('changes');
    const interrupt = new AbortController();
    const changed = one.fs.setattr(caller({ signal: interrupt.signal }), ino, { mode: S_IFREG | 0o600 });
    await settle();
    interrupt.abort();
    await assert.rejects(changed, { errorName: 'EINTR' });
    const { attr } = await two.fs.getattr(caller(), ino);
    assert.equal(attr.mode & 0o777, 0o600);
    assert.deepEqual((await one.fs.getattr(caller(), ino)).attr, attr);
    release();
  });

  it('has the extended attributes that others were shown, and those remembered of before no longer', async () => {
    const { one, two, ino } = await looking();
    const releaseChange = one.meta.hold();
    const changed = one.fs.setxattr(caller(), ino, NAME, TWO, 0);
    await settle();
    const early = one.fs.getxattr(caller(), ino, NAME);
    releaseChange();
    const release = one.meta.holdAnswers('changes');
    await early;
    await settle();
    assert.deepEqual(await two.fs.getxattr(caller(), ino, NAME), TWO);
    assert.deepEqual(await one.fs.getxattr(caller(), ino, NAME), TWO);
    release();
    await changed;
  });

  for (const [what, change] of CHANGES) {
    it(`is not told by the kernel either: it forgets the attributes before the change is asked for: ${what}`, async () => {
      const { one, ino, expired } = await looking();
      await one.fs.getattr(caller(), ino);
      const { meta } = one;
      const mutate = meta.mutate.bind(meta);
      let asked = 0;
      meta.mutate = (...what) => {
        asked++;
        assert.deepEqual(expired, [ino]);
        return mutate(...what);
      };
      await change(one, ino);
      assert.equal(asked, 1);
    });
  }
});
