import assert from 'node:assert/strict';
import {
  WRITE_BEHIND_BYTES_MAX,
  WRITE_BEHIND_DELAY_MS,
  WRITE_BEHIND_FILES_MAX,
} from '../../../client/vfs/write-behind.js';
import { pattern } from '../support/data-harness.js';
import { settle } from '../support/manual-clock.js';
import { caller, TestMount } from '../support/test-mount.js';

const O_RDWR = 2;

/** A mount that has its root directory to itself. */
async function alone(): Promise<TestMount> {
  const mount = new TestMount();
  for (const name of ['first', 'second']) await mount.close((await mount.create(name)).handle);
  await mount.clock.advance(1_000);
  mount.chunks.writes.splice(0);
  return mount;
}

async function writeFile(mount: TestMount, name: string, bytes: number): Promise<number> {
  const { handle, ino } = await mount.create(name, 0o644, O_RDWR);
  await mount.write(handle, 0, pattern(bytes, 1));
  await mount.close(handle);
  return ino;
}

describe('files that are closed', () => {
  it('are written together a moment later', async () => {
    const mount = await alone();
    for (const name of ['a', 'b', 'c']) await writeFile(mount, name, 100);
    assert.equal(mount.chunks.writes.length, 0);
    await mount.clock.advance(WRITE_BEHIND_DELAY_MS);
    assert.equal(mount.chunks.writes.length, 3);
  });

  it('leave at once when there are many of them, or much in them', async () => {
    const mount = await alone();
    for (let i = 1; i < WRITE_BEHIND_FILES_MAX; i++) await writeFile(mount, `f${i}`, 10);
    assert.equal(mount.chunks.writes.length, 0);
    await writeFile(mount, 'last', 10);
    await mount.clock.advance(0);
    assert.equal(mount.chunks.writes.length, WRITE_BEHIND_FILES_MAX);
    mount.chunks.writes.splice(0);
    const large = 512 * 1024;
    for (let bytes = 0; bytes < WRITE_BEHIND_BYTES_MAX; bytes += large)
      await writeFile(mount, `l${bytes}`, large);
    await mount.clock.advance(0);
    assert.equal(mount.chunks.writes.length, WRITE_BEHIND_BYTES_MAX / large);
  });

  it('hold up no truncate during which they were closed', async () => {
    const mount = await alone();
    const { handle, ino } = await mount.create('f');
    const { handle: other } = await mount.open(ino, O_RDWR);
    await mount.write(handle, 0, pattern(100, 1));
    await mount.fs.fsync(caller(), ino, handle, false);
    await mount.write(handle, 50, pattern(50, 2));
    const release = mount.chunks.hold();
    const synced = mount.fs.fsync(caller(), ino, handle, false);
    await settle();
    const cut = mount.fs.setattr(caller(), ino, { size: 10, handle, killPriv: false });
    await settle();
    await mount.close(other);
    release();
    assert.equal((await cut).attr.size, 10);
    await synced;
    assert.deepEqual(await mount.read(handle, 0, 100), pattern(100, 1).subarray(0, 10));
  });

  it('leave at once when somebody waits: an fsync of the directory, another mount', async () => {
    const mount = await alone();
    await writeFile(mount, 'a', 100);
    await mount.fs.fsyncdir(caller(), 1, 0, false);
    assert.equal(mount.chunks.writes.length, 1);
    await writeFile(mount, 'b', 200);
    assert.deepEqual(await mount.second().readFile('b'), pattern(200, 1));
  });

  it('closed again while they are written keep their place: what is changed later waits for the second writing, too', async () => {
    const mount = await alone();
    const ino = await writeFile(mount, 'a', 100);
    await mount.fs.fsyncdir(caller(), 1, 0, false);
    mount.meta.batches.splice(0);
    const append = async (from: number): Promise<void> => {
      const { handle } = await mount.open(ino, O_RDWR);
      await mount.write(handle, from, pattern(100, 2));
      await mount.close(handle);
    };
    await append(100);
    const release = mount.chunks.hold();
    await mount.clock.advance(WRITE_BEHIND_DELAY_MS);
    await append(200);
    await writeFile(mount, 'b', 0);
    release();
    await mount.clock.advance(1_000);
    assert.deepEqual(mount.meta.batches.flat(), ['commitWrite', 'commitWrite', 'makeNode']);
  });

  it('whose times are set then have those of what is written after that', async () => {
    const mount = await alone();
    const { handle, ino } = await mount.create('a', 0o644, O_RDWR);
    const { handle: other } = await mount.open(ino, O_RDWR);
    await mount.write(other, 0, pattern(100, 1));
    await mount.close(other);
    await mount.fs.setattr(caller(), ino, { mtime: { sec: -5, nsec: 1 } });
    await mount.clock.advance(1);
    await mount.write(handle, 0, pattern(10, 2));
    const written = (await mount.fs.getattr(caller(), ino)).attr.mtime;
    assert.notEqual(written.sec, -5);
    const seen = await mount.second().fs.lookup(caller(), 1, Buffer.from('a'));
    assert.deepEqual(seen.attr.mtime, written);
    await mount.clock.advance(1_000);
    assert.deepEqual((await mount.fs.getattr(caller(), ino)).attr.mtime, written);
  });

  it('again while they are written have the time of what is written last, though times were set before', async () => {
    const mount = await alone();
    const ino = await writeFile(mount, 'a', 100);
    await mount.fs.fsyncdir(caller(), 1, 0, false);
    const { handle } = await mount.open(ino, O_RDWR);
    const appended = async (from: number): Promise<void> => {
      const other = await mount.open(ino, O_RDWR);
      await mount.write(other.handle, from, pattern(100, 2));
      await mount.close(other.handle);
    };
    await appended(100);
    const release = mount.chunks.hold();
    await mount.clock.advance(WRITE_BEHIND_DELAY_MS);
    await mount.fs.setattr(caller(), ino, { mtime: { sec: -5, nsec: 1 } });
    await mount.write(handle, 0, pattern(10, 3));
    await appended(200);
    release();
    const written = (await mount.fs.getattr(caller(), ino)).attr.mtime;
    const seen = await mount.second().fs.lookup(caller(), 1, Buffer.from('a'));
    assert.deepEqual([seen.attr.mtime, seen.attr.size], [written, 300]);
    await mount.clock.advance(1_000);
    const { attr } = await mount.second().fs.lookup(caller(), 1, Buffer.from('a'));
    assert.deepEqual([attr.mtime, attr.size], [written, 300]);
  });

  it('keep the mode, owner and times that are set then, when another mount looks at them', async () => {
    const mount = await alone();
    const ino = await writeFile(mount, 'a', 100);
    await mount.fs.fsyncdir(caller(), 1, 0, false);
    const { handle } = await mount.open(ino, O_RDWR);
    await mount.write(handle, 100, pattern(100, 2));
    await mount.close(handle);
    const set = { mode: 0o600, uid: 5, mtime: { sec: 7, nsec: 0 } };
    await mount.fs.setattr(caller(), ino, set);
    await mount.second().fs.lookup(caller(), 1, Buffer.from('a'));
    const { attr } = await mount.fs.lookup(caller(), 1, Buffer.from('a'));
    const { mode, uid, mtime, size } = attr;
    assert.deepEqual({ mode: mode & 0o7777, uid, mtime, size }, { ...set, size: 200 });
  });

  it('have their extended attributes while the commit is on its way', async () => {
    const mount = await alone();
    const ino = await writeFile(mount, 'a', 100);
    await mount.fs.fsyncdir(caller(), 1, 0, false);
    const { handle } = await mount.open(ino, O_RDWR);
    await mount.write(handle, 0, pattern(10, 2));
    const { meta } = mount;
    const send = meta.mutateBatch.bind(meta);
    const listed: Promise<Buffer[]>[] = [];
    meta.mutateBatch = (changes) => {
      listed.push(mount.fs.listxattr(caller(), ino));
      return send(changes);
    };
    await mount.fs.setxattr(caller(), ino, Buffer.from('user.a'), Buffer.from('v'), 0, false);
    await mount.close(handle);
    await mount.fs.fsyncdir(caller(), 1, 0, false);
    assert.equal(listed.length, 1);
    assert.deepEqual((await Promise.all(listed)).flat().map(String), ['user.a']);
  });

  it('closed again before they were written are written once', async () => {
    const mount = await alone();
    const ino = await writeFile(mount, 'a', 100);
    const { handle } = await mount.open(ino, O_RDWR);
    await mount.write(handle, 100, pattern(100, 2));
    await mount.close(handle);
    await mount.clock.advance(WRITE_BEHIND_DELAY_MS);
    assert.equal(mount.chunks.writes.length, 1);
    const expected = Buffer.concat([pattern(100, 1), pattern(100, 2)]);
    assert.deepEqual(await mount.second().readFile('a'), expected);
  });
});
