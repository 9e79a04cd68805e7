import assert from 'node:assert/strict';
import { LeaseMode } from '../../../proto/gen/meta.js';
import { settle } from '../support/manual-clock.js';
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
  const CALLS: [string, (mount: TestMount) => Promise<unknown>][] = [
    ['chmod', ({ fs }) => fs.setattr(caller(), 1, { mode: 0o700 })],
    ['setxattr', ({ fs }) => fs.setxattr(caller(), 1, Buffer.from('user.a'), Buffer.from('1'), 0)],
    ['removexattr', ({ fs }) => fs.removexattr(caller(), 1, Buffer.from('user.a'))],
  ];
  for (const [what, call] of CALLS) {
    it(`waits for no lock of the kernel that a ${what} of the directory holds`, async () => {
      const mount = new TestMount();
      let forgotten = 0;
      const notify = {
        invalidateInode: async () => {},
        expireEntry: () => new Promise<void>(() => {}),
        forgetNames: () => ++forgotten > 0,
        invalidateEntry: async () => {},
        deleteEntry: async () => {},
      };
      await mount.fs.init({ kind: 'kernel', maxWrite: 1, callerIdentity: true, nanoseconds: true, notify });
      await mount.close((await mount.create('f')).handle);
      await mount.fs.fsyncdir(caller(), 1, 0, false);
      await mount.second().fs.lookup(caller(), 1, Buffer.from('f'));
      const { entryTtlMs } = await mount.fs.lookup(caller(), 1, Buffer.from('f'));
      assert.ok(entryTtlMs > 0);
      forgotten = 0;
      const { meta } = mount;
      const release = meta.hold();
      const pending = call(mount).catch(() => undefined);
      await settle();
      const returned: number[] = [];
      meta.returnLeases = (leases) => returned.push(...leases.map(({ ino }) => ino));
      meta.leaseEvents?.onRecall([meta.leases.recalled({ ino: 1, mode: NONE, seq: 1_000_000 })]);
      await settle();
      assert.deepEqual([returned, forgotten], [[1], 1]);
      release();
      await pending;
    });
  }
});
