import assert from 'node:assert/strict';
import { HoldfastError } from '../../../proto/errors.js';
import { settle } from '../support/manual-clock.js';
import { caller, TestMount } from '../support/test-mount.js';

const name = (text: string): Buffer => Buffer.from(text);
const named = (wanted: string) => (error: unknown) =>
  error instanceof HoldfastError && error.errorName === wanted;

describe('extended attributes', () => {
  it('are kept, listed and removed; of those of the system, access control lists alone', async () => {
    const mount = new TestMount();
    const user = name('user.a');
    await mount.fs.setxattr(caller(), 1, user, name('v'), 0);
    assert.equal(String(await mount.fs.getxattr(caller(), 1, user)), 'v');
    assert.deepEqual(await mount.fs.listxattr(caller(), 1), [user]);
    await mount.fs.removexattr(caller(), 1, user);
    assert.equal(await mount.fs.getxattr(caller(), 1, user), undefined);
    const acl = name('system.posix_acl_access');
    assert.equal(await mount.fs.getxattr(caller(), 1, acl), undefined);
    await assert.rejects(mount.fs.getxattr(caller(), 1, name('system.other')), named('EOPNOTSUPP'));
    await assert.rejects(mount.fs.setxattr(caller(), 1, user, Buffer.alloc(70_000), 0), named('E2BIG'));
  });

  it('that SELinux labels would be in are not supported, and ask no server', async () => {
    const mount = new TestMount();
    const { handle, ino } = await mount.create('f');
    // As a build that kept them has left one.
    const label = name('security.selinux');
    const value = { ino, name: label, value: name('l'), flags: 0, killSgid: false };
    await mount.meta.mutate({ $case: 'setXattr', value });
    await mount.fs.setxattr(caller(), ino, name('security.other'), name('v'), 0);
    mount.meta.take();
    await assert.rejects(mount.fs.getxattr(caller(), ino, label), named('EOPNOTSUPP'));
    await assert.rejects(mount.fs.setxattr(caller(), ino, label, name('v'), 0), named('EOPNOTSUPP'));
    await assert.rejects(mount.fs.removexattr(caller(), ino, label), named('EOPNOTSUPP'));
    assert.deepEqual(mount.meta.take(), []);
    assert.deepEqual(await mount.fs.listxattr(caller(), ino), [name('security.other')]);
    await mount.close(handle);
  });

  it('that the kernel asks for before a write cost nothing where there are none', async () => {
    const mount = new TestMount();
    const { handle, ino } = await mount.create('f');
    mount.meta.take();
    const capability = name('security.capability');
    assert.equal(await mount.fs.getxattr(caller(), ino, capability), undefined);
    assert.deepEqual(mount.meta.take(), []);
    await mount.close(handle);
  });

  it('that were asked for before a change made here are not believed when they arrive behind it', async () => {
    const one = new TestMount();
    const two = one.second();
    const [user, other] = [name('user.a'), name('user.b')];
    const { ino, handle } = await one.create('f');
    await one.close(handle);
    await one.fs.setxattr(caller(), ino, user, name('v'), 0);
    await two.fs.lookup(caller(), 1, name('f'));
    const arrive = two.meta.holdAnswers();
    const asked = Promise.all([two.fs.getxattr(caller(), ino, user), two.fs.listxattr(caller(), ino)]);
    await settle();
    await two.fs.setxattr(caller(), ino, user, name('w'), 0);
    await two.fs.setxattr(caller(), ino, other, name('w'), 0);
    arrive();
    await asked;
    assert.equal(String(await two.fs.getxattr(caller(), ino, user)), 'w');
    assert.deepEqual(await two.fs.listxattr(caller(), ino), [user, other]);
  });

  it('are asked for once while they are leased, absent ones too', async () => {
    const one = new TestMount();
    const two = one.second();
    const user = name('user.a');
    await one.readFile('f').catch(() => undefined);
    const { ino, handle } = await one.create('f');
    await one.close(handle);
    await one.fs.setxattr(caller(), ino, user, name('v'), 0);
    await two.fs.lookup(caller(), 1, name('f'));
    two.meta.take();
    for (let round = 0; round < 3; round++) {
      assert.equal(String(await two.fs.getxattr(caller(), ino, user)), 'v');
      assert.equal(await two.fs.getxattr(caller(), ino, name('user.b')), undefined);
      assert.deepEqual(await two.fs.listxattr(caller(), ino), [user]);
    }
    assert.deepEqual(two.meta.take(), ['getXattr', 'getXattr', 'listXattr']);
    await one.fs.setxattr(caller(), ino, user, name('w'), 0);
    assert.equal(String(await two.fs.getxattr(caller(), ino, user)), 'w');
  });
});
