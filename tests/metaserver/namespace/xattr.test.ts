import assert from 'node:assert/strict';
import { XATTR_CREATE, XATTR_LIST_MAX_BYTES, XATTR_REPLACE } from '../../../proto/types.js';
import { b, Namespace, type Op, throwsWith } from './harness.js';

const set = (ino: number, name: string, value: string | Buffer, flags = 0): Op => ({
  $case: 'setXattr',
  value: { ino, name: b(name), value: Buffer.from(value), flags },
});
const remove = (ino: number, name: string): Op => ({ $case: 'removeXattr', value: { ino, name: b(name) } });

describe('namespace: extended attributes', () => {
  let fs: Namespace;
  let f: number;
  beforeEach(() => {
    fs = new Namespace();
    f = fs.create(fs.root, 'f');
  });

  const get = (ino: number, name: string): string =>
    String(fs.read({ $case: 'getXattr', value: { ino, name: b(name) } }));
  const list = (ino: number): string[] =>
    (fs.read({ $case: 'listXattr', value: { ino } }) as { names: Buffer[] }).names.map(String);

  it('sets, replaces, lists and removes, and marks ctime only', () => {
    const { mtime, change } = fs.get(f);
    for (const [name, value] of Object.entries({
      'user.b': '2',
      'user.a': '',
      'trusted.t': '\0x',
      'security.s': 's',
    })) {
      fs.ok(set(f, name, value));
    }
    fs.ok(set(f, 'user.b', 'two'));
    assert.deepEqual(list(f), ['security.s', 'trusted.t', 'user.a', 'user.b']);
    assert.deepEqual([get(f, 'user.a'), get(f, 'user.b'), get(f, 'trusted.t')], ['', 'two', '\0x']);
    fs.ok(remove(f, 'user.b'));
    const after = fs.get(f);
    assert.deepEqual([after.mtime, after.ctime, after.change], [mtime, { sec: fs.now, nsec: 0 }, change + 6]);
    assert.deepEqual(list(f), ['security.s', 'trusted.t', 'user.a']);
    for (const name of list(f)) fs.ok(remove(f, name));
    assert.deepEqual(list(f), []);
  });

  it('honours XATTR_CREATE and XATTR_REPLACE', () => {
    fs.refused(set(f, 'user.a', '1', XATTR_REPLACE), 'ENODATA');
    fs.ok(set(f, 'user.a', '1', XATTR_CREATE));
    fs.refused(set(f, 'user.a', '2', XATTR_CREATE), 'EEXIST');
    fs.ok(set(f, 'user.a', '2', XATTR_REPLACE));
    fs.refused(set(f, 'user.a', '3', 8), 'EINVAL');
    assert.equal(get(f, 'user.a'), '2');
  });

  it('refuses bad names, values and kinds of files', () => {
    fs.refused(set(f, '', ''), 'ERANGE');
    fs.refused(set(f, `user.${'x'.repeat(251)}`, ''), 'ERANGE');
    fs.refused(set(f, 'user.', ''), 'EINVAL');
    fs.refused(set(f, 'other.x', ''), 'EOPNOTSUPP');
    fs.refused(set(f, 'system.other', ''), 'EOPNOTSUPP');
    fs.refused(set(f, 'system.posix_acl_access', ''), 'EINVAL');
    fs.refused(set(f, 'user.x', Buffer.alloc(65_537)), 'E2BIG');
    fs.refused(set(99, 'user.x', ''), 'ENOENT');
    fs.refused(set(fs.symlink(fs.root, 's', 't'), 'user.x', ''), 'EPERM');
    fs.refused(remove(f, 'user.x'), 'ENODATA');
    assert.throws(() => get(f, 'user.x'), throwsWith('ENODATA'));
    fs.ok(set(f, `user.${'x'.repeat(250)}`, Buffer.alloc(65_536, 1)));
    fs.ok(set(fs.root, 'user.on-a-directory', 'x'));
  });

  it('bounds the list, and frees room by removal', () => {
    const name = (n: number): string => `user.${String(n).padStart(250, 'x')}`;
    const most = XATTR_LIST_MAX_BYTES / 256;
    for (let n = 0; n < most; n++) fs.ok(set(f, name(n), ''));
    fs.refused(set(f, name(most), ''), 'ENOSPC');
    fs.ok(set(f, name(0), 'replaced'));
    fs.ok(remove(f, name(1)));
    fs.ok(set(f, name(most), ''));
  });

  it('goes with its inode', () => {
    const d = fs.mkdir(fs.root, 'd');
    fs.ok(set(d, 'user.a', '1'));
    fs.ok(fs.rmdir(fs.root, 'd'));
    assert.deepEqual([...fs.kv.range(b('X'), b('Y'))], []);
  });
});
