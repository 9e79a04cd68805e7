import assert from 'node:assert/strict';
import type { Agent } from '../agent.js';
import { ALICE, type Bench, touchedTimes } from '../bench.js';

/** read(2), write(2), truncate(2), lseek(2), O_APPEND, O_SYNC, mmap(2): the contents of files. */
export function dataCases(bench: Bench): void {
  truncateCases(bench);

  describe('read and write', () => {
    it('what was written is read, at any offset; the gap reads as zeros', async () => {
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT');
      await bench.root.ok('pwrite', fd, 'end', 100_000);
      await bench.root.ok('pwrite', fd, 'start', 0);
      assert.equal((await bench.root.fstat(fd)).size, 100_003);
      assert.equal(await bench.root.ok('pread', fd, 10, 0), `start${'\0'.repeat(5)}`);
      assert.equal(await bench.root.ok('pread', fd, 100, 99_998), '\0\0end');
      assert.equal(await bench.root.ok('pread', fd, 100, 100_003), '');
      assert.equal(await bench.root.ok('pread', fd, 100, 1_000_000), '');
      await bench.root.ok('close', fd);
    });

    it('O_APPEND writes at the end, whatever the offset, also after another has grown the file', async () => {
      const one = await bench.root.open('f', 'O_WRONLY|O_CREAT|O_APPEND');
      const two = await bench.root.open('f', 'O_RDWR|O_APPEND');
      await bench.root.ok('write', one, 'a');
      await bench.root.ok('write', two, 'b');
      await bench.root.ok('lseek', one, 0, 'SEEK_SET');
      await bench.root.ok('write', one, 'c');
      assert.equal(await bench.root.ok('lseek', one, 0, 'SEEK_CUR'), 3);
      await bench.root.ok('ftruncate', two, 1);
      await bench.root.ok('write', one, 'd');
      assert.equal(await bench.root.ok('pread', two, 10, 0), 'ad');
      assert.equal(await bench.root.ok('readAll', 'f'), 'ad');
    });

    it('O_SYNC and O_DSYNC write through', async () => {
      for (const flag of ['O_SYNC', 'O_DSYNC']) {
        const fd = await bench.root.open('f', `O_RDWR|O_CREAT|O_TRUNC|${flag}`);
        await bench.root.ok('write', fd, 'synced');
        await bench.root.ok('pwrite', fd, 'S', 0);
        await bench.root.ok('close', fd);
        assert.equal(await bench.root.ok('readAll', 'f'), 'Synced');
      }
    });

    it('fsync and fdatasync take any descriptor of a file or directory', async () => {
      await bench.root.file('f', 'x');
      for (const fd of [await bench.root.open('f', 'O_RDONLY'), await bench.root.open('.', 'O_RDONLY')]) {
        await bench.root.ok('fsync', fd);
        await bench.root.ok('fdatasync', fd);
      }
    });

    it('lseek: from the start, here and the end; EINVAL before the start', async () => {
      await bench.root.file('f', '0123456789');
      const fd = await bench.root.open('f', 'O_RDWR');
      assert.equal(await bench.root.ok('lseek', fd, 4, 'SEEK_SET'), 4);
      assert.equal(await bench.root.ok('lseek', fd, 2, 'SEEK_CUR'), 6);
      assert.equal(await bench.root.ok('lseek', fd, -1, 'SEEK_END'), 9);
      assert.equal(await bench.root.ok('lseek', fd, 100, 'SEEK_END'), 110);
      await bench.root.fails('EINVAL', 'lseek', fd, -1, 'SEEK_SET');
      await bench.root.fails('EINVAL', 'lseek', fd, -11, 'SEEK_END');
      assert.equal(await bench.root.ok('read', fd, 10), '');
    });

    it('a descriptor shares its offset with its duplicate', async () => {
      await bench.root.file('f', '0123456789');
      const fd = await bench.root.open('f', 'O_RDONLY');
      const copy = await bench.root.ok<number>('dup', fd);
      assert.equal(await bench.root.ok('read', fd, 3), '012');
      assert.equal(await bench.root.ok('read', copy, 3), '345');
    });

    it('files of 16 TiB: sparse, written and read at both ends', async () => {
      const size = 16 * 2 ** 40 - 4096;
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT');
      await bench.root.ok('pwrite', fd, 'far', size - 3);
      await bench.root.ok('pwrite', fd, 'near', 0);
      await bench.root.ok('fsync', fd);
      const { size: shown, blocks } = await bench.root.fstat(fd);
      assert.equal(shown, size);
      assert.ok(blocks * 512 < 2 ** 20, `${blocks} blocks`);
      assert.equal(await bench.root.ok('pread', fd, 10, size - 5), '\0\0far');
      assert.equal(await bench.root.ok('pread', fd, 4, size / 2), '\0\0\0\0');
      await bench.root.ok('close', fd);
      await bench.root.ok('truncate', 'f', 2);
      assert.equal(await bench.root.ok('readAll', 'f'), 'ne');
    });

    it('EFBIG or EINVAL beyond what a file can hold', async () => {
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT');
      await bench.root.fails(['EFBIG', 'EINVAL'], 'ftruncate', fd, 9_200_000_000_000_000_000);
      await bench.root.fails(['EFBIG', 'EINVAL'], 'pwrite', fd, 'x', 9_100_000_000_000_000_000);
      assert.equal((await bench.root.fstat(fd)).size, 0);
    });

    it("a write by one who may not keep them clears setuid and setgid; root's does not", async () => {
      for (const [mode, left] of [
        [0o6777, 0o777],
        [0o4777, 0o777],
        [0o2777, 0o777],
      ] as const) {
        await bench.root.file('f', 'x', mode);
        assert.equal((await bench.root.stat('f')).mode, mode);
        const own = await bench.root.open('f', 'O_WRONLY');
        await bench.root.ok('write', own, 'y');
        await bench.root.ok('close', own);
        assert.equal((await bench.root.stat('f')).mode, mode);
        const fd = await bench.alice.open('f', 'O_WRONLY');
        assert.equal((await bench.root.stat('f')).mode, mode);
        await bench.alice.ok('write', fd, 'z');
        assert.equal((await bench.root.stat('f')).mode, left);
        await bench.alice.ok('close', fd);
      }
    });

    it('setgid without group execution stays when a member of the group writes or truncates, and goes with anybody else', async () => {
      const change = async (user: Agent, truncates: boolean): Promise<number> => {
        await bench.root.file('f', 'x', 0o2666);
        await bench.root.ok('chown', 'f', 0, 64_003);
        await bench.root.ok('chmod', 'f', 0o2666);
        const fd = await user.open('f', 'O_RDWR');
        if (truncates) await user.ok('ftruncate', fd, 0);
        else await user.ok('write', fd, 'y');
        await user.ok('close', fd);
        return (await bench.root.stat('f')).mode;
      };
      for (const truncates of [false, true]) {
        assert.equal(await change(bench.root, truncates), 0o2666);
        assert.equal(await change(bench.bob, truncates), 0o2666);
        assert.equal(await change(bench.alice, truncates), 0o666);
      }
    });

    it('a truncate by one who may not keep them clears them too', async () => {
      for (const size of [0, 100]) {
        await bench.root.file('f', 'x', 0o6777);
        await bench.alice.ok('truncate', 'f', size);
        assert.equal((await bench.root.stat('f')).mode, 0o777);
      }
      await bench.root.file('f', 'x', 0o6777);
      await bench.alice.ok('close', await bench.alice.open('f', 'O_WRONLY|O_TRUNC'));
      assert.equal((await bench.root.stat('f')).mode, 0o777);
    });
  });

  mapCases(bench);
}

function truncateCases(bench: Bench): void {
  describe('truncate', () => {
    it('cuts and extends; what was cut off does not come back', async () => {
      await bench.root.file('f', 'x'.repeat(10_000));
      await bench.root.ok('truncate', 'f', 5);
      assert.equal(await bench.root.ok('readAll', 'f'), 'xxxxx');
      await bench.root.ok('truncate', 'f', 8);
      assert.equal(await bench.root.ok('readAll', 'f'), 'xxxxx\0\0\0');
      const fd = await bench.root.open('f', 'O_RDWR');
      await bench.root.ok('ftruncate', fd, 0);
      await bench.root.ok('ftruncate', fd, 6);
      assert.equal(await bench.root.ok('pread', fd, 100, 0), '\0'.repeat(6));
    });

    it('changes mtime and ctime when the size changes', async () => {
      await bench.root.file('f', 'content');
      for (const size of [3, 10, 0])
        assert.equal(
          await touchedTimes(bench.root, 'f', () => bench.root.ok('truncate', 'f', size)),
          'mtime ctime',
        );
      const fd = await bench.root.open('f', 'O_RDWR');
      for (const size of [3, 10, 0, 0])
        assert.equal(
          await touchedTimes(bench.root, 'f', () => bench.root.ok('ftruncate', fd, size)),
          'mtime ctime',
        );
    });

    it('errors: EISDIR, EINVAL, EACCES, and nothing changes', async () => {
      await bench.root.ok('mkdir', 'd');
      await bench.root.ok('mkfifo', 'p');
      await bench.root.file('f', 'content');
      await bench.root.fails('EISDIR', 'truncate', 'd', 0);
      await bench.root.fails('EINVAL', 'truncate', 'p', 0);
      await bench.root.fails('EINVAL', 'truncate', 'f', -1);
      await bench.alice.fails('EACCES', 'truncate', 'f', 0);
      const fd = await bench.root.open('f', 'O_RDONLY');
      await bench.root.fails('EINVAL', 'ftruncate', fd, 0);
      assert.equal(await bench.root.ok('readAll', 'f'), 'content');
    });

    it('by its owner without write permission: EACCES by name, allowed by an open descriptor', async () => {
      const fd = await bench.alice.open('f', 'O_RDWR|O_CREAT', 0o400);
      await bench.alice.fails('EACCES', 'truncate', 'f', 5);
      await bench.alice.ok('ftruncate', fd, 5);
      assert.equal((await bench.root.stat('f')).size, 5);
      assert.equal((await bench.root.stat('f')).uid, ALICE.uid);
    });
  });
}

function mapCases(bench: Bench): void {
  describe('mmap', () => {
    it('a shared mapping and the file are one: stores are read, writes are loaded, by other processes too', async () => {
      await bench.root.file('f', 'x'.repeat(8192), 0o666);
      const fd = await bench.root.open('f', 'O_RDWR');
      const map = await bench.root.ok<number>('mmap', fd, 8192, 'rw', 'shared');
      const other = await bench.alice.ok<number>(
        'mmap',
        await bench.alice.open('f', 'O_RDWR'),
        8192,
        'rw',
        'shared',
      );
      await bench.root.ok('mstore', map, 4090, 'across the page');
      assert.equal(await bench.alice.ok('mload', other, 4090, 15), 'across the page');
      assert.equal(await bench.root.ok('pread', fd, 15, 4090), 'across the page');
      await bench.root.ok('pwrite', fd, 'written', 10);
      assert.equal(await bench.alice.ok('mload', other, 10, 7), 'written');
      await bench.root.ok('msync', map);
      await bench.root.ok('munmap', map);
      await bench.alice.ok('munmap', other);
      await bench.root.ok('close', fd);
      const content = await bench.root.ok<string>('readAll', 'f');
      assert.equal(content.slice(4090, 4105), 'across the page');
      assert.equal(content.slice(10, 17), 'written');
    });

    it('a mapping outlives its descriptor; what is stored reaches the file at munmap', async () => {
      await bench.root.file('f', 'x'.repeat(4096));
      const fd = await bench.root.open('f', 'O_RDWR');
      const map = await bench.root.ok<number>('mmap', fd, 4096, 'rw', 'shared');
      await bench.root.ok('close', fd);
      await bench.root.ok('mstore', map, 0, 'late');
      await bench.root.ok('munmap', map);
      assert.equal((await bench.root.ok<string>('readAll', 'f')).slice(0, 6), 'latexx');
    });

    it('a private mapping leaves the file alone', async () => {
      await bench.root.file('f', 'x'.repeat(4096));
      const fd = await bench.root.open('f', 'O_RDWR');
      const map = await bench.root.ok<number>('mmap', fd, 4096, 'rw', 'private');
      await bench.root.ok('mstore', map, 0, 'mine');
      assert.equal(await bench.root.ok('pread', fd, 4, 0), 'xxxx');
      await bench.root.ok('munmap', map);
    });

    it('a file that is cut while mapped reads as zeros behind the cut, within its last page', async () => {
      await bench.root.file('f', 'x'.repeat(4096));
      const fd = await bench.root.open('f', 'O_RDWR');
      const map = await bench.root.ok<number>('mmap', fd, 4096, 'rw', 'shared');
      assert.equal(await bench.root.ok('mload', map, 100, 4), 'xxxx');
      await bench.root.ok('ftruncate', fd, 102);
      assert.equal(await bench.root.ok('mload', map, 100, 4), 'xx\0\0');
      await bench.root.ok('ftruncate', fd, 4096);
      await bench.root.ok('mstore', map, 4000, 'again');
      assert.equal(await bench.root.ok('pread', fd, 5, 4000), 'again');
      await bench.root.ok('munmap', map);
      assert.equal((await bench.root.stat('f')).size, 4096);
    });

    it('EACCES for a shared writable mapping of what was opened for reading, or writing alone', async () => {
      await bench.root.file('f', 'x'.repeat(4096));
      await bench.root.fails('EACCES', 'mmap', await bench.root.open('f', 'O_RDONLY'), 4096, 'rw', 'shared');
      await bench.root.fails('EACCES', 'mmap', await bench.root.open('f', 'O_WRONLY'), 4096, 'r', 'shared');
    });
  });
}
