import assert from 'node:assert/strict';
import type { Attr } from '../../../proto/gen/meta.js';
import { HAS_ACCESS_ACL, HAS_DEFAULT_ACL, S_IFDIR, S_IFLNK, S_IFREG } from '../../../proto/types.js';
import { type AclEntry, aclText } from '../../posix/acl-text.js';
import { b, makeNode, Namespace, type Op, setAttr } from './harness.js';

const ACCESS = 'system.posix_acl_access';
const DEFAULT = 'system.posix_acl_default';
const LIST: AclEntry[] = [
  ['user', 7],
  ['user', 6, 5],
  ['group', 5],
  ['mask', 7],
  ['other', 1],
];

describe('namespace: access control lists', () => {
  let fs: Namespace;
  beforeEach(() => {
    fs = new Namespace();
  });

  const value = (entries: readonly AclEntry[]): Buffer => b(aclText.format(entries));
  const set = (ino: number, name: string, entries: readonly AclEntry[], killSgid = false): Op => ({
    $case: 'setXattr',
    value: { ino, name: b(name), value: value(entries), flags: 0, killSgid },
  });
  const get = (ino: number, name: string): AclEntry[] =>
    aclText.parse(
      (fs.read({ $case: 'getXattr', value: { ino, name: b(name) } }) as Buffer).toString('latin1'),
    );

  it('a list sets the mode, its mask as the group, and chmod sets the mask', () => {
    const f = fs.create(fs.root, 'f');
    fs.ok(set(f, ACCESS, LIST));
    assert.equal(fs.get(f).mode, S_IFREG | 0o771);
    assert.equal(fs.get(f).xattrKinds, HAS_ACCESS_ACL);
    fs.ok(setAttr(f, { mode: 0o640 }));
    assert.deepEqual(get(f, ACCESS), [
      ['user', 6],
      ['user', 6, 5],
      ['group', 5],
      ['mask', 4],
      ['other', 0],
    ]);
  });

  it('a list of three entries is a mode and takes the kept one away; killSgid takes setgid', () => {
    const f = fs.create(fs.root, 'f');
    fs.ok(setAttr(f, { mode: 0o2755 }));
    fs.ok(set(f, ACCESS, LIST));
    fs.ok(
      set(
        f,
        ACCESS,
        [
          ['user', 6],
          ['group', 4],
          ['other', 0],
        ],
        true,
      ),
    );
    const { mode, xattrKinds } = fs.get(f);
    assert.deepEqual({ mode, xattrKinds }, { mode: S_IFREG | 0o640, xattrKinds: 0 });
    fs.ok({ $case: 'removeXattr', value: { ino: f, name: b(ACCESS) } });
  });

  it('what a directory hands down is cut by the mode asked for, not by the umask', () => {
    fs.ok(makeNode(fs.root, 'd', S_IFDIR | 0o755));
    const d = fs.lookup(fs.root, 'd').ino;
    fs.ok(set(d, DEFAULT, LIST));
    assert.equal(fs.get(d).mode, S_IFDIR | 0o755);
    fs.ok(makeNode(d, 'f', S_IFREG | 0o600, { askedMode: 0o666 }));
    fs.ok(makeNode(d, 'e', S_IFDIR | 0o700, { askedMode: 0o777 }));
    fs.ok(makeNode(d, 'l', S_IFLNK | 0o777, { target: b('x') }));
    const [f, e, l] = ['f', 'e', 'l'].map((name) => fs.lookup(d, name)) as [Attr, Attr, Attr];
    assert.deepEqual([f.mode, e.mode, l.mode], [S_IFREG | 0o660, S_IFDIR | 0o771, S_IFLNK | 0o777]);
    assert.deepEqual(
      [f.xattrKinds, e.xattrKinds, l.xattrKinds],
      [HAS_ACCESS_ACL, HAS_ACCESS_ACL | HAS_DEFAULT_ACL, 0],
    );
    assert.deepEqual(get(f.ino, ACCESS), [
      ['user', 6],
      ['user', 6, 5],
      ['group', 5],
      ['mask', 6],
      ['other', 0],
    ]);
    assert.deepEqual(get(e.ino, DEFAULT), LIST);
  });

  it('refuses lists that are none, and places where none can be', () => {
    const f = fs.create(fs.root, 'f');
    for (const bad of [
      [['user', 6]],
      [
        ['user', 6],
        ['user', 6, 5],
        ['group', 4],
        ['other', 0],
      ],
      [
        ['other', 6],
        ['group', 4],
        ['user', 0],
      ],
    ])
      fs.refused(set(f, ACCESS, bad as AclEntry[]), 'EINVAL');
    fs.refused(set(f, DEFAULT, LIST), 'EACCES');
    fs.ok(makeNode(fs.root, 'l', S_IFLNK | 0o777, { target: b('x') }));
    fs.refused(set(fs.lookup(fs.root, 'l').ino, ACCESS, LIST), 'EOPNOTSUPP');
  });
});
