import assert from 'node:assert/strict';
import type { Agent, Argument, Attributes } from '../agent.js';
import { ALICE, type Bench, BOB, touchedTimes } from '../bench.js';

/** Ways to make an entry, and the type that results. */
const MAKERS: {
  title: string;
  type: Attributes['type'];
  of(path: string, mode: number): [string, ...Argument[]];
}[] = [
  { title: 'open', type: 'file', of: (p, mode) => ['open', p, 'O_RDWR|O_CREAT|O_EXCL', mode] },
  { title: 'mkdir', type: 'dir', of: (p, mode) => ['mkdir', p, mode] },
  { title: 'mkfifo', type: 'fifo', of: (p, mode) => ['mkfifo', p, mode] },
  { title: 'mknod of a file', type: 'file', of: (p, mode) => ['mknod', p, 0o100000 | mode] },
  { title: 'mknod of a socket', type: 'socket', of: (p, mode) => ['mknod', p, 0o140000 | mode] },
];

const EXISTING: { title: string; make(agent: Agent, path: string): Promise<unknown> }[] = [
  { title: 'a file', make: (agent, path) => agent.file(path) },
  { title: 'a directory', make: (agent, path) => agent.ok('mkdir', path) },
  { title: 'a fifo', make: (agent, path) => agent.ok('mkfifo', path) },
  { title: 'a link', make: (agent, path) => agent.ok('symlink', 'x', path) },
  { title: 'a socket', make: (agent, path) => agent.ok('bind', path) },
];

/** open(2) with O_CREAT, mkdir(2), mkfifo(3), mknod(2), symlink(2). */
export function createCases(bench: Bench): void {
  describe('making entries', () => {
    for (const { title, type, of } of MAKERS) {
      it(`${title}: type, mode under the umask, owner, link count and times are set`, async () => {
        await bench.alice.ok('umask', 0o027);
        await bench.alice.ok(...of('new', 0o777));
        const made = await bench.root.lstat('new');
        assert.equal(made.type, type);
        assert.equal(made.mode, 0o750);
        assert.deepEqual([made.uid, made.gid], [ALICE.uid, ALICE.gid]);
        assert.equal(made.nlink, type === 'dir' ? 2 : 1);
        assert.equal(made.atime, made.ctime);
        assert.equal(made.mtime, made.ctime);
        await bench.alice.ok('umask', 0);
      });

      it(`${title}: mode bits 07777 are kept as asked`, async () => {
        for (const mode of [0, 0o1, 0o640, 0o777, 0o1755, 0o4755]) {
          await bench.root.ok(...of(`m${mode}`, mode));
          // mkdir(2): which bits beyond 0777 a directory takes is the system's; Linux takes the sticky bit.
          const expected = type === 'dir' ? mode & 0o1777 : mode;
          assert.equal((await bench.root.lstat(`m${mode}`)).mode, expected, `mode ${mode.toString(8)}`);
        }
      });

      it(`${title}: the directory's mtime and ctime change`, async () => {
        await bench.root.ok('mkdir', 'd');
        const touched = await touchedTimes(bench.root, 'd', () => bench.root.ok(...of('d/new', 0o644)));
        assert.equal(touched, 'mtime ctime');
        assert.equal((await bench.root.stat('d')).nlink, type === 'dir' ? 3 : 2);
      });

      it(`${title}: a setgid directory hands down its group, and to directories the bit`, async () => {
        await bench.root.ok('mkdir', 'd');
        await bench.root.ok('chown', 'd', -1, 64_003);
        await bench.root.ok('chmod', 'd', 0o2777);
        await bench.alice.ok(...of('d/new', 0o755));
        const made = await bench.root.lstat('d/new');
        assert.deepEqual([made.uid, made.gid], [ALICE.uid, 64_003]);
        assert.equal(made.mode, type === 'dir' ? 0o2755 : 0o755);
      });

      it(`${title}: EACCES without write permission on the directory, and nothing is made`, async () => {
        await bench.root.ok('mkdir', 'd', 0o755);
        const before = await bench.root.stat('d');
        await bench.alice.fails('EACCES', ...of('d/new', 0o644));
        await bench.root.fails('ENOENT', 'lstat', 'd/new');
        assert.deepEqual(await bench.root.stat('d'), before);
      });

      it(`${title}: the group's and others' permission decide as POSIX says: owner first, then group`, async () => {
        await bench.root.ok('mkdir', 'd', 0o777);
        await bench.root.ok('chown', 'd', ALICE.uid, 64_003);
        await bench.root.ok('chmod', 'd', 0o077);
        await bench.alice.fails('EACCES', ...of('d/a', 0o644));
        await bench.bob.ok(...of('d/b', 0o644));
        await bench.root.ok('chmod', 'd', 0o707);
        await bench.bob.fails('EACCES', ...of('d/c', 0o644));
        await bench.alice.ok(...of('d/d', 0o644));
      });

      for (const existing of EXISTING) {
        it(`${title}: EEXIST on ${existing.title}, even a directory without permission`, async () => {
          await existing.make(bench.root, 'new');
          await bench.root.fails('EEXIST', ...of('new', 0o644));
          await bench.root.ok('mkdir', 'd');
          await existing.make(bench.root, 'd/new');
          await bench.root.ok('chmod', 'd', 0o555);
          await bench.alice.fails('EEXIST', ...of('d/new', 0o644));
        });
      }
    }

    it('a file made with the setgid bit in a foreign group loses it, unless its maker may have it', async () => {
      await bench.root.ok('mkdir', 'd');
      await bench.root.ok('chown', 'd', -1, 64_003);
      await bench.root.ok('chmod', 'd', 0o2777);
      await bench.alice.ok('close', await bench.alice.open('d/alice', 'O_CREAT|O_WRONLY', 0o2775));
      await bench.bob.ok('close', await bench.bob.open('d/bob', 'O_CREAT|O_WRONLY', 0o2775));
      assert.equal((await bench.root.stat('d/alice')).mode, 0o775);
      assert.equal((await bench.root.stat('d/bob')).mode, 0o2775);
    });

    it("device nodes keep their numbers, and are root's to make", async () => {
      await bench.root.ok('mknod', 'null', 0o020644, 0x103);
      await bench.root.ok('mknod', 'loop', 0o060644, 0x7_0000_02 & 0xfffff);
      const node = await bench.root.stat('null');
      assert.deepEqual([node.type, node.rdev, node.size], ['char', 0x103, 0]);
      await bench.alice.fails('EPERM', 'mknod', 'mine', 0o020644, 0x103);
      await bench.alice.fails('EPERM', 'mknod', 'mine', 0o060644, 0x103);
      await bench.root.fails(['EPERM', 'EINVAL'], 'mknod', 'dir', 0o040755, 0);
    });

    it('a bound socket is a file, and its name is taken', async () => {
      await bench.alice.ok('bind', 'socket');
      assert.equal((await bench.root.stat('socket')).type, 'socket');
      await bench.alice.fails('EADDRINUSE', 'bind', 'socket');
      await bench.alice.fails(['ENXIO', 'EOPNOTSUPP'], 'open', 'socket', 'O_RDONLY');
    });
  });

  openCases(bench);
  symlinkCases(bench);
}

function openCases(bench: Bench): void {
  describe('open', () => {
    it('permission bits decide for owner, group and others, whatever the flags', async () => {
      const flags = ['O_RDONLY', 'O_WRONLY', 'O_RDWR'] as const;
      const needed = [4, 2, 6];
      await bench.root.file('f');
      for (const [agent, owner, group, shift] of [
        [bench.alice, ALICE.uid, 0, 6],
        [bench.bob, 0, 64_003, 3],
        [bench.bob, 0, 0, 0],
      ] as const) {
        await bench.root.ok('chown', 'f', owner, group);
        for (let bits = 0; bits < 8; bits++) {
          await bench.root.ok('chmod', 'f', bits << shift);
          for (const [index, flag] of flags.entries()) {
            const need = needed[index] as number;
            if ((bits & need) === need) await agent.ok('close', await agent.open('f', flag));
            else await agent.fails('EACCES', 'open', 'f', flag);
          }
        }
      }
    });

    it('O_CREAT on an existing file opens it and changes nothing', async () => {
      await bench.root.file('f', 'content', 0o640);
      const before = await bench.root.stat('f');
      await bench.root.ok('tick');
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT', 0o777);
      assert.deepEqual(await bench.root.fstat(fd), before);
      assert.equal(await bench.root.ok('read', fd, 100), 'content');
    });

    it('O_TRUNC empties the file and changes its mtime and ctime, also when it was empty', async () => {
      await bench.root.file('f', 'content', 0o644);
      for (let i = 0; i < 2; i++) {
        const touched = await touchedTimes(bench.root, 'f', async () =>
          bench.root.ok('close', await bench.root.open('f', 'O_WRONLY|O_TRUNC')),
        );
        assert.equal(touched, 'mtime ctime');
        assert.equal((await bench.root.stat('f')).size, 0);
      }
    });

    it('O_TRUNC empties the file with O_RDONLY, too', async () => {
      for (const flags of ['O_RDONLY|O_TRUNC', 'O_RDONLY|O_TRUNC|O_CREAT']) {
        await bench.root.file('f', 'content', 0o644);
        const touched = await touchedTimes(bench.root, 'f', async () =>
          bench.root.ok('close', await bench.root.open('f', flags)),
        );
        assert.equal(touched, 'mtime ctime', flags);
        assert.equal(await bench.root.ok('readAll', 'f'), '', flags);
      }
    });

    it('O_TRUNC without permission leaves the file as it is', async () => {
      await bench.root.file('f', 'content', 0o444);
      await bench.alice.fails('EACCES', 'open', 'f', 'O_WRONLY|O_TRUNC');
      await bench.alice.fails('EACCES', 'open', 'f', 'O_RDONLY|O_TRUNC');
      assert.equal(await bench.root.ok('readAll', 'f'), 'content');
    });

    it('a file made without permission bits is open for its maker all the same', async () => {
      const fd = await bench.alice.open('f', 'O_RDWR|O_CREAT|O_EXCL', 0);
      assert.equal(await bench.alice.ok('write', fd, 'abc'), 3);
      assert.equal(await bench.alice.ok('pread', fd, 3, 0), 'abc');
      await bench.alice.fails('EACCES', 'open', 'f', 'O_RDONLY');
    });

    it('directories: EISDIR for writing and O_CREAT, ENOTDIR for O_DIRECTORY on anything else', async () => {
      await bench.root.ok('mkdir', 'd');
      await bench.root.file('f');
      for (const flags of ['O_WRONLY', 'O_RDWR', 'O_RDONLY|O_TRUNC', 'O_RDONLY|O_CREAT'])
        await bench.root.fails('EISDIR', 'open', 'd', flags);
      await bench.root.fails('EEXIST', 'open', 'd', 'O_RDONLY|O_CREAT|O_EXCL');
      await bench.root.fails('ENOTDIR', 'open', 'f', 'O_RDONLY|O_DIRECTORY');
      const fd = await bench.root.open('d', 'O_RDONLY|O_DIRECTORY');
      await bench.root.fails('EISDIR', 'read', fd, 1);
      await bench.root.fails('EBADF', 'write', fd, 'x');
    });

    it('links: O_NOFOLLOW is ELOOP, O_EXCL does not follow, O_CREAT makes what a link points to', async () => {
      await bench.root.ok('symlink', 'target', 'link');
      await bench.root.fails('ELOOP', 'open', 'link', 'O_RDONLY|O_NOFOLLOW');
      await bench.root.fails('EEXIST', 'open', 'link', 'O_WRONLY|O_CREAT|O_EXCL', 0o644);
      await bench.root.fails('ENOENT', 'open', 'link', 'O_RDONLY');
      await bench.root.ok('close', await bench.root.open('link', 'O_WRONLY|O_CREAT', 0o644));
      assert.equal((await bench.root.lstat('target')).type, 'file');
    });

    it('a fifo without a reader: ENXIO for O_WRONLY | O_NONBLOCK', async () => {
      await bench.root.ok('mkfifo', 'p');
      await bench.root.fails('ENXIO', 'open', 'p', 'O_WRONLY|O_NONBLOCK');
      await bench.root.ok('close', await bench.root.open('p', 'O_RDONLY|O_NONBLOCK'));
    });

    it('a descriptor reads or writes as it was opened: EBADF', async () => {
      await bench.root.file('f', 'x');
      await bench.root.fails('EBADF', 'write', await bench.root.open('f', 'O_RDONLY'), 'x');
      await bench.root.fails('EBADF', 'read', await bench.root.open('f', 'O_WRONLY'), 1);
      await bench.root.fails(['EINVAL', 'EBADF'], 'ftruncate', await bench.root.open('f', 'O_RDONLY'), 0);
    });

    it('what is open stays usable when permissions go, and its name too', async () => {
      const fd = await bench.alice.open('f', 'O_RDWR|O_CREAT', 0o600);
      await bench.alice.ok('write', fd, 'kept');
      await bench.root.ok('chmod', 'f', 0);
      await bench.root.ok('chown', 'f', 0, 0);
      await bench.root.ok('unlink', 'f');
      assert.equal(await bench.alice.ok('pread', fd, 10, 0), 'kept');
      await bench.alice.ok('write', fd, ' on');
      const { nlink, size } = await bench.alice.fstat(fd);
      assert.deepEqual({ nlink, size }, { nlink: 0, size: 7 });
      await bench.alice.ok('close', fd);
    });

    it('the present directory of a process may be removed: then nothing can be made in it', async () => {
      await bench.root.ok('mkdir', 'gone');
      await bench.root.ok('chdir', 'gone');
      await bench.root.ok('rmdir', '../gone');
      await bench.root.fails('ENOENT', 'open', 'new', 'O_WRONLY|O_CREAT', 0o644);
      await bench.root.fails('ENOENT', 'mkdir', 'new');
      await bench.root.fails('ENOENT', 'symlink', 'x', 'new');
      assert.deepEqual(await bench.root.ok('list', '.'), []);
      assert.equal((await bench.root.stat('.')).nlink, 0);
    });

    it('an open directory that loses its name keeps its attributes, extended ones too, and takes new ones', async () => {
      const { root } = bench;
      for (const replaced of [false, true]) {
        await root.ok('mkdir', 'gone', 0o750);
        await root.ok('setxattr', 'gone', 'user.a', 'v');
        const fd = await root.open('gone', 'O_RDONLY|O_DIRECTORY');
        const before = await root.fstat(fd);
        await root.ok('tick');
        if (replaced) {
          await root.ok('mkdir', 'other');
          await root.ok('rename', 'other', 'gone');
        } else await root.ok('rmdir', 'gone');
        const after = await root.fstat(fd);
        assert.equal(after.nlink, 0);
        assert.equal(after.mode, 0o750);
        assert.equal(after.mtime, before.mtime);
        assert.ok(BigInt(after.ctime) > BigInt(before.ctime), 'the loss of the name shows');
        assert.equal(await root.ok('fgetxattr', fd, 'user.a'), 'v');
        assert.deepEqual(await root.ok('flistxattr', fd), ['user.a']);
        await root.fails('ENODATA', 'fgetxattr', fd, 'user.b');
        await root.ok('fsetxattr', fd, 'user.b', 'w');
        assert.deepEqual(await root.ok('flistxattr', fd), ['user.a', 'user.b']);
        await root.ok('fchmod', fd, 0o700);
        await root.ok('futimens', fd, '5', '6');
        const { mode, mtime } = await root.fstat(fd);
        assert.deepEqual({ mode, mtime }, { mode: 0o700, mtime: '6' });
        await root.ok('close', fd);
        if (replaced) await root.ok('rmdir', 'gone');
      }
    });

    it('BOB is in his further group', async () => {
      await bench.root.file('f', 'x', 0o040);
      await bench.root.ok('chown', 'f', 0, BOB.groups[0] as number);
      assert.equal(await bench.bob.ok('readAll', 'f'), 'x');
      await bench.alice.fails('EACCES', 'open', 'f', 'O_RDONLY');
    });
  });
}

function symlinkCases(bench: Bench): void {
  describe('symlink and readlink', () => {
    it('a link holds its text, up to 4095 bytes, whether or not that leads anywhere', async () => {
      for (const target of [
        'x',
        '/',
        '../..',
        'a b\n',
        '\xff',
        't'.repeat(255),
        't/'.repeat(2047).concat('t'),
      ]) {
        await bench.alice.ok('symlink', target, 'link');
        assert.equal(await bench.root.ok('readlink', 'link'), target);
        const { type, size, uid, gid, nlink, mode } = await bench.root.lstat('link');
        assert.deepEqual(
          { type, size, uid, gid, nlink, mode },
          { type: 'symlink', size: target.length, ...ALICE, nlink: 1, mode: 0o777 },
        );
        await bench.alice.ok('unlink', 'link');
      }
      await bench.root.fails('ENAMETOOLONG', 'symlink', 't'.repeat(4096), 'link');
      await bench.root.fails('ENOENT', 'symlink', '', 'link');
    });

    it('EEXIST on whatever is there, EINVAL for readlink of anything else', async () => {
      await bench.root.file('f');
      await bench.root.ok('mkdir', 'd');
      await bench.root.ok('mkfifo', 'p');
      for (const name of ['f', 'd', 'p']) {
        await bench.root.fails('EEXIST', 'symlink', 'x', name);
        await bench.root.fails('EINVAL', 'readlink', name);
      }
    });

    it("the directory's mtime and ctime change; EACCES where it may not be written", async () => {
      await bench.root.ok('mkdir', 'd', 0o755);
      assert.equal(
        await touchedTimes(bench.root, 'd', () => bench.root.ok('symlink', 'x', 'd/link')),
        'mtime ctime',
      );
      await bench.alice.fails('EACCES', 'symlink', 'x', 'd/other');
      assert.equal(await bench.alice.ok('readlink', 'd/link'), 'x');
    });
  });
}
