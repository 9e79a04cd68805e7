import assert from 'node:assert/strict';
import { ALICE, type Bench, touchedTimes } from '../bench.js';

/** link(2). */
export function linkCases(bench: Bench): void {
  describe('link', () => {
    it('a further name of the same inode: link count and ctime change, and times of the directory', async () => {
      await bench.root.file('a', 'shared');
      await bench.root.ok('mkdir', 'd');
      const times = await touchedTimes(bench.root, 'd', async () => {
        assert.equal(await touchedTimes(bench.root, 'a', () => bench.root.ok('link', 'a', 'd/b')), 'ctime');
      });
      assert.equal(times, 'mtime ctime');
      assert.deepEqual(await bench.root.stat('a'), await bench.root.stat('d/b'));
      assert.equal((await bench.root.stat('a')).nlink, 2);
      await bench.root.file('d/b', 'changed');
      assert.equal(await bench.root.ok('readAll', 'a'), 'changed');
      await bench.root.ok('chmod', 'a', 0o600);
      await bench.root.ok('chown', 'a', ALICE.uid, ALICE.gid);
      assert.deepEqual(await bench.root.stat('a'), await bench.root.stat('d/b'));
      await bench.root.ok('unlink', 'a');
      assert.equal((await bench.root.stat('d/b')).nlink, 1);
      await bench.root.fails('ENOENT', 'stat', 'a');
    });

    it('fifos, sockets, devices and symbolic links have links too', async () => {
      await bench.root.ok('mkfifo', 'p');
      await bench.root.ok('bind', 's');
      await bench.root.ok('mknod', 'n', 0o020644, 0x103);
      await bench.root.ok('symlink', 'x', 'l');
      for (const name of ['p', 's', 'n', 'l']) {
        await bench.root.ok('link', name, `${name}2`);
        assert.deepEqual(await bench.root.lstat(name), await bench.root.lstat(`${name}2`));
        assert.equal((await bench.root.lstat(name)).nlink, 2);
      }
    });

    it('AT_SYMLINK_FOLLOW links what a symbolic link points to', async () => {
      await bench.root.file('f');
      await bench.root.ok('symlink', 'f', 'l');
      await bench.root.ok('link', 'l', 'g', true);
      assert.equal((await bench.root.lstat('g')).ino, (await bench.root.lstat('f')).ino);
      await bench.root.ok('link', 'l', 'm', false);
      assert.equal((await bench.root.lstat('m')).type, 'symlink');
    });

    it("somebody else's file takes one when a write has taken its setuid and setgid away", async () => {
      await bench.root.ok('chmod', '.', 0o777);
      await bench.alice.ok('umask', 0);
      for (const [n, flags] of ['O_WRONLY', 'O_WRONLY|O_TRUNC'].entries()) {
        const made = await bench.alice.open(`f${n}`, 'O_WRONLY|O_CREAT|O_EXCL', 0o6777);
        await bench.alice.ok('write', made, 'x');
        await bench.bob.ok('link', `f${n}`, `g${n}`);
        await bench.alice.ok('close', made);
        await bench.alice.ok('chmod', `f${n}`, 0o6777);
        await bench.bob.fails('EPERM', 'link', `f${n}`, `h${n}`);
        const fd = await bench.alice.open(`f${n}`, flags);
        await bench.alice.ok('write', fd, 'x');
        await bench.bob.ok('link', `f${n}`, `i${n}`);
        await bench.alice.ok('close', fd);
      }
    });

    it('EEXIST whatever is there, ENOENT without a source, EPERM for directories', async () => {
      await bench.root.file('a');
      for (const call of [
        ['writeAll', 'b', ''],
        ['mkdir', 'b'],
        ['symlink', 'x', 'b'],
        ['mkfifo', 'b'],
      ] as const) {
        await bench.root.ok(call[0], ...call.slice(1));
        await bench.root.fails('EEXIST', 'link', 'a', 'b');
        await bench.root.ok(call[0] === 'mkdir' ? 'rmdir' : 'unlink', 'b');
      }
      await bench.root.fails('ENOENT', 'link', 'missing', 'b');
      await bench.root.ok('mkdir', 'd');
      await bench.root.fails('EPERM', 'link', 'd', 'e');
      await bench.alice.fails('EPERM', 'link', 'd', 'e');
      await bench.root.fails('EEXIST', 'link', 'd', 'a');
      await bench.root.fails('EEXIST', 'link', 'a', '.');
    });

    it('needs write permission on the new directory', async () => {
      await bench.root.ok('mkdir', 'd', 0o755);
      await bench.alice.file('mine');
      await bench.alice.fails('EACCES', 'link', 'mine', 'd/x');
      assert.equal((await bench.root.stat('mine')).nlink, 1);
    });
  });
}
