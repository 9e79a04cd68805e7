import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import type { Caller, SetAttrRequest } from '../../../client/fuse/binding.js';
import { ACL_ACCESS, encodeAcl } from '../../../proto/acl.js';
import { HoldfastError } from '../../../proto/errors.js';
import { caller, TestMount } from '../support/test-mount.js';

const TIME = { sec: 7, nsec: 0 };
/** A process that no capability is effective in, as it has ended. */
const pid = spawnSync('true').pid;
const ALICE: Partial<Caller> = { uid: 7, gid: 7, pid };
const BOB_UID = 8;
const NO_ID = 0xffff_ffff;

const refused = (call: Promise<unknown>): Promise<void> =>
  assert.rejects(call, (failure) => failure instanceof HoldfastError && failure.errorName === 'EPERM');

/** Two mounts, and a file of Alice that the first has open. */
async function opened(): Promise<{ one: TestMount; two: TestMount; ino: number }> {
  const one = new TestMount();
  const { ino } = await one.create('f', 0o666);
  await one.fs.setattr(caller(), ino, { uid: 7, gid: 7 });
  return { one, two: one.second(), ino };
}

const OWNERS: [string, SetAttrRequest][] = [
  ['mode', { mode: 0o600 }],
  ['owner', { uid: 7 }],
  ['group', { gid: 7 }],
  ['mtime', { mtime: TIME }],
  ['atime', { atime: TIME, mtime: 'now' }],
];

describe('what is the owner’s to change', () => {
  for (const [what, change] of OWNERS)
    it(`${what}: not by one who owned it until another mount gave it away, though the kernel takes him for the owner`, async () => {
      const { one, two, ino } = await opened();
      await one.fs.setattr(caller(ALICE), ino, change);
      await two.fs.setattr(caller(), ino, { uid: BOB_UID });
      await refused(one.fs.setattr(caller(ALICE), ino, change));
      await one.fs.setattr(caller({ ...ALICE, uid: BOB_UID }), ino, change);
      await one.fs.setattr(caller(), ino, change);
    });

  it('an access list likewise', async () => {
    const { one, two, ino } = await opened();
    const list = encodeAcl([
      { tag: 1, permissions: 7, id: NO_ID },
      { tag: 4, permissions: 5, id: NO_ID },
      { tag: 32, permissions: 1, id: NO_ID },
    ]);
    const set = (who: Partial<Caller>): Promise<void> =>
      one.fs.setxattr(caller(who), ino, ACL_ACCESS, list, 0, false);
    await set(ALICE);
    await two.fs.setattr(caller(), ino, { uid: BOB_UID });
    await refused(set(ALICE));
    await refused(one.fs.removexattr(caller(ALICE), ino, ACL_ACCESS));
    await set({ ...ALICE, uid: BOB_UID });
  });

  it('but the present time may be set, and a size, by whom the kernel lets write', async () => {
    const { one, two, ino } = await opened();
    await two.fs.setattr(caller(), ino, { uid: BOB_UID });
    await one.fs.setattr(caller(ALICE), ino, { atime: 'now', mtime: 'now' });
    await one.fs.setattr(caller(ALICE), ino, { size: 3 });
  });

  it('and all of it of what another mount has removed, by who owned it: only this mount knows of it', async () => {
    const one = new TestMount();
    const made = await one.fs.mkdir(caller(ALICE), 1, Buffer.from('d'), 0o755, 0);
    const { ino } = made.attr;
    await one.fs.opendir(caller(ALICE), ino, 0);
    const two = one.second();
    await two.fs.rmdir(caller(), 1, Buffer.from('d'));
    for (const [, change] of OWNERS) await one.fs.setattr(caller(ALICE), ino, change);
    await refused(one.fs.setattr(caller({ ...ALICE, uid: BOB_UID }), ino, { mode: 0o700 }));
  });

  it('and by a process with the capability for it', async function () {
    if (process.getuid?.() !== 0) return this.skip();
    const { one, two, ino } = await opened();
    await two.fs.setattr(caller(), ino, { uid: BOB_UID });
    await one.fs.setattr(caller({ ...ALICE, pid: process.pid }), ino, { mode: 0o600, uid: BOB_UID });
  });
});
