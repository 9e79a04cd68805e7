import assert from 'node:assert/strict';
import { type Bench, type Features, touchedTimes } from '../bench.js';

const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const COLLAPSE_RANGE = 8;
const ZERO_RANGE = 16;
const INSERT_RANGE = 32;
const MIB = 2 ** 20;
const UNSUPPORTED = ['EOPNOTSUPP', 'ENOTSUP'];

/** fallocate(2), lseek(2) with SEEK_DATA and SEEK_HOLE, copy_file_range(2), O_TMPFILE. */
export function linuxCases(bench: Bench, features: Features): void {
  describe('Linux calls', () => {
    before(function () {
      if (!features.linux) this.skip();
    });
    allocationCases(bench, features);
    holeCases(bench);
    copyCases(bench);
    temporaryCases(bench);
    handleCases(bench);
  });
}

function allocationCases(bench: Bench, features: Features): void {
  describe('fallocate', () => {
    it('extends the file with zeros and takes the space', async () => {
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT');
      await bench.root.ok('write', fd, 'data');
      const times = await touchedTimes(bench.root, 'f', () => bench.root.ok('fallocate', fd, 0, 0, MIB));
      assert.match(times, /ctime$/);
      const { size, blocks } = await bench.root.fstat(fd);
      assert.equal(size, MIB);
      if (features.reserves) assert.ok(blocks * 512 >= MIB, `${blocks} blocks`);
      assert.equal(await bench.root.ok('pread', fd, 8, 0), 'data\0\0\0\0');
      assert.equal(await bench.root.ok('pread', fd, 4, MIB - 2), '\0\0');
    });

    it('within the file it changes no byte', async () => {
      await bench.root.file('f', 'x'.repeat(10_000));
      const fd = await bench.root.open('f', 'O_RDWR');
      await bench.root.ok('fallocate', fd, 0, 100, 5_000);
      await bench.root.ok('posix_fallocate', fd, 0, 10_000);
      assert.equal(await bench.root.ok('readAll', 'f'), 'x'.repeat(10_000));
    });

    it('KEEP_SIZE leaves the size, and the space counts', async () => {
      await bench.root.file('f', 'data');
      const fd = await bench.root.open('f', 'O_RDWR');
      await bench.root.ok('fallocate', fd, KEEP_SIZE, 0, MIB);
      const { size, blocks } = await bench.root.fstat(fd);
      assert.equal(size, 4);
      if (features.reserves) assert.ok(blocks * 512 >= MIB, `${blocks} blocks`);
      await bench.root.ok('ftruncate', fd, 4096);
      assert.equal(await bench.root.ok('readAll', 'f'), `data${'\0'.repeat(4092)}`);
    });

    it('what is kept behind the end goes with a truncate, also to the same size', async function () {
      if (!features.reserves) this.skip();
      await bench.root.file('f', 'data');
      const fd = await bench.root.open('f', 'O_RDWR');
      const blocks = async () => (await bench.root.fstat(fd)).blocks * 512;
      const before = await blocks();
      await bench.root.ok('fallocate', fd, KEEP_SIZE, 8 * MIB, MIB);
      assert.ok((await blocks()) >= before + MIB);
      await bench.root.ok('ftruncate', fd, 4);
      assert.ok((await blocks()) < before + MIB, 'to the same size');
      await bench.root.ok('fallocate', fd, KEEP_SIZE, 0, MIB);
      await bench.root.ok('ftruncate', fd, 2);
      assert.ok((await blocks()) < before + MIB, 'to a smaller one');
      assert.equal(await bench.root.ok('readAll', 'f'), 'da');
    });

    it('reserved space is a hole until it is written, and counts no more then', async function () {
      if (!features.reserves) this.skip();
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT');
      await bench.root.ok('fallocate', fd, 0, 0, 8 * MIB);
      const { blocks } = await bench.root.fstat(fd);
      await bench.root.ok('pwrite', fd, 'x'.repeat(MIB), 4 * MIB);
      await bench.root.ok('fsync', fd);
      assert.equal(await bench.root.ok('lseek', fd, 0, 'SEEK_DATA'), 4 * MIB);
      assert.equal(await bench.root.ok('lseek', fd, 4 * MIB, 'SEEK_HOLE'), 5 * MIB);
      assert.equal(await bench.root.ok('lseek', fd, 0, 'SEEK_HOLE'), 0);
      assert.ok(Math.abs((await bench.root.fstat(fd)).blocks - blocks) * 512 <= 65_536);
      await bench.root.ok('fallocate', fd, PUNCH_HOLE | KEEP_SIZE, 0, 8 * MIB);
      assert.ok((await bench.root.fstat(fd)).blocks * 512 <= 65_536, 'all of it goes with a hole');
    });

    it('ZERO_RANGE keeps the space', async function () {
      if (!features.reserves) this.skip();
      await bench.root.file('f', 'x'.repeat(MIB));
      const fd = await bench.root.open('f', 'O_RDWR');
      await bench.root.ok('fallocate', fd, ZERO_RANGE, 0, 2 * MIB);
      const { size, blocks } = await bench.root.fstat(fd);
      assert.equal(size, 2 * MIB);
      assert.ok(blocks * 512 >= 2 * MIB, `${blocks} blocks`);
      assert.equal(await bench.root.ok('pread', fd, 4, MIB - 2), '\0\0\0\0');
    });

    it('PUNCH_HOLE: zeros, the size stays, the space is freed', async () => {
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT');
      for (let i = 0; i < 8; i++) await bench.root.ok('write', fd, 'x'.repeat(MIB));
      await bench.root.ok('fsync', fd);
      const before = (await bench.root.fstat(fd)).blocks;
      const times = await touchedTimes(bench.root, 'f', () =>
        bench.root.ok('fallocate', fd, PUNCH_HOLE | KEEP_SIZE, MIB, 6 * MIB),
      );
      assert.equal(times, 'mtime ctime');
      const after = await bench.root.fstat(fd);
      assert.equal(after.size, 8 * MIB);
      assert.ok((before - after.blocks) * 512 >= 5 * MIB, `${before} blocks, then ${after.blocks}`);
      assert.equal(await bench.root.ok('pread', fd, 4, MIB - 2), 'xx\0\0');
      assert.equal(await bench.root.ok('pread', fd, 4, 4 * MIB), '\0\0\0\0');
      assert.equal(await bench.root.ok('pread', fd, 4, 7 * MIB - 2), '\0\0xx');
      await bench.root.ok('fallocate', fd, PUNCH_HOLE | KEEP_SIZE, 10, 3);
      assert.equal(await bench.root.ok('pread', fd, 5, 9), 'x\0\0\0x');
      await bench.root.ok('fallocate', fd, PUNCH_HOLE | KEEP_SIZE, 100 * MIB, MIB);
      assert.equal((await bench.root.fstat(fd)).size, 8 * MIB);
      await bench.root.ok('pwrite', fd, 'filled', 4 * MIB);
      await bench.root.ok('fsync', fd);
      assert.equal(await bench.root.ok('pread', fd, 8, 4 * MIB), 'filled\0\0');
      await bench.root.fails(UNSUPPORTED, 'fallocate', fd, PUNCH_HOLE, 0, 10);
    });

    it('ZERO_RANGE: zeros, with and without the size', async () => {
      await bench.root.file('f', 'x'.repeat(10_000));
      const fd = await bench.root.open('f', 'O_RDWR');
      await bench.root.ok('fallocate', fd, ZERO_RANGE, 5, 9_000);
      assert.equal(await bench.root.ok('pread', fd, 8, 0), 'xxxxx\0\0\0');
      assert.equal(await bench.root.ok('pread', fd, 8, 9_003), '\0\0xxxxxx');
      await bench.root.ok('fallocate', fd, ZERO_RANGE | KEEP_SIZE, 9_999, 10_000);
      assert.equal((await bench.root.fstat(fd)).size, 10_000);
      await bench.root.ok('fallocate', fd, ZERO_RANGE, 9_990, 10_000);
      assert.equal((await bench.root.fstat(fd)).size, 19_990);
      assert.equal(await bench.root.ok('pread', fd, 4, 9_988), 'xx\0\0');
    });

    it('changes mtime and ctime with every mode, also where nothing is to be done', async () => {
      await bench.root.file('f', 'x'.repeat(10_000));
      const fd = await bench.root.open('f', 'O_RDWR');
      for (const [mode, offset] of [
        [0, 0],
        [KEEP_SIZE, 20_000],
        [PUNCH_HOLE | KEEP_SIZE, 0],
        [PUNCH_HOLE | KEEP_SIZE, 50_000],
        [ZERO_RANGE, 0],
        [ZERO_RANGE, 20_000],
      ] as const) {
        const times = await touchedTimes(bench.root, 'f', () =>
          bench.root.ok('fallocate', fd, mode, offset, 100),
        );
        assert.equal(times, 'mtime ctime', `mode ${mode} at ${offset}`);
      }
    });

    it('errors: EINVAL, EBADF, EOPNOTSUPP for unknown modes', async () => {
      await bench.root.file('f', 'x'.repeat(10_000));
      const fd = await bench.root.open('f', 'O_RDWR');
      await bench.root.fails('EINVAL', 'fallocate', fd, 0, 0, 0);
      await bench.root.fails('EINVAL', 'fallocate', fd, 0, -1, 10);
      await bench.root.fails(['EFBIG', 'EINVAL'], 'fallocate', fd, 0, 9_000_000_000_000_000_000, 4096);
      await bench.root.fails('EBADF', 'fallocate', await bench.root.open('f', 'O_RDONLY'), 0, 0, 10);
      await bench.root.fails([...UNSUPPORTED, 'EINVAL'], 'fallocate', fd, INSERT_RANGE | KEEP_SIZE, 0, 4096);
      await bench.root.fails([...UNSUPPORTED, 'EINVAL'], 'fallocate', fd, COLLAPSE_RANGE, 1, 4096);
    });

    it('by one who may not keep them it clears setuid and setgid', async () => {
      await bench.root.file('f', 'x'.repeat(10_000), 0o6777);
      const fd = await bench.alice.open('f', 'O_RDWR');
      await bench.alice.ok('fallocate', fd, PUNCH_HOLE | KEEP_SIZE, 0, 4096);
      assert.equal((await bench.root.stat('f')).mode, 0o777);
    });
  });
}

function holeCases(bench: Bench): void {
  describe('SEEK_DATA and SEEK_HOLE', () => {
    it('find the data of a sparse file, written or not yet', async () => {
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT');
      await bench.root.ok('pwrite', fd, 'x'.repeat(MIB), 4 * MIB);
      await bench.root.ok('pwrite', fd, 'x'.repeat(MIB), 16 * MIB);
      await bench.root.ok('ftruncate', fd, 32 * MIB);
      for (const synced of [false, true]) {
        if (synced) await bench.root.ok('fsync', fd);
        const seek = (at: number, whence: string) => bench.root.ok<number>('lseek', fd, at, whence);
        assert.equal(await seek(0, 'SEEK_DATA'), 4 * MIB);
        assert.equal(await seek(0, 'SEEK_HOLE'), 0);
        assert.equal(await seek(4 * MIB, 'SEEK_DATA'), 4 * MIB);
        assert.equal(await seek(4.5 * MIB, 'SEEK_DATA'), 4.5 * MIB);
        assert.equal(await seek(4 * MIB, 'SEEK_HOLE'), 5 * MIB);
        assert.equal(await seek(5 * MIB, 'SEEK_DATA'), 16 * MIB);
        assert.equal(await seek(17 * MIB, 'SEEK_HOLE'), 17 * MIB);
        await bench.root.fails('ENXIO', 'lseek', fd, 17 * MIB, 'SEEK_DATA');
        await bench.root.fails('ENXIO', 'lseek', fd, 32 * MIB, 'SEEK_HOLE');
        await bench.root.fails('ENXIO', 'lseek', fd, 40 * MIB, 'SEEK_DATA');
        await bench.root.fails(['ENXIO', 'EINVAL'], 'lseek', fd, -1, 'SEEK_DATA');
      }
    });

    it('a full file has its hole at the end, an empty one has neither', async () => {
      await bench.root.file('f', 'x'.repeat(100_000));
      const fd = await bench.root.open('f', 'O_RDONLY');
      assert.equal(await bench.root.ok('lseek', fd, 10, 'SEEK_HOLE'), 100_000);
      assert.equal(await bench.root.ok('lseek', fd, 10, 'SEEK_DATA'), 10);
      await bench.root.file('e');
      const empty = await bench.root.open('e', 'O_RDONLY');
      await bench.root.fails('ENXIO', 'lseek', empty, 0, 'SEEK_HOLE');
      await bench.root.fails('ENXIO', 'lseek', empty, 0, 'SEEK_DATA');
    });

    it('a punched hole is found', async () => {
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT');
      for (let i = 0; i < 4; i++) await bench.root.ok('write', fd, 'x'.repeat(MIB));
      await bench.root.ok('fallocate', fd, PUNCH_HOLE | KEEP_SIZE, MIB, MIB);
      assert.equal(await bench.root.ok('lseek', fd, 0, 'SEEK_HOLE'), MIB);
      assert.equal(await bench.root.ok('lseek', fd, MIB, 'SEEK_DATA'), 2 * MIB);
      assert.equal(await bench.root.ok('lseek', fd, 2 * MIB, 'SEEK_HOLE'), 4 * MIB);
    });
  });

  describe('st_blocks', () => {
    it('counts what is stored: nothing for holes, all of the data, less after a cut', async () => {
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT');
      await bench.root.ok('ftruncate', fd, 64 * MIB);
      await bench.root.ok('fsync', fd);
      assert.ok((await bench.root.fstat(fd)).blocks * 512 < MIB);
      for (let i = 0; i < 4; i++) await bench.root.ok('pwrite', fd, 'x'.repeat(MIB), i * MIB);
      await bench.root.ok('fsync', fd);
      const full = (await bench.root.fstat(fd)).blocks * 512;
      assert.ok(full >= 4 * MIB && full < 4.5 * MIB, `${full}`);
      // The same bytes again take no more space.
      await bench.root.ok('pwrite', fd, 'y'.repeat(MIB), 2 * MIB);
      await bench.root.ok('fsync', fd);
      assert.equal((await bench.root.fstat(fd)).blocks * 512, full);
      await bench.root.ok('ftruncate', fd, MIB);
      const cut = (await bench.root.fstat(fd)).blocks * 512;
      assert.ok(cut >= MIB && cut < 1.5 * MIB, `${cut}`);
      await bench.root.ok('ftruncate', fd, 0);
      assert.equal((await bench.root.fstat(fd)).blocks, 0);
    });
  });
}

function copyCases(bench: Bench): void {
  describe('copy_file_range', () => {
    it('copies within and between files, at any offsets, growing the target', async () => {
      const content = Array.from({ length: 3000 }, (_, i) => `line ${i}\n`).join('');
      await bench.root.file('from', content);
      const source = await bench.root.open('from', 'O_RDWR');
      const target = await bench.root.open('to', 'O_RDWR|O_CREAT');
      assert.equal(await bench.root.ok('copy_file_range', source, target, 10_000, 3, 7), 10_000);
      const copied = await bench.root.ok<string>('readAll', 'to');
      assert.equal(copied, '\0'.repeat(7) + content.slice(3, 10_003));
      assert.equal(await bench.root.ok('copy_file_range', source, source, 100, 0, 20_000), 100);
      assert.equal(await bench.root.ok('pread', source, 100, 20_000), content.slice(0, 100));
      assert.equal(await bench.root.ok('copy_file_range', source, target, 100_000, content.length - 5, 0), 5);
      assert.equal(await bench.root.ok('copy_file_range', source, target, 10, content.length, 0), 0);
    });

    it('moves the offsets of both descriptors when none is given', async () => {
      await bench.root.file('from', '0123456789');
      const source = await bench.root.open('from', 'O_RDONLY');
      const target = await bench.root.open('to', 'O_RDWR|O_CREAT');
      assert.equal(await bench.root.ok('copy_file_range', source, target, 4), 4);
      assert.equal(await bench.root.ok('copy_file_range', source, target, 100), 6);
      assert.equal(await bench.root.ok('copy_file_range', source, target, 100), 0);
      assert.equal(await bench.root.ok('lseek', target, 0, 'SEEK_CUR'), 10);
      assert.equal(await bench.root.ok('readAll', 'to'), '0123456789');
    });

    it('several chunks of 4 MiB arrive whole, unsynced bytes too', async () => {
      const source = await bench.root.open('from', 'O_RDWR|O_CREAT');
      for (let i = 0; i < 10; i++) await bench.root.ok('write', source, String(i).repeat(MIB));
      const target = await bench.root.open('to', 'O_RDWR|O_CREAT');
      let done = 0;
      while (done < 10 * MIB) {
        const count = await bench.root.ok<number>(
          'copy_file_range',
          source,
          target,
          10 * MIB - done,
          done,
          done,
        );
        assert.ok(count > 0);
        done += count;
      }
      for (let i = 0; i < 10; i++)
        assert.equal(await bench.root.ok('pread', target, 3, i * MIB + 500), String(i).repeat(3));
      assert.equal((await bench.root.fstat(target)).size, 10 * MIB);
    });

    it('errors: EBADF as opened, EINVAL for overlapping ranges of one file', async () => {
      await bench.root.file('f', 'x'.repeat(1000));
      const fd = await bench.root.open('f', 'O_RDWR');
      await bench.root.fails('EINVAL', 'copy_file_range', fd, fd, 500, 0, 100);
      await bench.root.fails(
        'EBADF',
        'copy_file_range',
        fd,
        await bench.root.open('f', 'O_RDONLY'),
        10,
        0,
        500,
      );
      await bench.root.fails(
        'EBADF',
        'copy_file_range',
        await bench.root.open('f', 'O_WRONLY'),
        fd,
        10,
        0,
        500,
      );
      await bench.root.fails(
        'EBADF',
        'copy_file_range',
        fd,
        await bench.root.open('f', 'O_WRONLY|O_APPEND'),
        10,
        0,
        500,
      );
    });
  });
}

function handleCases(bench: Bench): void {
  describe('open_by_handle_at', () => {
    it('opens what a handle was made of, by whatever name it goes now', async () => {
      await bench.root.file('f', 'content');
      const handle = (await bench.root.ok('handleOf', 'f')) as string;
      await bench.root.ok('rename', 'f', 'g');
      const fd = (await bench.root.ok('openHandle', handle, 'O_RDONLY')) as number;
      assert.equal(await bench.root.ok('read', fd, 100), 'content');
    });

    it('ESTALE for a file or directory that has been removed, unless it is still open', async () => {
      await bench.root.file('f', 'content');
      await bench.root.ok('mkdir', 'd');
      const [file, directory] = [
        await bench.root.ok('handleOf', 'f'),
        await bench.root.ok('handleOf', 'd'),
      ] as [string, string];
      const fd = await bench.root.open('f', 'O_RDONLY');
      await bench.root.ok('unlink', 'f');
      await bench.root.ok('rmdir', 'd');
      const again = (await bench.root.ok('openHandle', file, 'O_RDONLY')) as number;
      assert.equal(await bench.root.ok('read', again, 100), 'content');
      for (const open of [fd, again]) await bench.root.ok('close', open);
      for (const handle of [file, directory])
        await bench.root.fails('ESTALE', 'openHandle', handle, 'O_RDONLY');
    });
  });
}

function temporaryCases(bench: Bench): void {
  describe('O_TMPFILE', () => {
    it('a file without a name, that linkat names', async () => {
      await bench.root.ok('mkdir', 'd', 0o777);
      const fd = await bench.alice.open('d', 'O_RDWR|O_TMPFILE', 0o640);
      const made = await bench.alice.fstat(fd);
      assert.deepEqual(
        [made.type, made.mode, made.nlink, made.uid],
        ['file', 0o640, 0, bench.alice.user.uid],
      );
      assert.deepEqual(await bench.root.ok('list', 'd'), []);
      await bench.alice.ok('write', fd, 'content');
      await bench.alice.ok('linkat_fd', fd, 'd/named');
      assert.equal((await bench.alice.fstat(fd)).nlink, 1);
      assert.equal(await bench.root.ok('readAll', 'd/named'), 'content');
      await bench.alice.ok('close', fd);
      assert.equal((await bench.root.stat('d/named')).size, 7);
    });

    it('with O_EXCL it never gets a name; without one it is gone at close', async () => {
      const fd = await bench.root.open('.', 'O_RDWR|O_TMPFILE|O_EXCL', 0o600);
      await bench.root.ok('write', fd, 'x');
      await bench.root.fails('ENOENT', 'linkat_fd', fd, 'named');
      await bench.root.ok('close', fd);
      assert.deepEqual(await bench.root.ok('list', '.'), []);
    });

    it('needs a directory that may be written, and write access', async () => {
      await bench.root.ok('mkdir', 'd', 0o755);
      await bench.root.file('f');
      await bench.alice.fails('EACCES', 'open', 'd', 'O_RDWR|O_TMPFILE', 0o600);
      await bench.root.fails('ENOTDIR', 'open', 'f', 'O_RDWR|O_TMPFILE', 0o600);
      await bench.root.fails('EINVAL', 'open', 'd', 'O_RDONLY|O_TMPFILE', 0o600);
    });
  });
}
