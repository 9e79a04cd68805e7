import assert from 'node:assert/strict';
import type { Caller } from '../../../client/fuse/binding.js';
import { HoldfastError } from '../../../proto/errors.js';
import { FLAG_APPEND, FLAG_IMMUTABLE, FLAG_NOATIME, FLAG_NODUMP } from '../../../proto/inode-flags.js';
import { caller, TestMount } from '../support/test-mount.js';

const O_WRONLY = 1;
const O_RDWR = 2;
const O_TRUNC = 0o1000;
const O_APPEND = 0o2000;
const PUNCH_HOLE = 3;
const ALICE: Partial<Caller> = { uid: 7, gid: 7 };

const BINDING = { kind: 'kernel' as const, maxWrite: 1, callerIdentity: true, nanoseconds: true };
const NOTIFIER = {
  invalidateInode: async () => {},
  expireEntry: async () => {},
  forgetNames: () => true,
  invalidateEntry: async () => {},
  deleteEntry: async () => {},
};

const name = (text: string): Buffer => Buffer.from(text);
const refused = (call: Promise<unknown>, error = 'EPERM'): Promise<void> =>
  assert.rejects(call, (failure) => failure instanceof HoldfastError && failure.errorName === error);

/** Two mounts, and a file of 10 bytes that is open for writing on the first. */
async function opened(): Promise<{ one: TestMount; two: TestMount; ino: number; handle: number }> {
  const one = new TestMount();
  const { ino, handle } = await one.create('f', 0o666);
  await one.write(handle, 0, Buffer.from('0123456789'));
  return { one, two: one.second(), ino, handle };
}

async function set(mount: TestMount, ino: number, flags: number): Promise<void> {
  await mount.fs.setFlags(caller(), ino, flags);
}

describe('flags of inodes', () => {
  it('are set by request, and known without one while they are leased', async () => {
    const { one, two, ino } = await opened();
    assert.equal(await one.fs.getFlags(caller(), ino), 0);
    await set(one, ino, FLAG_NODUMP);
    one.meta.take();
    assert.equal(await one.fs.getFlags(caller(), ino), FLAG_NODUMP);
    assert.deepEqual(one.meta.take(), []);
    await two.fs.lookup(caller(), 1, name('f'));
    two.meta.take();
    assert.equal(await two.fs.getFlags(caller(), ino), FLAG_NODUMP);
    assert.deepEqual(two.meta.take(), []);
    await refused(two.fs.setFlags(caller(ALICE), ino, 0));
    await refused(two.fs.setFlags(caller(), ino, 1), 'EOPNOTSUPP');
  });

  it('keep what was written and not yet sent from a truncate that the servers refuse', async () => {
    const { one, ino, handle } = await opened();
    await set(one, ino, FLAG_APPEND);
    await refused(one.fs.unlink(caller(), 1, name('f')));
    await refused(one.fs.setattr(caller(), ino, { size: 4, handle }));
    assert.equal(String(await one.read(handle, 0, 20)), '0123456789');
  });

  it('of an immutable file that was set on another mount holds at once, for what is open too', async () => {
    for (const setter of ['one', 'two'] as const) {
      const mounts = await opened();
      const { one, two, ino, handle } = mounts;
      const other = (await two.open(ino, O_RDWR)).handle;
      await one.write(handle, 2, Buffer.from('x'));
      await set(mounts[setter], ino, FLAG_IMMUTABLE);
      for (const [mount, descriptor] of [
        [one, handle],
        [two, other],
      ] as const) {
        await refused(mount.write(descriptor, 0, Buffer.from('no')));
        await refused(mount.write(descriptor, 0, Buffer.from('no'), O_APPEND));
        await refused(mount.fs.setattr(caller(), ino, { size: 3, handle: descriptor }));
        await refused(mount.fs.setattr(caller(), ino, { size: 30 }));
        await refused(mount.fs.fallocate(caller(), ino, descriptor, 0, 0, 30));
        await refused(mount.fs.fallocate(caller(), ino, descriptor, PUNCH_HOLE, 0, 3));
        const place = { ino, handle: descriptor, offset: 0 };
        await refused(mount.fs.copyFileRange(caller(), place, { ...place, offset: 20 }, 5));
        for (const flags of [O_WRONLY, O_RDWR, O_WRONLY | O_APPEND, O_TRUNC])
          await refused(mount.open(ino, flags));
        await mount.fs.fsync(caller(), ino, descriptor, false);
      }
      for (const mount of [one, two])
        assert.equal((await mount.readFile('f')).toString(), '01x3456789', setter);
      await set(two, ino, 0);
      await one.write(handle, 0, Buffer.from('y'));
    }
  });

  it('what was written before a file was made immutable stays', async () => {
    const { one, two, ino, handle } = await opened();
    await set(one, ino, FLAG_IMMUTABLE);
    await one.close(handle);
    assert.equal((await two.readFile('f')).toString(), '0123456789');
    assert.equal((await two.fs.getattr(caller(), ino)).attr.size, 10);
  });

  it('a truncate that is refused loses nothing', async () => {
    const { one, ino, handle } = await opened();
    await set(one, ino, FLAG_APPEND);
    await one.write(handle, 10, Buffer.from('abc'));
    await refused(one.fs.setattr(caller(), ino, { size: 0, handle }));
    await refused(one.open(ino, O_WRONLY | O_APPEND | O_TRUNC));
    assert.equal((await one.readFile('f')).toString(), '0123456789abc');
    await one.close(handle);
    assert.equal((await one.second().readFile('f')).toString(), '0123456789abc');
  });

  it('an append-only file is written anywhere through descriptors of before alone', async () => {
    const { one, two, ino, handle } = await opened();
    await set(two, ino, FLAG_APPEND);
    const appending = (await two.open(ino, O_RDWR | O_APPEND)).handle;
    await two.write(appending, 0, Buffer.from('+'), O_APPEND);
    await refused(two.write(appending, 0, Buffer.from('no')));
    await refused(two.open(ino, O_RDWR));
    await one.write(handle, 0, Buffer.from('X'));
    await refused(one.fs.fallocate(caller(), ino, handle, PUNCH_HOLE, 0, 3));
    await one.fs.fallocate(caller(), ino, handle, 0, 0, 5);
    await one.fs.fallocate(caller(), ino, handle, 0, 0, 12);
    assert.equal((await two.readFile('f')).toString(), 'X123456789+\0');
  });

  it('pages of a mapping are written while a description is open that may write there', async () => {
    const { one, ino, handle } = await opened();
    const page = (data: string): Promise<number> =>
      one.fs.write(caller(), ino, {
        ...{ handle: pages, offset: 0, data: Buffer.from(data), fromCache: true, killPriv: false },
        flags: O_RDWR,
      });
    let pages = handle;
    await set(one, ino, FLAG_APPEND);
    const appending = (await one.open(ino, O_RDWR | O_APPEND)).handle;
    pages = appending;
    await page('abc');
    await one.close(handle);
    await refused(page('xyz'));
    await set(one, ino, FLAG_IMMUTABLE);
    await refused(page('xyz'));
    assert.equal((await one.readFile('f')).toString(), 'abc3456789');
  });

  it('a directory that is changed ahead gives back its changes first, and is left to the servers then', async () => {
    const one = new TestMount();
    await one.close((await one.create('first')).handle);
    const dir = (await one.fs.mkdir(caller(), 1, name('d'), 0o755, 0)).attr.ino;
    for (const file of ['a', 'b', 'c'])
      await one.close((await one.fs.create(caller(), dir, name(file), 0o644, O_RDWR, 0)).handle);
    const two = one.second();
    for (const setter of [one, two]) {
      await set(setter, dir, FLAG_IMMUTABLE);
      for (const mount of [one, two]) {
        await refused(mount.fs.unlink(caller(), dir, name('a')));
        await refused(mount.fs.rename(caller(), dir, name('a'), 1, name('a'), 0));
        await refused(mount.fs.mkdir(caller(), dir, name('n'), 0o755, 0));
        await refused(mount.fs.create(caller(), dir, name('n'), 0o644, O_RDWR, 0));
        await refused(mount.fs.tmpfile(caller(), dir, 0o644, O_RDWR, 0));
        await refused(mount.fs.rmdir(caller(), 1, name('d')));
        await mount.fs.lookup(caller(), dir, name('a'));
        await refused(mount.fs.lookup(caller(), dir, name('n')), 'ENOENT');
        const { handle } = await mount.fs.create(caller(), dir, name('b'), 0o644, O_RDWR, 0);
        await mount.close(handle);
      }
      await set(setter, dir, FLAG_APPEND);
      for (const mount of [one, two]) await refused(mount.fs.unlink(caller(), dir, name('a')));
      await set(setter, dir, 0);
    }
    await one.fs.unlink(caller(), dir, name('a'));
  });

  it('files of a directory that is changed ahead are minded', async () => {
    const one = new TestMount();
    await one.close((await one.create('first')).handle);
    const dir = (await one.fs.mkdir(caller(), 1, name('d'), 0o755, 0)).attr.ino;
    const made = async (file: string): Promise<number> => {
      const reply = await one.fs.create(caller(), dir, name(file), 0o644, O_RDWR, 0);
      await one.close(reply.handle);
      return reply.entry.attr.ino;
    };
    const [a] = [await made('a'), await made('b'), await made('c')];
    await set(one, a, FLAG_IMMUTABLE);
    await refused(one.fs.unlink(caller(), dir, name('a')));
    await refused(one.fs.rename(caller(), dir, name('a'), dir, name('z'), 0));
    await refused(one.fs.rename(caller(), dir, name('b'), dir, name('a'), 0));
    await refused(one.fs.link(caller(), a, dir, name('z')));
    await refused(one.fs.setattr(caller(), a, { mode: 0o600 }));
    await refused(one.fs.setattr(caller(), a, { mtime: 'now', atime: 'now' }));
    await refused(one.fs.setxattr(caller(), a, name('user.a'), name('v'), 0));
    await refused(one.fs.removexattr(caller(), a, name('other.a')));
    await refused(one.fs.setxattr(caller(), a, name('system.posix_acl_access'), name('no list'), 0));
    await one.fs.rename(caller(), dir, name('b'), dir, name('c'), 0);
    await one.fs.unlink(caller(), dir, name('c'));
  });

  it('an immutable directory is not asked for again and again', async () => {
    const one = new TestMount();
    const dir = (await one.fs.mkdir(caller(), 1, name('d'), 0o755, 0)).attr.ino;
    await set(one, dir, FLAG_IMMUTABLE);
    one.meta.take();
    for (let i = 0; i < 20; i++) await refused(one.fs.mkdir(caller(), dir, name(`n${i}`), 0o755, 0));
    assert.deepEqual(new Set(one.meta.take()), new Set(['makeNode']));
  });

  it('go to what is made ahead in a directory', async () => {
    const one = new TestMount();
    await one.close((await one.create('first')).handle);
    const dir = (await one.fs.mkdir(caller(), 1, name('d'), 0o755, 0)).attr.ino;
    await set(one, dir, FLAG_NOATIME | FLAG_NODUMP);
    for (let i = 0; i < 4; i++) {
      const { attr } = await one.fs.mkdir(caller(), dir, name(`n${i}`), 0o755, 0);
      assert.equal(await one.fs.getFlags(caller(), attr.ino), FLAG_NOATIME | FLAG_NODUMP);
    }
  });

  it('who meets an immutable file that another mount made just now may not write to it', async () => {
    const one = new TestMount();
    const two = one.second();
    await refused(two.fs.lookup(caller(), 1, name('f')), 'ENOENT');
    const { ino, handle } = await one.create('f', 0o666);
    await one.close(handle);
    await set(one, ino, FLAG_IMMUTABLE);
    await refused(two.fs.create(caller(), 1, name('f'), 0o644, O_RDWR, 0));
    await two.close((await two.fs.create(caller(), 1, name('f'), 0o644, 0, 0)).handle);
  });

  it('an open that the kernel makes to ask for them does not tell it what to keep, nor what it has kept', async () => {
    const { one, ino, handle } = await opened();
    await one.close(handle);
    const two = one.second();
    await two.fs.init({ ...BINDING, notify: NOTIFIER });
    const unread = await two.fs.open(caller(), ino, 0, false, true);
    const reader = await two.open(ino, 0);
    const again = await two.open(ino, 0);
    assert.deepEqual([unread.keepCache, reader.keepCache, again.keepCache], [undefined, false, true]);
    for (const open of [unread, reader, again]) await two.fs.release(ino, open.handle, 0);
    const directory = await two.fs.opendir(caller(), 1, 0, true);
    assert.deepEqual(directory, { handle: directory.handle });
  });

  it('the kernel is told of the new ctime, and to give up pages that it has of what may not be written', async () => {
    const { one, ino, handle } = await opened();
    const told: unknown[] = [];
    const notify = {
      ...NOTIFIER,
      invalidateInode: async (...call: number[]) => void told.push(call),
      expireAttr: (expired: number) => void told.push(expired),
    };
    await one.fs.init({ ...BINDING, notify });
    await set(one, ino, FLAG_APPEND);
    assert.deepEqual(told.splice(0), [ino]);
    await set(one, ino, FLAG_IMMUTABLE);
    assert.deepEqual(told.splice(0), [[ino, 0, 0], ino]);
    const data = { handle, offset: 0, data: Buffer.from('no'), fromCache: true, killPriv: false, flags: 0 };
    await refused(one.fs.write(caller(), ino, data));
    await one.fs.getattr(caller(), ino);
    assert.deepEqual(told, [ino, [ino, 0, 0]]);
  });
});
