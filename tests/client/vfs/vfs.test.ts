import assert from 'node:assert/strict';
import { LANE_DELAY_MS } from '../../../client/leases/change-lane.js';
import { HoldfastError } from '../../../proto/errors.js';
import { FLAG_IMMUTABLE } from '../../../proto/inode-flags.js';
import { S_IFIFO, S_IFMT, S_IFREG } from '../../../proto/types.js';
import { pattern } from '../support/data-harness.js';
import { settle } from '../support/manual-clock.js';
import { boundTo } from '../support/stand-in-kernel.js';
import { caller, TestMount } from '../support/test-mount.js';

const O_RDWR = 2;
const O_WRONLY = 1;
const O_CREAT_EXCL = 0o300;
const O_TRUNC = 0o1000;
const O_APPEND = 0o2000;
const O_DSYNC = 0o10000;
const name = (text: string): Buffer => Buffer.from(text);
const named = (wanted: string) => (error: unknown) =>
  error instanceof HoldfastError && error.errorName === wanted;

describe('files', () => {
  it('cost two round trips to create, write and close', async () => {
    const mount = new TestMount();
    const { handle } = await mount.create('f');
    await mount.write(handle, 0, pattern(4096, 1));
    await mount.close(handle);
    await mount.fs.fsyncdir(caller(), 1, 0, false);
    assert.deepEqual([mount.meta.calls, mount.meta.batches], [['makeNode'], [['commitWrite']]]);
    assert.equal(mount.chunks.writes.length, 1);
    await settle();
    assert.equal(mount.meta.opens.size, 0);
  });

  it('are complete elsewhere once they are closed', async () => {
    const one = new TestMount();
    const two = one.second();
    const { handle, ino } = await one.create('f');
    await one.write(handle, 0, pattern(100, 1));
    await one.close(handle);
    assert.deepEqual(await two.readFile('f'), pattern(100, 1));
    const rewritten = await two.open(ino, O_RDWR | O_TRUNC);
    await two.write(rewritten.handle, 0, pattern(50, 2));
    await two.close(rewritten.handle);
    assert.deepEqual(await one.readFile('f'), pattern(50, 2));
  });

  it('keep the pages of the kernel only while nobody else has changed them', async () => {
    const one = new TestMount();
    const two = one.second();
    const { handle, ino } = await one.create('f');
    await one.write(handle, 0, pattern(100, 1));
    await one.close(handle);
    const keeps = async (): Promise<boolean | undefined> => {
      const { handle: again, keepCache } = await one.open(ino, 0);
      await one.close(again);
      return keepCache;
    };
    assert.equal(await keeps(), true, 'after writing it here');
    const other = await two.open(ino, O_RDWR);
    assert.notEqual(other.keepCache, true);
    await two.write(other.handle, 0, pattern(100, 2));
    await two.close(other.handle);
    assert.notEqual(await keeps(), true, 'after a change elsewhere');
    assert.equal(await keeps(), true);
  });

  it('that are closed and written again while the first write-back goes on are never seen without the second', async () => {
    const mount = new TestMount();
    const first = await mount.create('f');
    await mount.write(first.handle, 0, pattern(100, 1));
    const release = mount.chunks.hold();
    await mount.close(first.handle);
    const second = await mount.open(first.ino, O_RDWR);
    await mount.write(second.handle, 0, pattern(300, 2));
    const closed = mount.close(second.handle);
    release();
    await closed;
    await mount.clock.advance(100);
    assert.deepEqual(await mount.readFile('f'), pattern(300, 2));
    await mount.clock.advance(2_000);
    assert.deepEqual(await mount.second().readFile('f'), pattern(300, 2));
  });

  it('go round the pages of a kernel that cannot be told, where it knows an old size', async () => {
    const one = new TestMount();
    const two = one.second();
    await one.fs.init({ ...boundTo(), notify: undefined });
    const { handle, ino } = await one.create('f');
    await one.close(handle);
    await two.fs.setattr(caller(), ino, { size: 5 });
    assert.equal((await one.open(ino, 0)).directIo, true);
  });

  it('show their own size and times while they are written', async () => {
    const mount = new TestMount();
    const { handle, ino } = await mount.create('f');
    await mount.write(handle, 5_000, pattern(1_000, 1));
    const { attr } = await mount.fs.getattr(caller(), ino, handle);
    assert.equal(attr.size, 6_000);
    assert.equal(attr.blocks, Math.ceil(1_000 / 512));
    assert.deepEqual(attr.mtime, mount.clock.wall());
    assert.deepEqual(mount.meta.calls, ['makeNode'], 'no server was asked');
  });

  it('let an append go to the end, several at a time', async () => {
    const mount = new TestMount();
    const { handle } = await mount.create('f', 0o644, O_WRONLY | O_APPEND | O_CREAT_EXCL);
    const lines = Array.from({ length: 50 }, (_, index) => pattern(10 + index, index));
    await Promise.all(lines.map((line) => mount.write(handle, 0, Buffer.from(line), O_APPEND)));
    await mount.close(handle);
    assert.deepEqual(await mount.readFile('f'), Buffer.concat(lines));
  });

  it('report ENOSPC once at close or fsync, and refuse further writes of that description once', async () => {
    const mount = new TestMount();
    const { handle, ino } = await mount.create('f');
    const { handle: other } = await mount.open(ino, O_WRONLY);
    mount.chunks.failWrite = () => new HoldfastError('ENOSPC');
    await mount.write(handle, 0, pattern(100, 1));
    await assert.rejects(mount.fs.fsync(caller(), ino, handle, false), named('ENOSPC'));
    await mount.fs.fsync(caller(), ino, handle, false);
    mount.chunks.failWrite = undefined;
    await assert.rejects(mount.write(other, 0, pattern(10, 2)), named('ENOSPC'));
    await mount.write(other, 0, pattern(10, 2));
    await mount.close(other);
    await mount.close(handle);
    assert.deepEqual(await mount.readFile('f'), pattern(10, 2));
  });

  it('are on disk when a write of an O_DSYNC description returns', async () => {
    const mount = new TestMount();
    const { handle } = await mount.create('f');
    await mount.write(handle, 0, pattern(100, 1), O_DSYNC);
    mount.chunks.crash();
    assert.deepEqual(await mount.second().readFile('f'), pattern(100, 1));
  });

  it('can be used after their last name is gone', async () => {
    const mount = new TestMount();
    const { handle, ino } = await mount.create('f', 0o644, O_RDWR);
    await mount.write(handle, 0, pattern(100, 1));
    await mount.fs.unlink(caller(), 1, name('f'));
    assert.equal((await mount.fs.getattr(caller(), ino, handle)).attr.nlink, 0);
    assert.deepEqual(await mount.read(handle, 0, 200), pattern(100, 1));
    assert.equal(mount.meta.opens.get(ino), 1);
    assert.deepEqual(mount.meta.announced, [ino], 'the server knows that it is open before its name is gone');
    await mount.close(handle);
    await mount.clock.advance(2 * LANE_DELAY_MS);
    assert.equal(mount.meta.opens.size, 0);
  });

  it('change their size, with and without a handle, and are zero behind a cut', async () => {
    const mount = new TestMount();
    const { handle, ino } = await mount.create('f', 0o644, O_RDWR);
    await mount.write(handle, 0, pattern(3_000_000, 1));
    const { attr } = await mount.fs.setattr(caller(), ino, { size: 10, handle });
    assert.equal(attr.size, 10);
    await mount.fs.setattr(caller(), ino, { size: 1_000, handle });
    await mount.close(handle);
    await mount.fs.setattr(caller(), ino, { size: 100 });
    assert.deepEqual(await mount.readFile('f'), Buffer.concat([pattern(10, 1), Buffer.alloc(90)]));
  });

  it('keep times set by utimes before the close', async () => {
    const mount = new TestMount();
    const { handle, ino } = await mount.create('f');
    await mount.write(handle, 0, pattern(10, 1));
    await mount.fs.setattr(caller(), ino, { mtime: { sec: -5, nsec: 7 }, handle });
    await mount.close(handle);
    const { attr } = await mount.second().fs.lookup(caller(), 1, name('f'));
    assert.deepEqual(attr.mtime, { sec: -5, nsec: 7 });
    assert.equal(attr.size, 10);
  });

  it('lose setuid when somebody without the right writes', async () => {
    const mount = new TestMount();
    const { handle, ino } = await mount.create('f', 0o6777);
    await mount.write(handle, 0, pattern(10, 1), 0, true);
    const mode = async (): Promise<number> => (await mount.fs.getattr(caller(), ino)).attr.mode & 0o7777;
    assert.equal(await mode(), 0o777);
    await mount.fs.setattr(caller(), ino, { mode: 0o6777 });
    const told: number[] = [];
    await mount.fs.init(boundTo({ invalidateInode: async (...call: number[]) => void told.push(...call) }));
    await mount.fs.open(caller(), ino, O_WRONLY | O_TRUNC, true);
    assert.equal(await mode(), 0o777);
    assert.deepEqual(told, [ino, -1, 0], 'the kernel learns of it');
  });

  it('zero a range and extend, as fallocate asks', async () => {
    const mount = new TestMount();
    const { handle, ino } = await mount.create('f', 0o644, O_RDWR);
    await mount.write(handle, 0, pattern(1_000, 1));
    const fallocate = (mode: number, offset: number, length: number) =>
      mount.fs.fallocate(caller(), ino, handle, mode, offset, length);
    await fallocate(3, 100, 200); // PUNCH_HOLE | KEEP_SIZE
    await fallocate(0x11, 990, 100); // ZERO_RANGE | KEEP_SIZE
    await fallocate(1, 5_000, 100);
    assert.equal((await mount.fs.getattr(caller(), ino)).attr.size, 1_000);
    await fallocate(0, 1_000, 24);
    await assert.rejects(fallocate(0x20, 0, 10), named('EOPNOTSUPP'));
    const expected = Buffer.concat([pattern(1_000, 1), Buffer.alloc(24)]);
    expected.fill(0, 100, 300).fill(0, 990);
    assert.deepEqual(await mount.read(handle, 0, 5_000), expected);
    assert.equal(await mount.fs.lseek(caller(), ino, handle, 10, 3), 10);
    assert.equal(await mount.fs.lseek(caller(), ino, handle, 10, 4), 1_024);
    await assert.rejects(mount.fs.lseek(caller(), ino, handle, 1_024, 3), named('ENXIO'));
  });

  it('that another made in between are opened only by whom their mode allows', async () => {
    const mount = new TestMount();
    const made = await mount.create('f', 0o600);
    await mount.close(made.handle);
    const create = (uid: number) =>
      mount.fs.create(caller({ uid, gid: uid }), 1, name('f'), 0o644, O_RDWR, 0);
    await assert.rejects(create(1000), named('EACCES'));
    assert.equal(mount.meta.opens.size, 0);
    assert.equal((await create(0)).entry.attr.mode & 0o7777, 0o600);
    await assert.rejects(mount.create('f', 0o644, O_CREAT_EXCL), named('EEXIST'));
  });

  it('are written back when the mount goes away', async () => {
    const mount = new TestMount();
    const { handle } = await mount.create('f');
    await mount.write(handle, 0, pattern(100, 1));
    await mount.fs.destroy();
    assert.deepEqual(await mount.second().readFile('f'), pattern(100, 1));
  });

  it('do not hold the unmount up for ever when the servers are away', async () => {
    const mount = new TestMount();
    const { handle } = await mount.create('f');
    await mount.write(handle, 0, pattern(100, 1));
    mount.chunks.hold();
    let ended = false;
    const destroyed = mount.fs.destroy().then(() => {
      ended = true;
    });
    await mount.clock.advance(1_000);
    assert.equal(ended, false);
    await mount.clock.advance(10_000);
    await destroyed;
  });
});

describe('a blocked call', () => {
  it('ends with EINTR when it is interrupted', async () => {
    const mount = new TestMount();
    const { handle, ino } = await mount.create('f');
    await mount.write(handle, 0, pattern(100, 1));
    const interrupt = new AbortController();
    const who = caller({ signal: interrupt.signal });
    const release = mount.chunks.hold();
    const releaseMeta = mount.meta.hold();
    const calls = [
      mount.fs.fsync(who, ino, handle, false),
      mount.fs.lookup(who, 1, name('x')),
      mount.fs.mkdir(who, 1, name('x'), 0o755, 0),
      mount.fs.setattr(who, ino, { size: 5, handle }),
    ];
    const refused = calls.map((call) => assert.rejects(call, named('EINTR')));
    await settle();
    interrupt.abort();
    await Promise.all(refused);
    release();
    releaseMeta();
    await mount.close(handle);
    assert.deepEqual(await mount.readFile('f'), pattern(5, 1), 'what had begun goes on to its end');
  });
});

describe('names', () => {
  it('carry the umask, the owner and the type', async () => {
    const mount = new TestMount();
    const who = caller({ uid: 7, gid: 8 });
    const dir = await mount.fs.mkdir(who, 1, name('d'), 0o777, 0o027);
    assert.deepEqual([dir.attr.mode & 0o7777, dir.attr.uid, dir.attr.gid], [0o750, 7, 8]);
    const fifo = await mount.fs.mknod(who, dir.attr.ino, name('p'), S_IFIFO | 0o666, 0, 0o022);
    assert.deepEqual([fifo.attr.mode & S_IFMT, fifo.attr.mode & 0o7777], [S_IFIFO, 0o644]);
    const plain = await mount.fs.mknod(who, 1, name('n'), 0o600, 0, 0);
    assert.equal(plain.attr.mode & S_IFMT, S_IFREG);
    const link = await mount.fs.symlink(who, 1, name('l'), name('to/there'));
    assert.equal((await mount.fs.readlink(who, link.attr.ino)).toString(), 'to/there');
    assert.equal(link.attr.size, 8);
  });

  it('of more than 255 bytes are refused everywhere', async () => {
    const mount = new TestMount();
    const long = Buffer.alloc(256, 'x');
    const { attr } = await mount.fs.mkdir(caller(), 1, name('d'), 0o755, 0);
    const calls = [
      mount.fs.lookup(caller(), 1, long),
      mount.fs.mkdir(caller(), 1, long, 0o755, 0),
      mount.fs.unlink(caller(), 1, long),
      mount.fs.rename(caller(), 1, name('d'), 1, long, 0),
      mount.fs.link(caller(), attr.ino, 1, long),
      mount.fs.create(caller(), 1, long, 0o644, O_RDWR, 0),
    ];
    for (const call of calls) await assert.rejects(call, named('ENAMETOOLONG'));
    await mount.fs.mkdir(caller(), 1, Buffer.alloc(255, 0xff), 0o755, 0);
  });

  it('of a file that is gone give ENOENT, its number ESTALE', async () => {
    const mount = new TestMount();
    await assert.rejects(mount.fs.lookup(caller(), 1, name('f')), named('ENOENT'));
    await assert.rejects(mount.fs.getattr(caller(), 999), named('ESTALE'));
    await assert.rejects(mount.fs.open(caller(), 999, 0), named('ESTALE'));
    assert.equal(mount.meta.opens.size, 0);
  });

  it('show new link counts at once after a change here', async () => {
    const mount = new TestMount();
    const { handle, ino } = await mount.create('f');
    await mount.close(handle);
    await mount.fs.link(caller(), ino, 1, name('g'));
    assert.equal((await mount.fs.getattr(caller(), ino)).attr.nlink, 2);
    await mount.fs.rename(caller(), 1, name('g'), 1, name('h'), 0);
    await mount.fs.unlink(caller(), 1, name('f'));
    assert.equal((await mount.fs.getattr(caller(), ino)).attr.nlink, 1);
    await assert.rejects(mount.fs.rename(caller(), 1, name('h'), 1, name('i'), 8), named('EINVAL'));
  });

  it('of a directory that was removed while open keep attributes that are set from then on', async () => {
    const mount = new TestMount();
    const { attr } = await mount.fs.mkdir(caller(), 1, name('d'), 0o755, 0);
    const { ino } = attr;
    await mount.fs.opendir(caller(), ino, 0);
    await mount.fs.rmdir(caller(), 1, name('d'));
    const [a, b] = [name('user.a'), name('user.b')];
    const set = (flags: number) => mount.fs.setxattr(caller(), ino, a, Buffer.from('v'), flags, false);
    assert.deepEqual(await mount.fs.listxattr(caller(), ino), []);
    await assert.rejects(set(2), named('ENODATA'));
    await set(0);
    await assert.rejects(set(1), named('EEXIST'));
    assert.equal(String(await mount.fs.getxattr(caller(), ino, a)), 'v');
    assert.equal(await mount.fs.getxattr(caller(), ino, b), undefined);
    assert.deepEqual((await mount.fs.listxattr(caller(), ino)).map(String), ['user.a']);
    await mount.fs.removexattr(caller(), ino, a);
    await assert.rejects(mount.fs.removexattr(caller(), ino, a), named('ENODATA'));
    assert.deepEqual(await mount.fs.listxattr(caller(), ino), []);
  });

  it('of a directory that another one replaces while it is open stay as they were', async () => {
    const mount = new TestMount();
    const { attr } = await mount.fs.mkdir(caller(), 1, name('d'), 0o750, 0);
    const { ino } = attr;
    await mount.fs.mkdir(caller(), 1, name('e'), 0o755, 0);
    await mount.fs.setxattr(caller(), ino, name('user.a'), Buffer.from('v'), 0, false);
    const { handle } = await mount.fs.opendir(caller(), ino, 0);
    await mount.fs.rename(caller(), 1, name('e'), 1, name('d'), 0);
    assert.equal(String(await mount.fs.getxattr(caller(), ino, name('user.a'))), 'v');
    await mount.fs.setattr(caller(), ino, { mode: 0o700 });
    const left = (await mount.fs.getattr(caller(), ino)).attr;
    assert.deepEqual({ mode: left.mode & 0o7777, nlink: left.nlink }, { mode: 0o700, nlink: 0 });
    mount.fs.releasedir(ino, handle);
  });

  it('of a directory in use that another mount removed are those that were known, and are changed here', async () => {
    const mount = new TestMount();
    const { ino } = (await mount.fs.mkdir(caller(), 1, name('d'), 0o750, 0)).attr;
    const { handle } = await mount.fs.opendir(caller(), ino, 0);
    await mount.second().fs.rmdir(caller(), 1, name('d'));
    await mount.clock.advance(1_000);
    const { attr } = await mount.fs.setattr(caller(), ino, { mode: 0o700, uid: 5 });
    assert.deepEqual([attr.mode & 0o7777, attr.uid, attr.nlink], [0o700, 5, 0]);
    assert.deepEqual((await mount.fs.getattr(caller(), ino)).attr.uid, 5);
    assert.equal(await mount.fs.getFlags(caller(), ino), 0);
    await mount.fs.setFlags(caller(), ino, FLAG_IMMUTABLE);
    assert.equal(await mount.fs.getFlags(caller(), ino), FLAG_IMMUTABLE);
    mount.fs.releasedir(ino, handle);
  });

  it('of a fifo in use that is removed are those that were known, and are changed here', async () => {
    const mount = new TestMount();
    for (const by of [mount, mount.second()]) {
      const { ino } = (await mount.fs.mknod(caller(), 1, name('p'), S_IFIFO | 0o600, 0, 0)).attr;
      await by.fs.unlink(caller(), 1, name('p'));
      await mount.clock.advance(1_000);
      const { attr } = await mount.fs.setattr(caller(), ino, { mode: 0o640, mtime: { sec: 7, nsec: 0 } });
      assert.deepEqual([attr.mode & 0o7777, attr.mtime.sec, attr.nlink], [0o640, 7, 0]);
      assert.equal((await mount.fs.getattr(caller(), ino)).attr.mode & 0o7777, 0o640);
    }
  });

  it('of an open directory that is not removed after all are those of the servers', async () => {
    const mount = new TestMount();
    const { attr } = await mount.fs.mkdir(caller(), 1, name('d'), 0o750, 0);
    await mount.fs.opendir(caller(), attr.ino, 0);
    await mount.fs.mkdir(caller(), attr.ino, name('in'), 0o755, 0);
    await assert.rejects(mount.fs.rmdir(caller(), 1, name('d')), named('ENOTEMPTY'));
    assert.equal((await mount.fs.getattr(caller(), attr.ino)).attr.nlink, 3);
  });

  it('let nobody but the owner take setuid away by a chown of nothing', async () => {
    const mount = new TestMount();
    const { attr } = await mount.fs.mknod(caller(), 1, name('f'), S_IFREG | 0o4755, 0, 0);
    const stranger = caller({ uid: 7, gid: 8 });
    await assert.rejects(mount.fs.setattr(stranger, attr.ino, {}), named('EPERM'));
    assert.equal((await mount.fs.getattr(caller(), attr.ino)).attr.mode & 0o7777, 0o4755);
    await mount.fs.setattr(caller(), attr.ino, {});
    assert.equal((await mount.fs.getattr(caller(), attr.ino)).attr.mode & 0o7777, 0o755);
    await mount.fs.setattr(stranger, attr.ino, {});
  });

  it('are refused on a read-only mount', async () => {
    const mount = new TestMount({ readOnly: true });
    await assert.rejects(mount.create('f'), named('EROFS'));
    await assert.rejects(mount.fs.mkdir(caller(), 1, name('d'), 0o755, 0), named('EROFS'));
    await assert.rejects(mount.fs.setattr(caller(), 1, { mode: 0 }), named('EROFS'));
  });
});

describe('directories', () => {
  async function list(mount: TestMount, max: number, plus: boolean): Promise<string[]> {
    const { handle } = await mount.fs.opendir(caller(), 1, 0);
    const found: string[] = [];
    for (let cookie = 0; ; ) {
      const entries = await mount.fs.readdir(caller(), 1, handle, cookie, max, plus);
      assert.ok(entries.length <= max);
      if (entries.length === 0) break;
      for (const entry of entries) found.push(entry.name.toString());
      cookie = entries.at(-1)?.cookie as number;
    }
    await mount.fs.releasedir(1, handle);
    return found;
  }

  it('list every name once, in pieces of any size, with few requests', async () => {
    const mount = new TestMount();
    const names = Array.from({ length: 300 }, (_, index) => `f${index}`);
    for (const one of names) await mount.fs.mkdir(caller(), 1, name(one), 0o755, 0);
    for (const max of [1, 7, 100, 1000]) {
      mount.meta.take();
      assert.deepEqual(await list(mount, max, max === 7), ['.', '..', ...names]);
      assert.ok(mount.meta.calls.length <= 11, `${mount.meta.calls.length} requests`);
    }
  });

  it('forget what they have fetched once a name is removed here', async () => {
    const mount = new TestMount();
    for (let index = 0; index < 20; index++) await mount.fs.mkdir(caller(), 1, name(`d${index}`), 0o755, 0);
    const { handle } = await mount.fs.opendir(caller(), 1, 0);
    const first = await mount.fs.readdir(caller(), 1, handle, 0, 10, true);
    await mount.fs.rmdir(caller(), 1, name('d15'));
    const rest = await mount.fs.readdir(caller(), 1, handle, first.at(-1)?.cookie as number, 100, true);
    const seen = [...first, ...rest].map((entry) => entry.name.toString());
    assert.equal(seen.length, 2 + 19);
    assert.ok(!seen.includes('d15'));
    assert.deepEqual(await mount.fs.readdir(caller(), 1, handle, 0, 2, false), first.slice(0, 2));
  });

  it('carry attributes with readdirplus, those of open files as they are here', async () => {
    const mount = new TestMount();
    const { handle: file } = await mount.create('f');
    await mount.write(file, 0, pattern(77, 1));
    const { handle } = await mount.fs.opendir(caller(), 1, 0);
    const entries = await mount.fs.readdir(caller(), 1, handle, 0, 100, true);
    assert.deepEqual(
      entries.map((entry) => entry.entry?.attr.size),
      [undefined, undefined, 77],
    );
  });
});
