import assert from 'node:assert/strict';
import type { Agent, Argument } from '../agent.js';
import { ALICE, type Bench, type Features, touchedTimes } from '../bench.js';

export type Call = readonly [string, ...Argument[]];

const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 16;
const EXCHANGE = 2;
/** A moment of the past, ns. */
const PAST = '1000000000000000000';
/** An access list that names a user: rw for alice. */
const NAMED_ACL =
  '\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x06\0\x01\xfa\0\0\x04\0\x04\0\xff\xff\xff\xff' +
  '\x10\0\x06\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff';
/** One that says what mode 0600 says. */
const MINIMAL_ACL =
  '\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x04\0\0\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff';
const ACL = 'system.posix_acl_access';

/** Each of these calls fails so. */
export async function refused(agent: Agent, calls: readonly Call[], errno = 'EPERM'): Promise<void> {
  for (const call of calls) await agent.fails(errno, ...call);
}

/** Each of these calls succeeds. */
export async function allowed(agent: Agent, calls: readonly Call[]): Promise<void> {
  for (const call of calls) await agent.ok(...call);
}

/** What may not be done to an immutable file, by name and by descriptors of before. */
export function immutableFileCases(bench: Bench, { linux, xattrs, acls }: Features): void {
  describe('an immutable file', () => {
    beforeEach(async () => {
      await bench.root.file('f', 'content', 0o666);
      await bench.root.file('other', 'other', 0o666);
    });

    it('is not opened for writing, changed, linked, removed or renamed, by root either', async () => {
      if (xattrs) await bench.root.ok('setxattr', 'f', 'user.a', 'v');
      await bench.root.ok('chattr', 'f', '+i');
      const before = await bench.root.stat('f');
      const calls: Call[] = [
        ['open', 'f', 'O_WRONLY'],
        ['open', 'f', 'O_RDWR'],
        ['open', 'f', 'O_RDWR|O_CREAT'],
        ['open', 'f', 'O_WRONLY|O_APPEND'],
        ['open', 'f', 'O_RDONLY|O_TRUNC'],
        ['truncate', 'f', 0],
        ['truncate', 'f', 7],
        ['chmod', 'f', 0o600],
        ['chmod', 'f', 0o666],
        ['chown', 'f', ALICE.uid, -1],
        ['chown', 'f', -1, -1],
        ['utimensat', 'f', 'now', 'now'],
        ['utimensat', 'f', PAST, 'omit'],
        ['utimensat', 'f', 'omit', 'now'],
        ['link', 'f', 'l'],
        ['unlink', 'f'],
        ['rename', 'f', 'g'],
        ['rename', 'other', 'f'],
        ['renameat2', 'f', 'other', EXCHANGE],
        ['renameat2', 'other', 'f', EXCHANGE],
      ];
      if (xattrs)
        calls.push(
          ['setxattr', 'f', 'user.b', 'v'],
          ['removexattr', 'f', 'user.a'],
          ['removexattr', 'f', 'user.none'],
        );
      if (acls)
        calls.push(
          ['setxattr', 'f', ACL, NAMED_ACL],
          ['setxattr', 'f', ACL, MINIMAL_ACL],
          ['removexattr', 'f', ACL],
        );
      await refused(bench.root, calls);
      await bench.root.ok('utimensat', 'f', 'omit', 'omit');
      assert.deepEqual({ ...(await bench.root.stat('f')), atime: '' }, { ...before, atime: '' });
      assert.equal(await bench.root.ok('readAll', 'f'), 'content');
      assert.deepEqual(await bench.root.ok('list', '.'), ['f', 'other']);
      if (xattrs) assert.deepEqual(await bench.root.ok('listxattr', 'f'), ['user.a']);
    });

    it('is read, synced and locked, and renaming it to itself does nothing', async () => {
      await bench.root.ok('chattr', 'f', '+i');
      const fd = await bench.alice.open('f', 'O_RDONLY');
      assert.equal(await bench.alice.ok('pread', fd, 7, 0), 'content');
      await allowed(bench.alice, [
        ['fsync', fd],
        ['lock', fd, 'r', 0, 0, true],
        ['rename', 'f', 'f'],
        ['open', 'f', 'O_RDONLY|O_CREAT'],
      ]);
    });

    it('is refused to those who have it open for writing already', async () => {
      const fd = await bench.root.open('f', 'O_RDWR');
      const appending = await bench.root.open('f', 'O_WRONLY|O_APPEND');
      const users = await bench.alice.open('f', 'O_RDWR');
      await bench.root.ok('write', fd, 'CON');
      await bench.root.ok('chattr', 'f', '+i');
      const calls: Call[] = [
        ['write', fd, 'x'],
        ['pwrite', fd, 'x', 100],
        ['write', appending, 'x'],
        ['ftruncate', fd, 0],
        ['ftruncate', fd, 100],
        ['fchmod', fd, 0o600],
        ['fchown', fd, ALICE.uid, -1],
        ['futimens', fd, 'now', 'now'],
        ['futimens', fd, PAST, PAST],
        ['posix_fallocate', fd, 0, 100],
      ];
      if (linux)
        calls.push(
          ['fallocate', fd, 0, 0, 100],
          ['fallocate', fd, PUNCH_HOLE | KEEP_SIZE, 0, 4],
          ['fallocate', fd, ZERO_RANGE, 0, 4],
        );
      if (xattrs) calls.push(['fsetxattr', fd, 'user.b', 'v']);
      await refused(bench.root, calls);
      await refused(bench.alice, [
        ['write', users, 'x'],
        ['ftruncate', users, 0],
      ]);
      assert.equal(await bench.root.ok('readAll', 'f'), 'CONtent');
      await bench.root.ok('fsync', fd);
      await bench.root.ok('chattr', 'f', '-i');
      await bench.root.ok('write', fd, 'T');
      assert.equal(await bench.root.ok('readAll', 'f'), 'CONTent');
    });

    it('is no target of copy_file_range, and a source', async function () {
      if (!linux) this.skip();
      const fd = await bench.root.open('f', 'O_RDWR');
      const other = await bench.root.open('other', 'O_RDWR');
      await bench.root.ok('chattr', 'f', '+i');
      await bench.root.fails('EPERM', 'copy_file_range', other, fd, 5, 0, 0);
      assert.equal(await bench.root.ok('copy_file_range', fd, other, 7, 0, 0), 7);
      assert.equal(await bench.root.ok('readAll', 'other'), 'content');
    });

    it('takes nothing from a mapping that is made or touched then', async () => {
      const fd = await bench.root.open('f', 'O_RDWR');
      await bench.root.ok('mapAndStore', fd, 'C');
      await bench.root.ok('chattr', 'f', '+i');
      assert.equal(await bench.root.ok('mapAndStore', fd, 'xxxx'), 'refused');
      await bench.root.ok('close', fd);
      assert.equal(await bench.root.ok('readAll', 'f'), 'Content');
    });

    it('keeps what was stored through a mapping before', async () => {
      const fd = await bench.root.open('f', 'O_RDWR');
      const key = await bench.root.ok<number>('mmap', fd, 7, 'rw', 'shared');
      await bench.root.ok('mstore', key, 0, 'CON');
      await bench.root.ok('chattr', 'f', '+i');
      await allowed(bench.root, [
        ['msync', key],
        ['munmap', key],
        ['fsync', fd],
      ]);
      assert.equal(await bench.root.ok('readAll', 'f'), 'CONtent');
    });

    it('has no name, and gets none', async function () {
      if (!linux) this.skip();
      const fd = await bench.root.open('.', 'O_RDWR|O_TMPFILE');
      await bench.root.ok('fchattr', fd, '+i');
      await bench.root.fails('EPERM', 'linkat_fd', fd, 'l');
      await bench.root.fails('EPERM', 'write', fd, 'x');
      await bench.root.ok('fchattr', fd, '-i');
      await bench.root.ok('linkat_fd', fd, 'l');
    });

    it('stays so by all of its names', async () => {
      await bench.root.ok('link', 'f', 'l');
      await bench.root.ok('chattr', 'f', '+i');
      await refused(bench.root, [
        ['unlink', 'l'],
        ['open', 'l', 'O_WRONLY'],
      ]);
    });
  });
}

/** The same of an append-only file. */
export function appendOnlyFileCases(bench: Bench, { linux, xattrs, acls }: Features): void {
  describe('an append-only file', () => {
    beforeEach(async () => {
      await bench.root.file('f', 'content', 0o666);
      await bench.root.file('other', 'other', 0o666);
    });

    it('is opened for writing with O_APPEND alone, and grows', async () => {
      await bench.root.ok('chattr', 'f', '+a');
      for (const agent of [bench.root, bench.alice]) {
        await refused(agent, [
          ['open', 'f', 'O_WRONLY'],
          ['open', 'f', 'O_RDWR'],
          ['open', 'f', 'O_RDWR|O_CREAT'],
          ['open', 'f', 'O_WRONLY|O_APPEND|O_TRUNC'],
          ['open', 'f', 'O_RDONLY|O_TRUNC'],
        ]);
        await agent.open('f', 'O_RDONLY');
        for (const flags of ['O_WRONLY|O_APPEND', 'O_RDWR|O_APPEND|O_CREAT']) {
          const fd = await agent.open('f', flags);
          await agent.ok('write', fd, '+');
          await agent.ok('pwrite', fd, '-', 0);
          await agent.ok('close', fd);
        }
      }
      assert.equal(await bench.root.ok('readAll', 'f'), 'content+-+-+-+-');
    });

    it('is not cut, linked, removed, renamed, or given another mode, owner or attribute', async () => {
      if (xattrs) await bench.root.ok('setxattr', 'f', 'user.a', 'v');
      await bench.root.ok('chattr', 'f', '+a');
      const before = await bench.root.stat('f');
      const calls: Call[] = [
        ['truncate', 'f', 0],
        ['truncate', 'f', 100],
        ['chmod', 'f', 0o600],
        ['chown', 'f', ALICE.uid, -1],
        ['utimensat', 'f', PAST, PAST],
        ['utimensat', 'f', 'now', 'omit'],
        ['utimensat', 'f', 'omit', 'now'],
        ['utimensat', 'f', PAST, 'omit'],
        ['link', 'f', 'l'],
        ['unlink', 'f'],
        ['rename', 'f', 'g'],
        ['rename', 'other', 'f'],
        ['renameat2', 'f', 'other', EXCHANGE],
        ['renameat2', 'other', 'f', EXCHANGE],
      ];
      if (xattrs) calls.push(['setxattr', 'f', 'user.b', 'v'], ['removexattr', 'f', 'user.a']);
      if (acls) calls.push(['setxattr', 'f', ACL, NAMED_ACL], ['setxattr', 'f', ACL, MINIMAL_ACL]);
      await refused(bench.root, calls);
      assert.deepEqual({ ...(await bench.root.stat('f')), atime: '' }, { ...before, atime: '' });
      assert.equal(await bench.root.ok('readAll', 'f'), 'content');
    });

    it('takes the present as its times, and chown to nobody', async () => {
      await bench.root.ok('chattr', 'f', '+a');
      const touched = await touchedTimes(bench.root, 'f', () =>
        bench.alice.ok('utimensat', 'f', 'now', 'now'),
      );
      assert.equal(touched, 'atime mtime ctime');
      await bench.root.ok('chown', 'f', -1, -1);
    });

    it('through descriptors of before it is written anywhere, and not cut', async () => {
      const fd = await bench.root.open('f', 'O_RDWR');
      await bench.root.ok('chattr', 'f', '+a');
      await bench.root.ok('write', fd, 'CON');
      await bench.root.ok('pwrite', fd, 'T', 3);
      const calls: Call[] = [
        ['ftruncate', fd, 0],
        ['ftruncate', fd, 100],
        ['fchmod', fd, 0o600],
        ['futimens', fd, PAST, PAST],
      ];
      if (linux)
        calls.push(['fallocate', fd, PUNCH_HOLE | KEEP_SIZE, 0, 4], ['fallocate', fd, ZERO_RANGE, 0, 4]);
      await refused(bench.root, calls);
      if (linux) await bench.root.ok('fallocate', fd, 0, 0, 10);
      await bench.root.ok('futimens', fd, 'now', 'now');
      assert.match(await bench.root.ok('readAll', 'f'), /^CONTent\0{0,3}$/);
    });

    it('gives O_APPEND up by no descriptor', async () => {
      await bench.root.ok('chattr', 'f', '+a');
      const fd = await bench.root.open('f', 'O_RDWR|O_APPEND');
      await bench.root.call('fdAppend', fd, false);
      await bench.root.call('pwrite', fd, 'x', 0);
      assert.equal(((await bench.root.ok('readAll', 'f')) as string).slice(0, 7), 'content');
    });

    it('is not changed through a mapping', async () => {
      await bench.root.ok('chattr', 'f', '+a');
      const fd = await bench.root.open('f', 'O_RDWR|O_APPEND');
      assert.equal(await bench.root.ok('mapAndStore', fd, 'xxxx'), 'refused');
      await bench.root.ok('close', fd);
      assert.equal(await bench.root.ok('readAll', 'f'), 'content');
    });

    it('is obeyed by a directory that was removed while it is open', async () => {
      for (const flag of ['+a', '+i']) {
        await bench.root.ok('mkdir', 'd');
        const fd = await bench.root.open('d', 'O_RDONLY|O_DIRECTORY');
        await bench.root.ok('rmdir', 'd');
        await bench.root.ok('fchattr', fd, flag);
        await bench.root.fails('EPERM', 'fchmod', fd, 0o700);
        await bench.root.fails('EPERM', 'fchown', fd, 1, 1);
        await bench.root.fails('EPERM', 'futimens', fd, '7', '7');
        await bench.root.fails('EPERM', 'futimens', fd, 'omit', 'now');
        if (flag === '+a') await bench.root.ok('futimens', fd, 'now', 'now');
        else await bench.root.fails('EPERM', 'futimens', fd, 'now', 'now');
        await bench.root.ok('fchattr', fd, '-ai');
        await bench.root.ok('fchmod', fd, 0o700);
        await bench.root.ok('close', fd);
      }
    });

    it('keeps setuid: whose write would take it away does not write', async () => {
      await bench.root.ok('chmod', 'f', 0o4666);
      await bench.root.ok('chattr', 'f', '+a');
      const users = await bench.alice.open('f', 'O_WRONLY|O_APPEND');
      await bench.alice.fails('EPERM', 'write', users, '+');
      const roots = await bench.root.open('f', 'O_WRONLY|O_APPEND');
      await bench.root.ok('write', roots, '-');
      assert.equal((await bench.root.stat('f')).mode, 0o4666);
      assert.equal(await bench.root.ok('readAll', 'f'), 'content-');
    });

    it('loses its capabilities to an append', async function () {
      if (!xattrs) this.skip();
      const capability = '\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0';
      await bench.root.ok('setxattr', 'f', 'security.capability', capability);
      await bench.root.ok('chattr', 'f', '+a');
      await bench.root.fails('EPERM', 'removexattr', 'f', 'security.capability');
      const fd = await bench.root.open('f', 'O_WRONLY|O_APPEND');
      await bench.root.ok('write', fd, '+');
      await bench.root.fails('ENODATA', 'getxattr', 'f', 'security.capability');
    });
  });
}
