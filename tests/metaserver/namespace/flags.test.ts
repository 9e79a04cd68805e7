import assert from 'node:assert/strict';
import { FLAG_APPEND, FLAG_IMMUTABLE, FLAG_NOATIME, FLAG_NODUMP } from '../../../proto/inode-flags.js';
import { S_IFCHR, S_IFIFO, S_IFREG, S_ISUID } from '../../../proto/types.js';
import { b, makeNode, Namespace, type Op, setAttr } from './harness.js';

const setFlags = (ino: number, flags: number, uid = 0): Op => ({
  $case: 'setFlags',
  value: { ino, flags, uid },
});
const setXattr = (ino: number, name: string): Op => ({
  $case: 'setXattr',
  value: { ino, name: b(name), value: b('v'), flags: 0 },
});
const PAST = { sec: 5, nsec: 0 };

describe('namespace: flags of inodes', () => {
  let fs: Namespace;
  let d: number;
  let f: number;
  beforeEach(() => {
    fs = new Namespace();
    d = fs.mkdir(fs.root, 'd');
    f = fs.create(d, 'f', { uid: 7 });
  });

  it('are set, told everywhere and kept, and change the ctime', () => {
    const before = fs.get(f);
    assert.equal(before.flags, undefined);
    const flags = FLAG_IMMUTABLE | FLAG_NODUMP;
    const after = fs.attr(setFlags(f, flags));
    assert.deepEqual(after, {
      ...before,
      flags,
      ctime: { sec: fs.now, nsec: 0 },
      change: before.change + 1,
    });
    assert.equal(fs.lookup(d, 'f').flags, flags);
    assert.equal(fs.page(d, 0, 0, true).entries[0]?.attr?.flags, flags);
    assert.equal(new Namespace(fs.kv).get(f).flags, flags, 'after a restart');
  });

  it('are set by the owner, those that guard by root alone', () => {
    for (const flags of [FLAG_IMMUTABLE, FLAG_APPEND, FLAG_NOATIME | FLAG_APPEND])
      fs.refused(setFlags(f, flags, 7), 'EPERM');
    fs.refused(setFlags(f, FLAG_NODUMP, 8), 'EPERM');
    fs.ok(setFlags(f, FLAG_NODUMP, 7));
    fs.ok(setFlags(f, FLAG_APPEND));
    fs.refused(setFlags(f, 0, 7), 'EPERM');
    fs.ok(setFlags(f, FLAG_APPEND | FLAG_NOATIME, 7));
  });

  it('that are not known, or of other kinds of inodes, are refused', () => {
    for (const flags of [1, 8, 0x100, 0x80000, 0x8000_0000]) fs.refused(setFlags(f, flags), 'EOPNOTSUPP');
    for (const type of [S_IFIFO, S_IFCHR]) {
      const { ino } = fs.attr(makeNode(d, `t${type}`, type | 0o600));
      fs.refused(setFlags(ino, FLAG_NODUMP), 'EOPNOTSUPP');
    }
  });

  it('stay as they are while immutable does', () => {
    fs.ok(setFlags(f, FLAG_IMMUTABLE));
    fs.refused(setFlags(f, FLAG_IMMUTABLE | FLAG_NODUMP), 'EPERM');
    fs.ok(setFlags(f, FLAG_IMMUTABLE));
    fs.ok(setFlags(f, FLAG_NODUMP));
  });

  it('go to what is made in a directory, but for those that guard', () => {
    fs.ok(setFlags(d, FLAG_APPEND | FLAG_NODUMP | FLAG_NOATIME));
    const inherited = FLAG_NODUMP | FLAG_NOATIME;
    const sub = fs.mkdir(d, 'sub');
    for (const ino of [sub, fs.create(sub, 'g'), fs.symlink(sub, 'l', 't')])
      assert.equal(fs.get(ino).flags, inherited);
    const unnamed = fs.attr(makeNode(sub, '', S_IFREG | 0o600, { unnamed: true, open: true }));
    assert.equal(unnamed.flags, inherited);
  });

  it('immutable: nothing of the inode changes', () => {
    const g = fs.create(d, 'g');
    fs.ok(setXattr(f, 'user.a'));
    fs.ok(setFlags(f, FLAG_IMMUTABLE));
    const capability = { ino: f, name: b('security.capability'), written: true };
    const refused: Op[] = [
      setAttr(f, { mode: 0o600 }),
      setAttr(f, { uid: 1 }),
      setAttr(f, { size: 0 }),
      setAttr(f, { size: 10, allocating: true }),
      setAttr(f, { mtimeNow: true, allocating: true }),
      setAttr(f, { atimeNow: true, mtimeNow: true }),
      setAttr(f, { killPriv: true }),
      setXattr(f, 'user.b'),
      { $case: 'removeXattr', value: { ino: f, name: b('user.a') } },
      { $case: 'removeXattr', value: capability },
      fs.link(f, d, 'h'),
      fs.unlink(d, 'f'),
      fs.rename(d, 'f', d, 'h'),
      fs.rename(d, 'g', d, 'f'),
      fs.rename(d, 'g', d, 'f', { flags: 2 }),
    ];
    for (const op of refused) fs.refused(op, 'EPERM');
    fs.ok(fs.rename(d, 'f', d, 'f'));
    assert.equal(fs.lookup(d, 'g').ino, g);
  });

  it('what was written before a file was immutable is told all the same', () => {
    fs.ok(setFlags(f, FLAG_IMMUTABLE));
    const value = { ino: f, newSize: 100, allocatedDelta: 100, killPriv: false, truncateSeq: 0 };
    assert.equal(
      fs.attr({ $case: 'commitWrite', value: { ...value, mtime: PAST, ctime: undefined } }).size,
      100,
    );
  });

  it('append-only: a file grows by what is written and allocated, and takes the present as its times', () => {
    fs.ok(setAttr(f, { size: 100 }));
    fs.ok(setFlags(f, FLAG_APPEND));
    const refused: Op[] = [
      setAttr(f, { mode: 0o600 }),
      setAttr(f, { gid: 1 }),
      setAttr(f, { size: 200 }),
      setAttr(f, { size: 99, allocating: true }),
      setAttr(f, { atime: PAST }),
      setAttr(f, { mtimeNow: true }),
      setAttr(f, { atimeNow: true }),
      setAttr(f, { atimeNow: true, mtime: PAST }),
      setXattr(f, 'user.b'),
      fs.link(f, d, 'h'),
      fs.unlink(d, 'f'),
    ];
    for (const op of refused) fs.refused(op, 'EPERM');
    for (const allowed of [
      { size: 200, allocating: true },
      { mtimeNow: true, allocating: true },
      { atimeNow: true, mtimeNow: true },
      { killPriv: true },
    ])
      fs.ok(setAttr(f, allowed));
  });

  it('append-only: it loses its capability to a write, but no bit of its mode', () => {
    fs.ok(setXattr(f, 'security.capability'));
    fs.ok(setAttr(f, { mode: S_ISUID | 0o755 }));
    fs.ok(setFlags(f, FLAG_APPEND));
    const value = { ino: f, name: b('security.capability') };
    fs.refused({ $case: 'removeXattr', value }, 'EPERM');
    fs.refused(setAttr(f, { killPriv: true }), 'EPERM');
    fs.ok({ $case: 'removeXattr', value: { ...value, written: true } });
  });

  it('a directory that is immutable gains and loses no name, one that is append-only loses none', () => {
    fs.mkdir(d, 'sub');
    const outside = fs.create(fs.root, 'outside');
    const losing: Op[] = [
      fs.unlink(d, 'f'),
      fs.rmdir(d, 'sub'),
      fs.rename(d, 'f', fs.root, 'f'),
      fs.rename(fs.root, 'outside', d, 'f'),
      fs.rename(fs.root, 'outside', d, 'f', { flags: 2 }),
      fs.rename(d, 'f', d, 'g', { flags: 4 }),
      fs.rmdir(fs.root, 'd'),
      fs.rename(fs.root, 'd', fs.root, 'dd'),
    ];
    const gaining: Op[] = [
      makeNode(d, 'n', S_IFREG | 0o644),
      makeNode(d, '', S_IFREG | 0o644, { unnamed: true, open: true }),
      fs.link(outside, d, 'n1'),
      fs.rename(fs.root, 'outside', d, 'n2'),
    ];
    fs.ok(setFlags(d, FLAG_IMMUTABLE));
    for (const op of [...losing, ...gaining]) fs.refused(op, 'EPERM');
    assert.equal(fs.attr(makeNode(d, 'f', S_IFREG | 0o644, { existingOk: true })).ino, f);
    fs.refused(makeNode(d, 'f', S_IFREG | 0o644), 'EEXIST');
    fs.refused(fs.unlink(d, 'none'), 'ENOENT');
    fs.ok(setAttr(f, { mode: 0o600 }));
    fs.ok(setFlags(d, FLAG_APPEND));
    for (const op of losing) fs.refused(op, 'EPERM');
    for (const op of gaining) fs.ok(op);
  });

  it('no atime: reads that are told do not show', () => {
    const atime = { sec: 5_000_000, nsec: 0 };
    const read: Op = { $case: 'setAtimes', value: { atimes: [{ ino: f, atime }] } };
    fs.ok(setFlags(f, FLAG_NOATIME));
    fs.ok(read);
    assert.notDeepEqual(fs.get(f).atime, atime);
    fs.ok(setFlags(f, 0));
    fs.ok(read);
    assert.deepEqual(fs.get(f).atime, atime);
  });
});
