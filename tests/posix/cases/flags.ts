import assert from 'node:assert/strict';
import { type Bench, type Features, touchedTimes } from '../bench.js';
import { allowed, appendOnlyFileCases, type Call, immutableFileCases, refused } from './guarded-files.js';

const PUNCH_HOLE = 2;
const EXCHANGE = 2;
/** A moment of the past, ns. */
const PAST = '1000000000000000000';
/** To change flags the file is opened for reading, which may count as a read. */
const CTIME_ALONE = /^(atime )?ctime$/;

/** chattr(1) and lsattr(1): ioctl_iflags(2), and what the flags forbid. */
export function flagCases(bench: Bench, features: Features): void {
  describe('inode flags', () => {
    before(function () {
      if (!features.flags) this.skip();
    });
    afterEach(() => bench.root.ok('clearFlags'));
    settingCases(bench);
    immutableFileCases(bench, features);
    appendOnlyFileCases(bench, features);
    directoryCases(bench, features);
    orderCases(bench);
    otherFlagCases(bench);
  });
}

function settingCases(bench: Bench): void {
  describe('are set and read', () => {
    it('on files and directories, as ioctl_iflags(2) and as struct fsxattr, and change the ctime alone', async () => {
      await bench.root.file('f');
      await bench.root.ok('mkdir', 'd');
      for (const path of ['f', 'd']) {
        assert.equal(await bench.root.ok('lsattr', path), '');
        for (const letter of ['d', 'A', 'a', 'i']) {
          const touched = await touchedTimes(bench.root, path, () =>
            bench.root.ok('chattr', path, `+${letter}`),
          );
          assert.match(touched, CTIME_ALONE, letter);
          assert.equal(await bench.root.ok('lsattr', path), letter);
          assert.equal(await bench.root.ok('xattrFlags', path), letter);
          await bench.root.ok('setXattrFlags', path, '');
          assert.equal(await bench.root.ok('lsattr', path), '');
          await bench.root.ok('setXattrFlags', path, letter);
          assert.equal(await bench.root.ok('lsattr', path), letter);
          await bench.root.ok('chattr', path, `-${letter}`);
          assert.equal(await bench.root.ok('lsattr', path), '');
        }
        await bench.root.ok('chattr', path, '+iadA');
        assert.equal(await bench.root.ok('lsattr', path), 'iadA');
      }
    });

    it('a change of nothing is a change: of the ctime', async () => {
      await bench.root.file('f');
      for (const change of ['+d', '+d']) {
        const touched = await touchedTimes(bench.root, 'f', () => bench.root.ok('chattr', 'f', change));
        assert.match(touched, CTIME_ALONE);
      }
    });

    it('immutable and append-only by root alone, the others by the owner, none by anybody else', async () => {
      await bench.alice.file('f', '', 0o666);
      await bench.alice.ok('mkdir', 'd', 0o777);
      for (const path of ['f', 'd']) {
        await refused(bench.alice, [
          ['chattr', path, '+i'],
          ['chattr', path, '+a'],
        ]);
        await bench.alice.ok('chattr', path, '+dA');
        await refused(bench.bob, [
          ['chattr', path, '-d'],
          ['chattr', path, '+i'],
          ['setXattrFlags', path, ''],
        ]);
        assert.equal(await bench.bob.ok('lsattr', path), 'dA');
        await bench.root.ok('chattr', path, '+a');
        await refused(bench.alice, [
          ['chattr', path, '-a'],
          ['setXattrFlags', path, 'dA'],
        ]);
        await bench.alice.ok('chattr', path, '-d');
        assert.equal(await bench.alice.ok('lsattr', path), 'aA');
        await bench.root.ok('chattr', path, '-a');
      }
    });

    it('who may not read a file cannot ask', async () => {
      await bench.root.file('f', '', 0o600);
      await bench.alice.fails('EACCES', 'lsattr', 'f');
    });

    it('an unknown flag: EOPNOTSUPP, and nothing is set', async () => {
      await bench.root.file('f');
      await bench.root.fails(['EOPNOTSUPP', 'ENOTSUP'], 'chattr', 'f', '+Cd');
      assert.equal(await bench.root.ok('lsattr', 'f'), '');
    });

    it('other ioctls, and other kinds of files: ENOTTY', async () => {
      await bench.root.file('f');
      const fd = await bench.root.open('f', 'O_RDONLY');
      await bench.root.fails('ENOTTY', 'control', fd, 0x80085555, 8);
      await bench.root.fails('ENOTTY', 'control', fd, 0x5401, 64); // TCGETS
      await bench.root.ok('mkfifo', 'p');
      const pipe = await bench.root.open('p', 'O_RDONLY|O_NONBLOCK');
      await bench.root.fails('ENOTTY', 'control', pipe, 0x80086601, 8);
    });

    it('of an immutable file no other flag changes, unless it is made mutable', async () => {
      await bench.root.file('f');
      await bench.root.ok('chattr', 'f', '+iA');
      await refused(bench.root, [
        ['chattr', 'f', '+d'],
        ['chattr', 'f', '-A'],
        ['setXattrFlags', 'f', 'i'],
      ]);
      await bench.root.ok('chattr', 'f', '+i');
      await bench.root.ok('chattr', 'f', '-iA+d');
      assert.equal(await bench.root.ok('lsattr', 'f'), 'd');
    });
  });
}

function directoryCases(bench: Bench, { linux }: Features): void {
  describe('of a directory', () => {
    beforeEach(async () => {
      await bench.root.ok('mkdir', 'd', 0o777);
      await bench.root.ok('mkdir', 'd/empty', 0o777);
      await bench.root.ok('mkdir', 'd/full', 0o777);
      await bench.root.file('d/full/x');
      await bench.root.file('d/f', 'content', 0o666);
      await bench.root.file('g', 'other', 0o666);
      await bench.root.ok('mkdir', 'e', 0o777);
    });
    const removals: Call[] = [
      ['unlink', 'd/f'],
      ['rmdir', 'd/empty'],
      ['rmdir', 'd/full'],
      ['rename', 'd/f', 'd/h'],
      ['rename', 'd/f', 'h'],
      ['rename', 'd/empty', 'e'],
      ['rename', 'g', 'd/f'],
      ['rename', 'e', 'd/empty'],
      ['renameat2', 'd/f', 'g', EXCHANGE],
      ['renameat2', 'd/f', 'd/empty', EXCHANGE],
      ['rmdir', 'd'],
      ['rename', 'd', 'dd'],
    ];

    it('immutable: no name is made, removed or renamed in it; what is in it changes', async () => {
      await bench.root.ok('chattr', 'd', '+i');
      const creations: Call[] = [
        ['open', 'd/n', 'O_WRONLY|O_CREAT'],
        ['open', 'd/n', 'O_WRONLY|O_CREAT|O_EXCL'],
        ['mkdir', 'd/n'],
        ['mkfifo', 'd/n'],
        ['symlink', 'target', 'd/n'],
        ['link', 'g', 'd/n'],
        ['rename', 'g', 'd/n'],
        ['rename', 'e', 'd/n'],
        ['renameat2', 'g', 'd/n', 1],
        ['chmod', 'd', 0o700],
        ['utimensat', 'd', 'now', 'now'],
        ['setxattr', 'd', 'user.a', 'v'],
      ];
      if (linux) creations.push(['open', 'd', 'O_RDWR|O_TMPFILE']);
      for (const agent of [bench.root, bench.alice])
        await refused(agent, [...creations.slice(0, 9), ...removals]);
      await refused(bench.root, creations);
      assert.deepEqual(await bench.root.ok('list', 'd'), ['empty', 'f', 'full']);
      await allowed(bench.root, [
        ['writeAll', 'd/f', 'changed'],
        ['open', 'd/f', 'O_RDWR|O_CREAT'],
        ['chmod', 'd/f', 0o600],
        ['writeAll', 'd/full/new', ''],
        ['unlink', 'd/full/new'],
        ['link', 'd/f', 'l'],
      ]);
      await bench.root.ok('chattr', 'd', '-i');
      await allowed(bench.root, [
        ['rename', 'd', 'dd'],
        ['unlink', 'dd/f'],
      ]);
    });

    it('append-only: names are made in it, none is removed or renamed', async () => {
      await bench.root.ok('chattr', 'd', '+a');
      for (const agent of [bench.root, bench.alice]) await refused(agent, removals);
      await refused(bench.root, [
        ['chmod', 'd', 0o700],
        ['utimensat', 'd', PAST, PAST],
      ]);
      for (const [agent, end] of [
        [bench.root, 'r'],
        [bench.alice, 'a'],
      ] as const) {
        await allowed(agent, [
          ['writeAll', `d/file-${end}`, ''],
          ['mkdir', `d/dir-${end}`],
          ['symlink', 't', `d/symlink-${end}`],
          ['writeAll', `out-${end}`, ''],
          ['rename', `out-${end}`, `d/moved-${end}`],
        ]);
        await refused(agent, [
          ['unlink', `d/file-${end}`],
          ['rmdir', `d/dir-${end}`],
          ['unlink', `d/symlink-${end}`],
          ['rename', `d/moved-${end}`, `back-${end}`],
        ]);
      }
      await bench.root.ok('link', 'g', 'd/linked');
      if (linux) {
        const fd = await bench.root.open('d', 'O_RDWR|O_TMPFILE');
        await bench.root.ok('linkat_fd', fd, 'd/temporary');
      }
      await bench.root.ok('chattr', 'd', '-a');
      await bench.root.ok('unlink', 'd/file-a');
    });

    it('many names at once', async () => {
      await allowed(
        bench.root,
        Array.from({ length: 20 }, (_, i): Call => ['writeAll', `d/many-${i}`, '']),
      );
      await bench.root.ok('chattr', 'd', '+i');
      await refused(
        bench.root,
        Array.from({ length: 20 }, (_, i): Call => ['unlink', `d/many-${i}`]),
      );
      await refused(
        bench.root,
        Array.from({ length: 20 }, (_, i): Call => ['mkdir', `d/more-${i}`]),
      );
      await bench.root.ok('chattr', 'd', '-i+a');
      await refused(
        bench.root,
        Array.from({ length: 20 }, (_, i): Call => ['unlink', `d/many-${i}`]),
      );
      await allowed(
        bench.root,
        Array.from({ length: 20 }, (_, i): Call => ['mkdir', `d/more-${i}`]),
      );
    });
  });
}

function orderCases(bench: Bench): void {
  it('names are looked up before flags are minded', async () => {
    await bench.root.ok('mkdir', 'd', 0o777);
    await bench.root.file('d/f');
    await bench.root.ok('mkdir', 'd/sub');
    await bench.root.file('d/sub/x');
    await bench.root.file('g');
    await bench.root.ok('chattr', 'd', '+i');
    await refused(
      bench.root,
      [
        ['mkdir', 'd/f'],
        ['link', 'g', 'd/f'],
        ['open', 'd/f', 'O_RDWR|O_CREAT|O_EXCL'],
        ['renameat2', 'g', 'd/f', 1],
      ],
      'EEXIST',
    );
    await refused(
      bench.root,
      [
        ['unlink', 'd/none'],
        ['rmdir', 'd/none'],
        ['rename', 'd/none', 'x'],
        ['renameat2', 'g', 'd/none', EXCHANGE],
      ],
      'ENOENT',
    );
    await refused(bench.root, [['rename', 'd', 'd/sub/y']], 'EINVAL');
    await refused(bench.root, [['rename', 'd/sub/x', 'd']], 'ENOTEMPTY');
    await refused(bench.root, [['truncate', 'd', 0]], 'EISDIR');
  });

  it('arguments are minded before flags', async () => {
    await bench.root.file('f', 'content');
    const fd = await bench.root.open('f', 'O_RDWR');
    const reading = await bench.root.open('f', 'O_RDONLY');
    await bench.root.ok('chattr', 'f', '+i');
    await refused(
      bench.root,
      [
        ['fallocate', fd, 0, 0, 0],
        ['fallocate', fd, 0, -1, 4],
      ],
      'EINVAL',
    );
    await bench.root.fails(['EOPNOTSUPP', 'ENOTSUP'], 'fallocate', fd, PUNCH_HOLE, 0, 4);
    await refused(bench.root, [['fallocate', reading, 0, 0, 4]], 'EBADF');
    await refused(bench.root, [['setxattr', 'f', 'user.a', 'v', 4]], 'EINVAL');
    await refused(bench.root, [
      ['setxattr', 'f', 'unknown.a', 'v'],
      ['removexattr', 'f', 'unknown.a'],
    ]);
  });

  it('who may not write to it has EPERM, or EACCES where the kernel checks modes by itself', async () => {
    await bench.root.file('f', '', 0o644);
    await bench.root.ok('mkdir', 'd', 0o755);
    for (const path of ['f', 'd']) await bench.root.ok('chattr', path, '+i');
    for (const call of [
      ['open', 'f', 'O_WRONLY'],
      ['mkdir', 'd/n'],
      ['setxattr', 'f', 'user.a', 'v'],
    ] as Call[])
      await bench.alice.fails(['EPERM', 'EACCES'], ...call);
  });
}

function otherFlagCases(bench: Bench): void {
  it('A: reads change no atime, of files and directories', async () => {
    await bench.root.file('f', 'content');
    await bench.root.ok('mkdir', 'd');
    await bench.root.ok('chattr', 'f', '+A');
    await bench.root.ok('chattr', 'd', '+A');
    const read = async (): Promise<void> => {
      await bench.root.ok('readAll', 'f');
      await bench.root.ok('list', 'd');
    };
    assert.equal(await touchedTimes(bench.root, 'f', read), '');
    assert.equal(await touchedTimes(bench.root, 'd', read), '');
    assert.equal(
      await touchedTimes(bench.root, 'f', () => bench.root.ok('utimensat', 'f', 'now', 'omit')),
      'atime ctime',
    );
    await bench.root.ok('chattr', 'f', '-A');
  });

  it('d and A go to what is made in a directory, i and a do not', async () => {
    await bench.root.ok('mkdir', 'd');
    await bench.root.ok('chattr', 'd', '+adA');
    const made: Call[] = [
      ['writeAll', 'd/f', 'content'],
      ['mkdir', 'd/sub'],
      ['mkdir', 'd/sub/sub'],
      ['writeAll', 'd/sub/f', ''],
    ];
    await allowed(bench.root, made);
    for (const [, path] of made)
      assert.equal(await bench.root.ok('lsattr', path as string), 'dA', path as string);
    assert.equal(await touchedTimes(bench.root, 'd/f', () => bench.root.ok('readAll', 'd/f')), '');
    await bench.root.file('g');
    await bench.root.ok('rename', 'g', 'd/sub/g');
    await bench.root.ok('link', 'd/sub/g', 'd/sub/h');
    assert.equal(await bench.root.ok('lsattr', 'd/sub/h'), '');
    const fd = await bench.root.open('d', 'O_RDWR|O_TMPFILE');
    await bench.root.ok('linkat_fd', fd, 'd/temporary');
    assert.equal(await bench.root.ok('lsattr', 'd/temporary'), 'dA');
  });
}
