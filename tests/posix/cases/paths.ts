import type { Argument } from '../agent.js';
import { type Bench, LONGEST_NAME } from '../bench.js';

/** A call with one path; `creates` when it makes a new entry, so that an existing target is no use to it. */
interface PathCall {
  title: string;
  of(path: string): [string, ...Argument[]];
  creates?: boolean;
  /** Works on a symbolic link itself. */
  nofollow?: boolean;
}

const CALLS: PathCall[] = [
  { title: 'open', of: (p) => ['open', p, 'O_RDONLY'] },
  { title: 'open with O_CREAT', of: (p) => ['open', p, 'O_WRONLY|O_CREAT', 0o644], creates: true },
  { title: 'mkdir', of: (p) => ['mkdir', p, 0o755], creates: true, nofollow: true },
  { title: 'mkfifo', of: (p) => ['mkfifo', p, 0o644], creates: true, nofollow: true },
  { title: 'mknod', of: (p) => ['mknod', p, 0o100644], creates: true, nofollow: true },
  { title: 'symlink', of: (p) => ['symlink', 'target', p], creates: true, nofollow: true },
  { title: 'link to', of: (p) => ['link', 'file', p], creates: true, nofollow: true },
  { title: 'link from', of: (p) => ['link', p, 'other'], nofollow: true },
  { title: 'rename from', of: (p) => ['rename', p, 'other'], nofollow: true },
  { title: 'rename to', of: (p) => ['rename', 'file', p], creates: true, nofollow: true },
  { title: 'unlink', of: (p) => ['unlink', p], nofollow: true },
  { title: 'rmdir', of: (p) => ['rmdir', p], nofollow: true },
  { title: 'readlink', of: (p) => ['readlink', p], nofollow: true },
  { title: 'chmod', of: (p) => ['chmod', p, 0o644] },
  { title: 'chown', of: (p) => ['chown', p, -1, -1] },
  { title: 'lchown', of: (p) => ['lchown', p, -1, -1], nofollow: true },
  { title: 'truncate', of: (p) => ['truncate', p, 0] },
  { title: 'utimensat', of: (p) => ['utimensat', p, 'now', 'now'] },
  { title: 'stat', of: (p) => ['stat', p] },
  { title: 'lstat', of: (p) => ['lstat', p], nofollow: true },
  { title: 'access', of: (p) => ['access', p, 0] },
  { title: 'statvfs', of: (p) => ['statvfs', p] },
  { title: 'chdir', of: (p) => ['chdir', p] },
  { title: 'opendir', of: (p) => ['list', p] },
  { title: 'getxattr', of: (p) => ['getxattr', p, 'user.a'] },
  { title: 'setxattr', of: (p) => ['setxattr', p, 'user.a', 'v'] },
  { title: 'listxattr', of: (p) => ['listxattr', p] },
  { title: 'removexattr', of: (p) => ['removexattr', p, 'user.a'] },
];

const PATH_MAX_BYTES = 4096;

/** How every call treats its path. */
export function pathCases(bench: Bench): void {
  describe('paths', () => {
    beforeEach(() => bench.root.file('file'));

    for (const { title, of, creates, nofollow } of CALLS) {
      it(`${title}: ENOTDIR, ENOENT, ENAMETOOLONG, ELOOP and EACCES of its path`, async () => {
        await bench.root.ok('mkfifo', 'fifo');
        await bench.root.fails('ENOTDIR', ...of('file/x'));
        await bench.root.fails('ENOTDIR', ...of('fifo/x'));

        await bench.root.fails('ENOENT', ...of('missing/x'));
        await bench.root.ok('symlink', 'nowhere', 'dangling');
        await bench.root.fails('ENOENT', ...of('dangling/x'));
        if (title !== 'symlink') await bench.root.fails('ENOENT', ...of(''));
        if (!creates) await bench.root.fails('ENOENT', ...of('missing'));
        if (!creates && !nofollow) await bench.root.fails('ENOENT', ...of('dangling'));

        await bench.root.fails('ENAMETOOLONG', ...of(`${LONGEST_NAME}n`));
        await bench.root.fails('ENAMETOOLONG', ...of(`${LONGEST_NAME}n/x`));
        await bench.root.fails('ENAMETOOLONG', ...of('./'.repeat(PATH_MAX_BYTES / 2 - 1).concat('fi')));
        if (!creates) {
          await bench.root.fails('ENOENT', ...of(LONGEST_NAME));
          await bench.root.fails('ENOENT', ...of('./'.repeat(PATH_MAX_BYTES / 2 - 1).concat('f')));
        }

        await bench.root.ok('symlink', 'b', 'a');
        await bench.root.ok('symlink', 'a', 'b');
        await bench.root.fails('ELOOP', ...of('a/x'));
        if (!nofollow) await bench.root.fails('ELOOP', ...of('a'));

        await bench.root.ok('mkdir', 'closed', 0o755);
        await bench.root.file('closed/x', 'x', 0o777);
        await bench.root.ok('chmod', 'closed', 0o644);
        await bench.alice.fails('EACCES', ...of('closed/x'));
        await bench.root.ok('chmod', 'closed', 0o600);
        await bench.alice.fails('EACCES', ...of('closed/x'));
        await bench.alice.fails('EACCES', ...of('closed/missing'));
      });
    }

    it('40 links on the way to a file are followed, 41 are not', async () => {
      await bench.root.ok('symlink', 'file', 'l1');
      for (let i = 2; i <= 41; i++) await bench.root.ok('symlink', `l${i - 1}`, `l${i}`);
      await bench.root.ok('stat', 'l40');
      await bench.root.fails('ELOOP', 'stat', 'l41');
    });

    it('a path of 4095 bytes names a file, and directories go deeper than that', async () => {
      const name = 'd'.repeat(200);
      let path = '.';
      for (let i = 0; i < 20; i++) {
        path += `/${name}`;
        await bench.root.ok('mkdir', path);
      }
      const full = `${path}/${'f'.repeat(PATH_MAX_BYTES - 1 - path.length - 1)}`;
      await bench.root.ok('writeAll', full.slice(0, path.length + 1 + 60), 'deep');
      await bench.root.ok('chdir', path);
      await bench.root.ok('mkdir', name);
      await bench.root.ok('chdir', name);
      await bench.root.ok('writeAll', 'deeper', 'deeper');
      await bench.root.fails('ENAMETOOLONG', 'stat', `${path}/${'x'.repeat(10)}/`.repeat(2));
    });

    it('names are bytes: any but "/" and NUL, as they were given', async () => {
      let all = '';
      for (let byte = 1; byte < 256; byte++) if (byte !== 0x2f) all += String.fromCharCode(byte);
      const names = [all.slice(0, 200), all.slice(200), ' ', '\n', '-', '...', '\xff\xfe', '~', '\xc3'];
      await bench.root.ok('mkdir', 'bytes');
      for (const name of names) await bench.root.ok('writeAll', `bytes/${name}`, name);
      const listed = (await bench.root.ok('list', 'bytes')) as string[];
      if (listed.length !== names.length || names.some((name) => !listed.includes(name)))
        throw new Error(`listed: ${JSON.stringify(listed)}`);
      for (const name of names) await bench.root.ok('unlink', `bytes/${name}`);
      await bench.root.ok('rmdir', 'bytes');
    });

    it('names differ by case and by composition', async () => {
      for (const name of ['a', 'A', '\xc3\xa9', 'e\xcc\x81']) await bench.root.ok('mkdir', name);
      for (const name of ['a', 'A', '\xc3\xa9', 'e\xcc\x81']) await bench.root.ok('rmdir', name);
    });

    it('a trailing slash asks for a directory', async () => {
      await bench.root.ok('mkdir', 'dir/');
      await bench.root.ok('stat', 'dir///');
      await bench.root.fails('ENOTDIR', 'stat', 'file/');
      await bench.root.fails(['ENOTDIR', 'EISDIR'], 'open', 'file/', 'O_RDONLY');
      await bench.root.fails('EISDIR', 'open', 'new/', 'O_WRONLY|O_CREAT', 0o644);
      await bench.root.fails('ENOTDIR', 'unlink', 'file/');
      await bench.root.fails('ENOTDIR', 'rename', 'file/', 'other');
      await bench.root.fails('ENOTDIR', 'rename', 'file', 'other/');
      await bench.root.ok('rename', 'dir/', 'other/');
      await bench.root.ok('symlink', 'other', 'link');
      await bench.root.fails('ENOTDIR', 'rmdir', 'link/');
      await bench.root.fails('ENOTDIR', 'rmdir', 'link');
      await bench.root.ok('rmdir', 'other/');
    });
  });
}
