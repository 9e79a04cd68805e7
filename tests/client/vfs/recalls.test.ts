import assert from 'node:assert/strict';
import { LeaseMode } from '../../../proto/gen/meta.js';
import { settle } from '../support/manual-clock.js';
import { boundTo } from '../support/stand-in-kernel.js';
import { caller, TestMount } from '../support/test-mount.js';

const { LEASE_NONE: NONE, LEASE_SHARED: SHARED } = LeaseMode;
const FILES = 20;

describe('files that are asked back together', () => {
  it('go back in one message when nothing of them is left to be written', async () => {
    const mount = new TestMount();
    const { meta, clock } = mount;
    const inos: number[] = [];
    for (let i = 0; i < FILES; i++) {
      const { ino, handle } = await mount.create(`f${i}`);
      await mount.close(handle);
      inos.push(ino);
    }
    await clock.advance(10_000);
    const messages: number[][] = [];
    meta.returnLeases = (leases) => messages.push(leases.map(({ ino }) => ino));
    const seq = 1_000_000;
    meta.leaseEvents?.onRecall(inos.map((ino) => meta.leases.recalled({ ino, mode: SHARED, seq })));
    await settle();
    assert.deepEqual(messages, [inos]);
  });
});

describe('the recall of a directory whose names the kernel believes', () => {
  /** Its kernel never lets an entry be expired: a call holds the lock that this takes. */
  async function lockedMount(): Promise<{ mount: TestMount; ino: number }> {
    const mount = new TestMount();
    await mount.fs.init(boundTo({ expireEntry: () => new Promise<void>(() => {}) }));
    const { ino, handle } = await mount.create('f');
    await mount.close(handle);
    await mount.fs.fsyncdir(caller(), 1, 0, false);
    return { mount, ino };
  }

  /** @returns what the mount gives back when it is asked for an inode */
  async function recalled({ meta }: TestMount, ino: number): Promise<number[]> {
    const returned: number[] = [];
    meta.returnLeases = (leases) => returned.push(...leases.map((lease) => lease.ino));
    meta.leaseEvents?.onRecall([meta.leases.recalled({ ino, mode: NONE, seq: 1_000_000 })]);
    await settle();
    return returned;
  }

  const CALLS: [string, (mount: TestMount) => Promise<unknown>][] = [
    ['chmod', ({ fs }) => fs.setattr(caller(), 1, { mode: 0o700 })],
    ['setxattr', ({ fs }) => fs.setxattr(caller(), 1, Buffer.from('user.a'), Buffer.from('1'), 0)],
    ['removexattr', ({ fs }) => fs.removexattr(caller(), 1, Buffer.from('user.a'))],
  ];
  for (const [what, call] of CALLS) {
    it(`waits for no lock of the kernel that a ${what} of the directory holds`, async () => {
      const { mount } = await lockedMount();
      await mount.second().fs.lookup(caller(), 1, Buffer.from('f'));
      const { entryTtlMs } = await mount.fs.lookup(caller(), 1, Buffer.from('f'));
      assert.ok(entryTtlMs > 0);
      const release = mount.meta.hold();
      const pending = call(mount).catch(() => undefined);
      await settle();
      assert.deepEqual(await recalled(mount, 1), [1]);
      release();
      await pending;
    });
  }

  it('waits for none that an fsync of the directory holds', async () => {
    const { mount, ino } = await lockedMount();
    const other = await mount.create('g');
    await mount.close(other.handle);
    await mount.fs.fsyncdir(caller(), 1, 0, false);
    const { entryTtlMs } = await mount.fs.lookup(caller(), 1, Buffer.from('f'));
    assert.ok(entryTtlMs > 0);
    const release = mount.meta.hold();
    await mount.fs.setattr(caller(), other.ino, { mode: 0o600 });
    let done = false;
    const pending = mount.fs.fsyncdir(caller(), 1, 0, false).then(() => {
      done = true;
    });
    await settle();
    assert.deepEqual([await recalled(mount, ino), done], [[ino], false]);
    release();
    await pending;
  });
});
