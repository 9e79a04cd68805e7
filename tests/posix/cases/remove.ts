import assert from 'node:assert/strict';
import { ALICE, type Bench, BOB, touchedTimes } from '../bench.js';

/** What unlink and rmdir, or a rename away, may do in a sticky directory: [directory's owner, entry's owner, allowed]. */
const STICKY = [
  [0, 0, false],
  [0, BOB.uid, false],
  [0, ALICE.uid, true],
  [ALICE.uid, 0, true],
  [ALICE.uid, BOB.uid, true],
  [BOB.uid, 0, false],
] as const;

/** unlink(2) and rmdir(2). */
export function removeCases(bench: Bench): void {
  describe('unlink', () => {
    it('takes the name away: directory mtime and ctime change, the ctime of a file with further names too', async () => {
      await bench.root.ok('mkdir', 'd');
      await bench.root.file('d/a');
      await bench.root.ok('link', 'd/a', 'b');
      assert.equal(
        await touchedTimes(bench.root, 'd', () =>
          touchedTimes(bench.root, 'b', () => bench.root.ok('unlink', 'd/a')).then((file) =>
            assert.equal(file, 'ctime'),
          ),
        ),
        'mtime ctime',
      );
      assert.equal((await bench.root.stat('b')).nlink, 1);
      await bench.root.fails('ENOENT', 'lstat', 'd/a');
      await bench.root.fails('ENOENT', 'unlink', 'd/a');
    });

    it('removes fifos, sockets, devices and links themselves', async () => {
      await bench.root.file('target');
      await bench.root.ok('symlink', 'target', 'link');
      await bench.root.ok('mkfifo', 'p');
      await bench.root.ok('bind', 's');
      await bench.root.ok('mknod', 'n', 0o020644, 0x103);
      for (const name of ['link', 'p', 's', 'n']) {
        await bench.root.ok('unlink', name);
        await bench.root.fails('ENOENT', 'lstat', name);
      }
      await bench.root.ok('lstat', 'target');
    });

    it('directories: EISDIR, even "." and "..", and for those who may not remove them', async () => {
      await bench.root.ok('mkdir', 'd');
      await bench.root.fails('EISDIR', 'unlink', 'd');
      await bench.root.fails('EISDIR', 'unlink', 'd/.');
      await bench.root.fails('EISDIR', 'unlink', 'd/..');
      await bench.alice.fails('EISDIR', 'unlink', 'd');
    });

    it('an open file lives on without a name: link count 0, readable, writable, its space then freed', async () => {
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT');
      const other = await bench.root.open('f', 'O_RDONLY');
      await bench.root.ok('write', fd, 'alive');
      await bench.root.ok('unlink', 'f');
      await bench.root.file('f', 'another');
      assert.equal((await bench.root.fstat(fd)).nlink, 0);
      await bench.root.ok('pwrite', fd, 'still', 5);
      await bench.root.ok('fsync', fd);
      assert.equal(await bench.root.ok('pread', other, 100, 0), 'alivestill');
      await bench.root.ok('ftruncate', fd, 3);
      await bench.root.ok('fchmod', fd, 0o600);
      assert.equal((await bench.root.fstat(other)).mode, 0o600);
      assert.equal((await bench.root.fstat(other)).size, 3);
      assert.equal(await bench.root.ok('readAll', 'f'), 'another');
      await bench.root.ok('close', fd);
      await bench.root.ok('close', other);
    });

    it('needs write and search permission on the directory, none on the file', async () => {
      await bench.root.ok('mkdir', 'd', 0o777);
      await bench.root.file('d/f', 'x', 0);
      for (const mode of [0o555, 0o666, 0o333]) {
        await bench.root.ok('chmod', 'd', mode);
        if (mode === 0o333) await bench.alice.ok('unlink', 'd/f');
        else await bench.alice.fails('EACCES', 'unlink', 'd/f');
      }
    });

    for (const [directoryOwner, owner, allowed] of STICKY) {
      it(`sticky directory of ${directoryOwner}, entry of ${owner}: ${allowed ? 'allowed' : 'EPERM'}`, async () => {
        await bench.root.ok('mkdir', 'd');
        await bench.root.ok('chown', 'd', directoryOwner, directoryOwner);
        await bench.root.ok('chmod', 'd', 0o1777);
        for (const [name, make, remove] of [
          ['file', ['writeAll', 'd/file', '', 0o666], 'unlink'],
          ['dir', ['mkdir', 'd/dir', 0o777], 'rmdir'],
          ['fifo', ['mkfifo', 'd/fifo', 0o666], 'unlink'],
          ['link', ['symlink', 'x', 'd/link'], 'unlink'],
        ] as const) {
          await bench.root.ok(make[0], ...make.slice(1));
          await bench.root.ok('lchown', `d/${name}`, owner, owner);
          if (!allowed) {
            await bench.alice.fails('EPERM', remove, `d/${name}`);
            await bench.alice.fails('EPERM', 'rename', `d/${name}`, 'elsewhere');
            await bench.alice.fails('EPERM', 'rename', `d/${name}`, 'd/other');
          }
          await (allowed ? bench.alice : bench.root).ok(remove, `d/${name}`);
        }
      });
    }
  });

  describe('rmdir', () => {
    it('an open directory lives on without a name: attributes can be changed, nothing made in it', async () => {
      await bench.root.ok('mkdir', 'd');
      const fd = await bench.root.open('d', 'O_RDONLY');
      await bench.root.ok('rmdir', 'd');
      await bench.root.ok('fchmod', fd, 0o700);
      await bench.root.ok('fchown', fd, ALICE.uid, ALICE.gid);
      await bench.root.ok('futimens', fd, '1000000000', '2000000000');
      const { nlink, mode, uid, mtime } = await bench.root.fstat(fd);
      assert.deepEqual([nlink, mode, uid, mtime], [0, 0o700, ALICE.uid, '2000000000']);
      await bench.root.ok('fsync', fd);
      assert.deepEqual(await bench.root.ok('list', `/proc/self/fd/${fd}`), []);
      await bench.root.fails('ENOENT', 'writeAll', `/proc/self/fd/${fd}/x`, '');
    });

    it('removes an empty directory: parent mtime and ctime change, its link count falls', async () => {
      await bench.root.ok('mkdir', 'd');
      await bench.root.ok('mkdir', 'd/e');
      assert.equal((await bench.root.stat('d')).nlink, 3);
      assert.equal(await touchedTimes(bench.root, 'd', () => bench.root.ok('rmdir', 'd/e')), 'mtime ctime');
      assert.equal((await bench.root.stat('d')).nlink, 2);
      await bench.root.fails('ENOENT', 'rmdir', 'd/e');
    });

    it('ENOTEMPTY whatever is in it, also a fifo, a link or another directory', async () => {
      for (const call of [
        ['mkdir', 'd/x'],
        ['mkfifo', 'd/x'],
        ['symlink', 'y', 'd/x'],
        ['writeAll', 'd/x', ''],
      ] as const) {
        await bench.root.ok('mkdir', 'd');
        await bench.root.ok(call[0], ...call.slice(1));
        await bench.root.fails('ENOTEMPTY', 'rmdir', 'd');
        await bench.root.ok(call[0] === 'mkdir' ? 'rmdir' : 'unlink', 'd/x');
        await bench.root.ok('rmdir', 'd');
      }
    });

    it('ENOTDIR for anything else, EINVAL for ".", ENOTEMPTY for ".."', async () => {
      await bench.root.file('f');
      await bench.root.ok('mkfifo', 'p');
      await bench.root.ok('mkdir', 'd');
      await bench.root.ok('mkdir', 'd/e');
      await bench.root.ok('symlink', 'd/e', 'link');
      for (const name of ['f', 'p', 'link']) await bench.root.fails('ENOTDIR', 'rmdir', name);
      await bench.root.fails('EINVAL', 'rmdir', 'd/e/.');
      await bench.root.fails('ENOTEMPTY', 'rmdir', 'd/e/..');
    });

    it('needs permission on the parent alone', async () => {
      await bench.root.ok('mkdir', 'd', 0o755);
      await bench.root.ok('mkdir', 'd/e', 0);
      await bench.alice.fails('EACCES', 'rmdir', 'd/e');
      await bench.root.ok('chmod', 'd', 0o777);
      await bench.alice.ok('rmdir', 'd/e');
    });
  });
}
