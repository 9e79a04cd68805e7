import assert from 'node:assert/strict';
import { type Bench, type Features, touchedTimes } from '../bench.js';

const CREATE = 1;
const REPLACE = 2;
/** EOPNOTSUPP and ENOTSUP are one number on Linux. */
const UNSUPPORTED = ['EOPNOTSUPP', 'ENOTSUP'];

/** setxattr(2), getxattr(2), listxattr(2), removexattr(2), as xattr(7) has them. */
export function xattrCases(bench: Bench, features: Features): void {
  describe('extended attributes', () => {
    before(function () {
      if (!features.xattrs) this.skip();
    });

    it('values are bytes, also none at all; each name is listed once', async () => {
      for (const make of [
        ['writeAll', 'x', ''],
        ['mkdir', 'x', 0o755],
      ] as const) {
        await bench.root.ok(make[0], ...make.slice(1));
        assert.deepEqual(await bench.root.ok('listxattr', 'x'), []);
        for (const value of ['', 'v', '\0\xff\n', 'x'.repeat(2000)]) {
          await bench.root.ok('setxattr', 'x', 'user.name', value);
          assert.equal(await bench.root.ok('getxattr', 'x', 'user.name'), value);
        }
        await bench.root.ok('setxattr', 'x', 'user.other \xff', 'w');
        await bench.root.ok('setxattr', 'x', 'trusted.t', 't');
        const names = ['trusted.t', 'user.name', 'user.other \xff'];
        assert.deepEqual(await bench.root.ok('listxattr', 'x'), names);
        await bench.root.ok('removexattr', 'x', 'user.name');
        await bench.root.fails('ENODATA', 'getxattr', 'x', 'user.name');
        await bench.root.fails('ENODATA', 'removexattr', 'x', 'user.name');
        await bench.root.ok(make[0] === 'mkdir' ? 'rmdir' : 'unlink', 'x');
      }
    });

    it('XATTR_CREATE and XATTR_REPLACE: EEXIST, ENODATA', async () => {
      await bench.root.file('f');
      await bench.root.fails('ENODATA', 'setxattr', 'f', 'user.a', 'v', REPLACE);
      await bench.root.ok('setxattr', 'f', 'user.a', 'v', CREATE);
      await bench.root.fails('EEXIST', 'setxattr', 'f', 'user.a', 'w', CREATE);
      await bench.root.ok('setxattr', 'f', 'user.a', 'w', REPLACE);
      await bench.root.fails('EINVAL', 'setxattr', 'f', 'user.a', 'w', 4);
      assert.equal(await bench.root.ok('getxattr', 'f', 'user.a'), 'w');
    });

    it('limits: 255 bytes of a name, 65536 of a value', async () => {
      await bench.root.file('f');
      await bench.root.ok('setxattr', 'f', `user.${'n'.repeat(250)}`, 'v');
      await bench.root.fails('ERANGE', 'setxattr', 'f', `user.${'n'.repeat(251)}`, 'v');
      await bench.root.fails('ERANGE', 'getxattr', 'f', `user.${'n'.repeat(251)}`);
      await bench.root.fails('E2BIG', 'setxattr', 'f', 'user.a', 'v'.repeat(65_537));
      await bench.root.fails(['ERANGE', 'EINVAL'], 'setxattr', 'f', '', 'v');
      await bench.root.fails(['EINVAL', ...UNSUPPORTED], 'setxattr', 'f', 'user.', 'v');
    });

    it('a name without a known namespace: EOPNOTSUPP', async () => {
      await bench.root.file('f');
      for (const name of ['a', 'unknown.a', 'user', 'USER.a', 'system.a', 'system.posix_acl_other']) {
        await bench.root.fails(UNSUPPORTED, 'setxattr', 'f', name, 'v');
        await bench.root.fails(UNSUPPORTED, 'getxattr', 'f', name);
        await bench.root.fails(UNSUPPORTED, 'removexattr', 'f', name);
      }
    });

    it('a change sets the ctime alone; reading and listing set none', async () => {
      await bench.root.file('f');
      const times = (...call: [string, ...string[]]) =>
        touchedTimes(bench.root, 'f', () => bench.root.ok(...call));
      assert.equal(await times('setxattr', 'f', 'user.a', 'v'), 'ctime');
      assert.equal(await times('setxattr', 'f', 'user.a', 'w'), 'ctime');
      assert.equal(await times('getxattr', 'f', 'user.a'), '');
      assert.equal(await times('listxattr', 'f'), '');
      assert.equal(await times('removexattr', 'f', 'user.a'), 'ctime');
    });

    it('user: permission bits decide; links, fifos and devices have none', async () => {
      await bench.root.file('f', '', 0o644);
      await bench.root.ok('setxattr', 'f', 'user.a', 'v');
      assert.equal(await bench.alice.ok('getxattr', 'f', 'user.a'), 'v');
      await bench.alice.fails('EACCES', 'setxattr', 'f', 'user.a', 'w');
      await bench.alice.fails('EACCES', 'removexattr', 'f', 'user.a');
      await bench.root.ok('chmod', 'f', 0o622);
      await bench.alice.ok('setxattr', 'f', 'user.a', 'w');
      await bench.alice.fails('EACCES', 'getxattr', 'f', 'user.a');
      await bench.root.ok('mkfifo', 'p');
      await bench.root.ok('symlink', 'f', 'l');
      await bench.root.ok('mknod', 'n', 0o020644, 0x103);
      await bench.root.fails('EPERM', 'setxattr', 'p', 'user.a', 'v');
      await bench.root.fails('EPERM', 'setxattr', 'n', 'user.a', 'v');
      await bench.root.fails('EPERM', 'lsetxattr', 'l', 'user.a', 'v');
      await bench.root.fails('ENODATA', 'getxattr', 'p', 'user.a');
      await bench.root.fails('ENODATA', 'lgetxattr', 'l', 'user.a');
    });

    it('user: in a sticky directory only its owner may set attributes of the directory', async () => {
      await bench.root.ok('mkdir', 'd');
      await bench.root.ok('chmod', 'd', 0o1777);
      await bench.alice.fails('EPERM', 'setxattr', 'd', 'user.a', 'v');
      await bench.root.ok('setxattr', 'd', 'user.a', 'v');
    });

    it("trusted: root's alone, on anything, unseen by others", async () => {
      await bench.root.file('f', '', 0o666);
      await bench.root.ok('mkfifo', 'p', 0o666);
      for (const path of ['f', 'p']) {
        await bench.root.ok('setxattr', path, 'trusted.a', 'v');
        await bench.alice.fails('EPERM', 'setxattr', path, 'trusted.a', 'w');
        await bench.alice.fails('ENODATA', 'getxattr', path, 'trusted.a');
        await bench.alice.fails('EPERM', 'removexattr', path, 'trusted.a');
        assert.deepEqual(await bench.alice.ok('listxattr', path), []);
        assert.equal(await bench.root.ok('getxattr', path, 'trusted.a'), 'v');
      }
      await bench.root.ok('symlink', 'f', 'l');
      await bench.root.ok('lsetxattr', 'l', 'trusted.b', 'link');
      assert.deepEqual(await bench.root.ok('llistxattr', 'l'), ['trusted.b']);
      assert.deepEqual(await bench.root.ok('listxattr', 'l'), ['trusted.a']);
    });

    it('security: set by root, read by all', async () => {
      await bench.root.file('f', '', 0o666);
      await bench.root.ok('setxattr', 'f', 'security.holdfast', 'v');
      assert.equal(await bench.alice.ok('getxattr', 'f', 'security.holdfast'), 'v');
      await bench.alice.fails('EPERM', 'setxattr', 'f', 'security.holdfast', 'w');
      await bench.alice.fails('EPERM', 'removexattr', 'f', 'security.holdfast');
    });

    it('capabilities of a file go with a write, a truncate and a new owner, by whomever', async () => {
      // struct vfs_cap_data, revision 2: cap_net_raw permitted and effective.
      const capability = '\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0';
      const ways = [
        () => bench.root.file('f', 'written'),
        ...['O_WRONLY', 'O_WRONLY|O_APPEND'].map((flags) => async () => {
          const fd = await bench.root.open('f', flags);
          await bench.root.ok('write', fd, 'written');
        }),
        () => bench.root.ok('truncate', 'f', 1),
        () => bench.root.ok('chown', 'f', 1, 1),
      ];
      for (const way of ways) {
        await bench.root.file('f', 'x', 0o755);
        await bench.root.ok('setxattr', 'f', 'security.capability', capability);
        assert.equal(await bench.root.ok('getxattr', 'f', 'security.capability'), capability);
        await way();
        await bench.root.fails('ENODATA', 'getxattr', 'f', 'security.capability');
      }
    });

    it('follow the inode: through links, renames and open descriptors, and are gone with it', async () => {
      await bench.root.file('f');
      const fd = await bench.root.open('f', 'O_RDWR');
      await bench.root.ok('fsetxattr', fd, 'user.a', 'v');
      await bench.root.ok('link', 'f', 'g');
      await bench.root.ok('rename', 'f', 'h');
      assert.equal(await bench.root.ok('getxattr', 'g', 'user.a'), 'v');
      assert.equal(await bench.root.ok('getxattr', 'h', 'user.a'), 'v');
      await bench.root.ok('unlink', 'g');
      await bench.root.ok('unlink', 'h');
      assert.equal(await bench.root.ok('fgetxattr', fd, 'user.a'), 'v');
      await bench.root.file('f');
      assert.deepEqual(await bench.root.ok('listxattr', 'f'), []);
    });
  });
}
