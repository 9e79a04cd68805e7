import assert from 'node:assert/strict';
import {
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
  S_IFCHR,
  S_ISVTX,
} from '../../../proto/types.js';
import { Namespace, throwsWith } from './harness.js';

describe('namespace: rename', () => {
  let fs: Namespace;
  let a: number;
  let bb: number;
  beforeEach(() => {
    fs = new Namespace();
    a = fs.mkdir(fs.root, 'a');
    bb = fs.mkdir(fs.root, 'b');
  });

  it('moves a file between directories and marks both and the file', () => {
    const f = fs.create(a, 'f');
    const { mtime } = fs.get(f);
    fs.ok(fs.rename(a, 'f', bb, 'g'));
    assert.deepEqual(fs.names(a), []);
    assert.deepEqual(fs.names(bb), ['g']);
    assert.equal(fs.lookup(bb, 'g').ino, f);
    const now = { sec: fs.now, nsec: 0 };
    assert.deepEqual(
      [fs.get(a).mtime, fs.get(a).ctime, fs.get(bb).mtime, fs.get(bb).ctime],
      [now, now, now, now],
    );
    assert.deepEqual(fs.get(f).ctime, now);
    assert.deepEqual(fs.get(f).mtime, mtime);
  });

  it('moves a directory with its ".." and the links of both parents', () => {
    const d = fs.mkdir(a, 'd');
    fs.ok(fs.rename(a, 'd', bb, 'd'));
    assert.equal(fs.lookup(d, '..').ino, bb);
    assert.deepEqual([fs.get(a).nlink, fs.get(bb).nlink], [2, 3]);
  });

  it('replaces a file, which loses a name', () => {
    const f = fs.create(a, 'f');
    const old = fs.create(bb, 'g');
    const reply = fs.ok(fs.rename(a, 'f', bb, 'g'));
    assert.deepEqual([reply.unlinkedIno, reply.unlinkedNlink], [old, 0]);
    assert.equal(fs.lookup(bb, 'g').ino, f);
    assert.equal(fs.get(old).nlink, 0);
    assert.deepEqual(
      fs.machine.reclaims(undefined, 9).map((item) => item.ino),
      [old],
    );
  });

  it('replaces an empty directory by a directory only, and keeps link counts right', () => {
    fs.mkdir(a, 'd');
    const old = fs.mkdir(bb, 'd');
    fs.create(bb, 'f');
    fs.refused(fs.rename(a, 'd', bb, 'f'), 'ENOTDIR');
    fs.refused(fs.rename(bb, 'f', a, 'd'), 'EISDIR');
    const inside = fs.create(old, 'x');
    fs.refused(fs.rename(a, 'd', bb, 'd'), 'ENOTEMPTY');
    fs.ok(fs.unlink(old, 'x'));
    assert.equal(fs.get(inside).nlink, 0);
    assert.equal(fs.ok(fs.rename(a, 'd', bb, 'd')).unlinkedIno, old);
    assert.deepEqual([fs.get(a).nlink, fs.get(bb).nlink], [2, 3]);
    assert.throws(() => fs.get(old), throwsWith('ENOENT'));
    fs.mkdir(bb, 'e');
    fs.ok(fs.rename(bb, 'd', bb, 'e'));
    assert.equal(fs.get(bb).nlink, 3);
  });

  it('does nothing when both names are the same file', () => {
    const f = fs.create(a, 'f');
    fs.ok(fs.link(f, bb, 'g'));
    const before = [fs.get(f), fs.get(a), fs.get(bb)];
    assert.equal(fs.ok(fs.rename(a, 'f', bb, 'g')).unlinkedIno, 0);
    fs.ok(fs.rename(a, 'f', a, 'f'));
    fs.ok(fs.rename(a, 'f', bb, 'g', { flags: RENAME_EXCHANGE }));
    assert.deepEqual([fs.get(f), fs.get(a), fs.get(bb)], before);
    assert.deepEqual([fs.names(a), fs.names(bb)], [['f'], ['g']]);
    fs.refused(fs.rename(a, 'f', bb, 'g', { flags: RENAME_NOREPLACE }), 'EEXIST');
  });

  it('refuses cycles and the replacement of ancestors', () => {
    const d = fs.mkdir(a, 'd');
    const e = fs.mkdir(d, 'e');
    fs.create(e, 'f');
    fs.refused(fs.rename(fs.root, 'a', e, 'x'), 'EINVAL');
    fs.refused(fs.rename(fs.root, 'a', a, 'x'), 'EINVAL');
    fs.refused(fs.rename(e, 'f', fs.root, 'a'), 'ENOTEMPTY');
    fs.refused(fs.rename(d, 'e', fs.root, 'a'), 'ENOTEMPTY');
    fs.refused(fs.rename(d, 'e', fs.root, 'a', { flags: RENAME_EXCHANGE }), 'EINVAL');
    fs.refused(fs.rename(fs.root, 'a', d, 'e', { flags: RENAME_EXCHANGE }), 'EINVAL');
    fs.ok(fs.rename(d, 'e', bb, 'e'));
    assert.equal(fs.lookup(e, '..').ino, bb);
  });

  it('refuses what renameat2 refuses', () => {
    fs.create(a, 'f');
    fs.create(bb, 'g');
    fs.refused(fs.rename(a, 'x', bb, 'y'), 'ENOENT');
    fs.refused(fs.rename(a, 'x', bb, 'g', { flags: RENAME_NOREPLACE }), 'ENOENT');
    fs.refused(fs.rename(a, 'f', bb, 'x', { flags: RENAME_EXCHANGE }), 'ENOENT');
    fs.refused(fs.rename(a, 'f', bb, 'g', { flags: RENAME_NOREPLACE }), 'EEXIST');
    fs.refused(fs.rename(a, 'f', bb, 'h', { flags: RENAME_NOREPLACE | RENAME_EXCHANGE }), 'EINVAL');
    fs.refused(fs.rename(a, 'f', bb, 'h', { flags: 8 }), 'EINVAL');
    fs.refused(fs.rename(a, 'f', bb, 'g', { flags: RENAME_WHITEOUT | RENAME_EXCHANGE }), 'EINVAL');
    fs.refused(fs.rename(a, 'f', 99, 'h'), 'ENOENT');
    fs.refused(fs.rename(a, 'f', fs.lookup(bb, 'g').ino, 'h'), 'ENOTDIR');
    fs.refused(fs.rename(a, '.', bb, 'h'), 'EBUSY');
    fs.refused(fs.rename(a, 'f', bb, '..'), 'EBUSY');
    fs.refused(fs.rename(a, 'f', bb, 'h'.repeat(256)), 'ENAMETOOLONG');
    fs.ok(fs.rename(a, 'f', bb, 'h', { flags: RENAME_NOREPLACE }));
  });

  it('leaves a whiteout of the caller under the old name when asked', () => {
    const f = fs.create(a, 'f');
    fs.create(bb, 'g');
    fs.ok(fs.rename(a, 'f', bb, 'g', { flags: RENAME_WHITEOUT, uid: 7, gid: 8 }));
    assert.equal(fs.lookup(bb, 'g').ino, f);
    const { mode, rdev, uid, gid, nlink } = fs.lookup(a, 'f');
    assert.deepEqual({ mode, rdev, uid, gid, nlink }, { mode: S_IFCHR, rdev: 0, uid: 7, gid: 8, nlink: 1 });
    assert.equal(fs.page(a).entries.length, 1);
    const d = fs.mkdir(a, 'd');
    fs.ok(fs.rename(a, 'd', a, 'e', { flags: RENAME_WHITEOUT | RENAME_NOREPLACE }));
    assert.deepEqual([fs.lookup(a, 'e').ino, fs.get(a).nlink], [d, 3]);
    fs.refused(fs.rename(a, 'e', a, 'd', { flags: RENAME_WHITEOUT | RENAME_NOREPLACE }), 'EEXIST');
  });

  it('exchanges a file and a directory, also of different parents', () => {
    const f = fs.create(a, 'f');
    const d = fs.mkdir(bb, 'd');
    fs.ok(fs.rename(a, 'f', bb, 'd', { flags: RENAME_EXCHANGE }));
    assert.deepEqual([fs.lookup(a, 'f').ino, fs.lookup(bb, 'd').ino], [d, f]);
    assert.equal(fs.lookup(d, '..').ino, a);
    assert.deepEqual([fs.get(a).nlink, fs.get(bb).nlink], [3, 2]);
    assert.deepEqual(
      fs.page(a).entries.map((entry) => entry.type),
      [4],
    );
    assert.deepEqual(fs.get(f).ctime, { sec: fs.now, nsec: 0 });
  });

  it('checks the sticky bit of the target directory too', () => {
    const sticky = fs.mkdir(fs.root, 's', { uid: 10, perm: 0o777 | S_ISVTX });
    fs.create(sticky, 'theirs', { uid: 20 });
    fs.create(a, 'mine', { uid: 30 });
    fs.refused(fs.rename(a, 'mine', sticky, 'theirs', { uid: 30 }), 'EPERM');
    fs.ok(fs.rename(a, 'mine', sticky, 'mine', { uid: 30 }));
  });

  it('keeps an entry at its place in readdir when it is renamed within its directory', () => {
    for (const name of ['1', '2', '3']) fs.create(a, name);
    const first = fs.page(a, 0, 1);
    fs.ok(fs.rename(a, '1', a, 'one'));
    fs.ok(fs.rename(a, '2', a, 'two'));
    const rest = fs.page(a, first.entries[0]?.cookie);
    assert.deepEqual(
      rest.entries.map((entry) => entry.name.toString()),
      ['two', '3'],
    );
  });
});
