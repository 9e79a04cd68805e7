import assert from 'node:assert/strict';
import type { Agent, Attributes } from '../agent.js';
import { ALICE, type Bench, touchedTimes } from '../bench.js';

const NOREPLACE = 1;
const EXCHANGE = 2;

const KINDS: { type: Attributes['type']; make(agent: Agent, path: string): Promise<unknown> }[] = [
  { type: 'file', make: (agent, path) => agent.file(path, path) },
  { type: 'dir', make: (agent, path) => agent.ok('mkdir', path) },
  { type: 'symlink', make: (agent, path) => agent.ok('symlink', 'nowhere', path) },
  { type: 'fifo', make: (agent, path) => agent.ok('mkfifo', path) },
];

/** rename(2) and renameat2(2). */
export function renameCases(bench: Bench): void {
  describe('rename', () => {
    for (const { type, make } of KINDS) {
      it(`${type}: moves the inode; its ctime changes, and mtime and ctime of both directories`, async () => {
        await bench.root.ok('mkdir', 'a');
        await bench.root.ok('mkdir', 'b');
        await make(bench.root, 'a/x');
        const before = await bench.root.lstat('a/x');
        const move = () => bench.root.ok('rename', 'a/x', 'b/y');
        const both = await touchedTimes(bench.root, 'a', async () => {
          assert.equal(await touchedTimes(bench.root, 'b', move), 'mtime ctime');
        });
        assert.equal(both, 'mtime ctime');
        const after = await bench.root.lstat('b/y');
        assert.deepEqual({ ...after, ctime: before.ctime }, before);
        assert.notEqual(after.ctime, before.ctime);
        await bench.root.fails('ENOENT', 'lstat', 'a/x');
      });

      for (const target of KINDS) {
        const directories = Number(type === 'dir') - Number(target.type === 'dir');
        const outcome = directories === 0 ? 'replaces' : directories > 0 ? 'ENOTDIR' : 'EISDIR';
        it(`${type} onto ${target.type}: ${outcome}`, async () => {
          await make(bench.root, 'from');
          await target.make(bench.root, 'to');
          const [from, to] = [await bench.root.lstat('from'), await bench.root.lstat('to')];
          if (directories !== 0) {
            await bench.root.fails(outcome, 'rename', 'from', 'to');
            assert.deepEqual([await bench.root.lstat('from'), await bench.root.lstat('to')], [from, to]);
            return;
          }
          await bench.root.ok('rename', 'from', 'to');
          await bench.root.fails('ENOENT', 'lstat', 'from');
          assert.equal((await bench.root.lstat('to')).ino, from.ino);
        });
      }
    }

    it('a replaced file that has another name loses a link and gets a new ctime', async () => {
      await bench.root.file('from');
      await bench.root.file('to');
      await bench.root.ok('link', 'to', 'kept');
      const touched = await touchedTimes(bench.root, 'kept', () => bench.root.ok('rename', 'from', 'to'));
      assert.equal(touched, 'ctime');
      assert.equal((await bench.root.stat('kept')).nlink, 1);
    });

    it('two names of one file: nothing happens', async () => {
      await bench.root.file('a');
      await bench.root.ok('link', 'a', 'b');
      const touched = await touchedTimes(bench.root, 'a', () => bench.root.ok('rename', 'a', 'b'));
      assert.equal(touched, '');
      assert.equal((await bench.root.stat('b')).nlink, 2);
      await bench.root.ok('rename', 'a', 'a');
    });

    it('a directory between parents: link counts and ".." follow', async () => {
      await bench.root.ok('mkdir', 'a');
      await bench.root.ok('mkdir', 'b');
      await bench.root.ok('mkdir', 'a/d');
      await bench.root.ok('rename', 'a/d', 'b/d');
      assert.deepEqual([(await bench.root.stat('a')).nlink, (await bench.root.stat('b')).nlink], [2, 3]);
      assert.equal((await bench.root.stat('b/d/..')).ino, (await bench.root.stat('b')).ino);
      await bench.root.ok('mkdir', 'a/d');
      await bench.root.ok('rename', 'b/d', 'a/d');
      assert.deepEqual([(await bench.root.stat('a')).nlink, (await bench.root.stat('b')).nlink], [3, 2]);
    });

    it('onto a directory that is not empty: ENOTEMPTY; the source may be full', async () => {
      await bench.root.ok('mkdir', 'from');
      await bench.root.file('from/x', 'x');
      await bench.root.ok('mkdir', 'to');
      await bench.root.file('to/y');
      await bench.root.fails(['ENOTEMPTY', 'EEXIST'], 'rename', 'from', 'to');
      await bench.root.ok('unlink', 'to/y');
      await bench.root.ok('rename', 'from', 'to');
      assert.equal(await bench.root.ok('readAll', 'to/x'), 'x');
    });

    it('a directory into itself or below: EINVAL; an ancestor as the target: ENOTEMPTY', async () => {
      await bench.root.ok('mkdir', 'a');
      await bench.root.ok('mkdir', 'a/b');
      await bench.root.ok('mkdir', 'a/b/c');
      await bench.root.fails('EINVAL', 'rename', 'a', 'a/x');
      await bench.root.fails('EINVAL', 'rename', 'a', 'a/b/x');
      await bench.root.fails('EINVAL', 'rename', 'a', 'a/b/c');
      await bench.root.fails('ENOTEMPTY', 'rename', 'a/b/c', 'a');
      await bench.root.fails('ENOTEMPTY', 'rename', 'a/b/c', 'a/b');
      await bench.root.ok('rename', 'a/b', 'a/b');
    });

    it('"." and ".." as the last component: EBUSY or EINVAL', async () => {
      await bench.root.ok('mkdir', 'a');
      for (const name of ['a/.', 'a/..', '.', '..']) {
        await bench.root.fails(['EBUSY', 'EINVAL'], 'rename', name, 'b');
        await bench.root.fails(['EBUSY', 'EINVAL', 'ENOTEMPTY'], 'rename', 'a', name);
      }
    });

    it('needs write permission on both directories, and on a directory whose ".." changes', async () => {
      await bench.root.ok('mkdir', 'mine', 0o777);
      await bench.root.ok('mkdir', 'closed', 0o755);
      await bench.alice.file('mine/f');
      await bench.root.file('closed/g');
      await bench.alice.fails('EACCES', 'rename', 'mine/f', 'closed/f');
      await bench.alice.fails('EACCES', 'rename', 'closed/g', 'mine/g');
      await bench.root.ok('mkdir', 'mine/theirs', 0o755);
      await bench.root.ok('mkdir', 'other', 0o777);
      await bench.alice.fails('EACCES', 'rename', 'mine/theirs', 'other/theirs');
      await bench.alice.ok('rename', 'mine/theirs', 'mine/renamed');
    });

    it('a sticky target directory protects what would be replaced', async () => {
      await bench.root.ok('mkdir', 'd');
      await bench.root.ok('chmod', 'd', 0o1777);
      await bench.root.file('d/theirs', '', 0o666);
      await bench.alice.file('mine');
      await bench.alice.fails('EPERM', 'rename', 'mine', 'd/theirs');
      await bench.alice.ok('rename', 'mine', 'd/mine');
      await bench.root.ok('chown', 'd/theirs', ALICE.uid, -1);
      await bench.alice.ok('rename', 'd/mine', 'd/theirs');
    });

    it('an open file and an open directory follow their new name', async () => {
      await bench.root.ok('mkdir', 'd');
      const fd = await bench.root.open('d/f', 'O_RDWR|O_CREAT');
      await bench.root.ok('rename', 'd', 'e');
      await bench.root.ok('rename', 'e/f', 'g');
      await bench.root.ok('write', fd, 'moved');
      await bench.root.ok('close', fd);
      assert.equal(await bench.root.ok('readAll', 'g'), 'moved');
    });

    it('a refused rename of a directory leaves its target as it is: emptied, it can be removed', async () => {
      for (let i = 0; i < 6; i++) {
        await bench.root.ok('mkdir', 's');
        await bench.root.ok('mkdir', 't');
        await bench.root.file('t/x');
        await bench.root.fails(['ENOTEMPTY', 'EEXIST'], 'rename', 's', 't');
        if (i % 2 === 1) {
          await bench.root.ok('chmod', 't', 0o700);
          assert.equal((await bench.root.stat('t')).mode, 0o700);
        }
        await bench.root.ok('unlink', 't/x');
        await bench.root.ok('rmdir', 't');
        await bench.root.ok('rmdir', 's');
      }
    });

    it('a replaced open file stays readable', async () => {
      await bench.root.file('old', 'old');
      await bench.root.file('new', 'new');
      const fd = await bench.root.open('old', 'O_RDONLY');
      await bench.root.ok('rename', 'new', 'old');
      assert.equal(await bench.root.ok('read', fd, 10), 'old');
      assert.equal((await bench.root.fstat(fd)).nlink, 0);
      assert.equal(await bench.root.ok('readAll', 'old'), 'new');
    });
  });

  describe('renameat2', () => {
    it('RENAME_NOREPLACE: EEXIST when the target is there, whatever it is', async () => {
      await bench.root.file('a');
      for (const { make } of KINDS) {
        await make(bench.root, 'b');
        await bench.root.fails('EEXIST', 'renameat2', 'a', 'b', NOREPLACE);
        await bench.root.ok((await bench.root.lstat('b')).type === 'dir' ? 'rmdir' : 'unlink', 'b');
      }
      await bench.root.ok('renameat2', 'a', 'b', NOREPLACE);
      await bench.root.fails('ENOENT', 'renameat2', 'a', 'c', NOREPLACE);
    });

    it('RENAME_EXCHANGE: any two entries change places, and all four ctimes change', async () => {
      await bench.root.ok('mkdir', 'x');
      await bench.root.ok('mkdir', 'y');
      for (const one of KINDS) {
        for (const two of KINDS) {
          await one.make(bench.root, 'x/a');
          await two.make(bench.root, 'y/b');
          const [a, b] = [await bench.root.lstat('x/a'), await bench.root.lstat('y/b')];
          await bench.root.ok('renameat2', 'x/a', 'y/b', EXCHANGE);
          assert.equal((await bench.root.lstat('x/a')).ino, b.ino);
          assert.equal((await bench.root.lstat('y/b')).ino, a.ino);
          assert.notEqual((await bench.root.lstat('x/a')).ctime, b.ctime);
          const directories = [await bench.root.stat('x'), await bench.root.stat('y')];
          assert.deepEqual(
            directories.map((each) => each.nlink),
            [two.type === 'dir' ? 3 : 2, one.type === 'dir' ? 3 : 2],
          );
          await bench.root.ok(two.type === 'dir' ? 'rmdir' : 'unlink', 'x/a');
          await bench.root.ok(one.type === 'dir' ? 'rmdir' : 'unlink', 'y/b');
        }
      }
    });

    it('RENAME_EXCHANGE: ENOENT without a target, EINVAL with an ancestor or with NOREPLACE', async () => {
      await bench.root.ok('mkdir', 'a');
      await bench.root.ok('mkdir', 'a/b');
      await bench.root.fails('ENOENT', 'renameat2', 'a', 'missing', EXCHANGE);
      await bench.root.fails('EINVAL', 'renameat2', 'a', 'a/b', EXCHANGE);
      await bench.root.fails('EINVAL', 'renameat2', 'a/b', 'a', EXCHANGE);
      await bench.root.fails('EINVAL', 'renameat2', 'a', 'a/b', EXCHANGE | NOREPLACE);
      await bench.root.fails('EINVAL', 'renameat2', 'a', 'c', 0x80);
    });
  });
}
