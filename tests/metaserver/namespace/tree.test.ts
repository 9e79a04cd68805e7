import assert from 'node:assert/strict';
import { loadInode } from '../../../metaserver/namespace/batch.js';
import { encodeInode, type Inode } from '../../../metaserver/namespace/inode-codec.js';
import { inodeKey } from '../../../metaserver/namespace/keys.js';
import {
  LINK_MAX,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFREG,
  S_IFSOCK,
  S_ISGID,
  S_ISVTX,
} from '../../../proto/types.js';
import { b, makeNode, Namespace, setAttr, throwsWith } from './harness.js';

describe('namespace: making nodes', () => {
  let fs: Namespace;
  beforeEach(() => {
    fs = new Namespace();
  });

  it('starts with a root directory that is its own parent', () => {
    const root = fs.get(fs.root);
    assert.equal(root.mode, S_IFDIR | 0o755);
    assert.equal(root.nlink, 2);
    assert.equal(fs.lookup(fs.root, '..').ino, fs.root);
    assert.equal(fs.page(fs.root).parent, fs.root);
  });

  it('makes a regular file with the time of the command and the cluster layout', () => {
    const reply = fs.ok(makeNode(fs.root, 'f', S_IFREG | 0o640, { uid: 7, gid: 8, rdev: 99 }));
    assert.equal(reply.created, true);
    const attr = fs.lookup(fs.root, 'f');
    assert.deepEqual(attr, (reply.result as { value: unknown }).value);
    const time = { sec: fs.now, nsec: 0 };
    assert.deepEqual(attr, {
      ino: 2,
      generation: 1,
      mode: S_IFREG | 0o640,
      nlink: 1,
      uid: 7,
      gid: 8,
      rdev: 0,
      size: 0,
      allocated: 0,
      atime: time,
      mtime: time,
      ctime: time,
      chunkSize: 1 << 20,
      truncateSeq: 0,
      truncates: [],
      change: 1,
      xattrKinds: 0,
      hasXattrs: false,
      flags: undefined,
      project: undefined,
      birth: time,
    });
  });

  it('answers every change of names with the directories as they are afterwards', () => {
    const made = fs.ok(makeNode(fs.root, 'd', S_IFDIR | 0o755));
    const d = fs.lookup(fs.root, 'd').ino;
    assert.deepEqual(made.parents, [fs.get(fs.root)]);
    assert.deepEqual(fs.ok(makeNode(d, 'f', S_IFREG | 0o644)).parents, [fs.get(d)]);
    const ino = fs.lookup(d, 'f').ino;
    assert.deepEqual(fs.ok({ $case: 'link', value: { ino, parent: d, name: b('g') } }).parents, [fs.get(d)]);
    const value = { parent: d, name: b('f'), newParent: fs.root, newName: b('h'), flags: 0, uid: 0 };
    assert.deepEqual(fs.ok({ $case: 'rename', value }).parents, [fs.get(d), fs.get(fs.root)]);
    const unlink = { parent: d, name: b('g'), uid: 0 };
    assert.deepEqual(fs.ok({ $case: 'unlink', value: unlink }).parents, [fs.get(d)]);
    const rmdir = { parent: fs.root, name: b('d'), uid: 0 };
    assert.deepEqual(fs.ok({ $case: 'rmdir', value: rmdir }).parents, [fs.get(fs.root)]);
  });

  it('takes a mode without type as a regular file', () => {
    assert.equal(fs.attr(makeNode(fs.root, 'f', 0o600)).mode, S_IFREG | 0o600);
  });

  it('makes fifos, sockets and devices, with rdev for devices only', () => {
    for (const [index, type] of [S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK].entries()) {
      const attr = fs.attr(makeNode(fs.root, `n${index}`, type | 0o600, { rdev: 0x803 }));
      assert.equal(attr.mode, type | 0o600);
      assert.equal(attr.rdev, type === S_IFCHR || type === S_IFBLK ? 0x803 : 0);
    }
  });

  it('makes symlinks with mode 0777, the target as size, and reads them', () => {
    const attr = fs.attr(makeNode(fs.root, 's', S_IFLNK | 0o600, { target: b('../a b') }));
    assert.equal(attr.mode, S_IFLNK | 0o777);
    assert.equal(attr.size, 6);
    assert.equal(String(fs.read({ $case: 'readLink', value: { ino: attr.ino } })), '../a b');
    const file = fs.create(fs.root, 'f');
    assert.throws(() => fs.read({ $case: 'readLink', value: { ino: file } }), throwsWith('EINVAL'));
  });

  it('counts subdirectories in nlink, and marks mtime and ctime of the parent, not atime', () => {
    const before = fs.get(fs.root);
    const d = fs.mkdir(fs.root, 'd');
    const after = fs.get(fs.root);
    assert.equal(after.nlink, 3);
    assert.equal(fs.get(d).nlink, 2);
    assert.deepEqual(after.mtime, { sec: fs.now, nsec: 0 });
    assert.deepEqual(after.ctime, { sec: fs.now, nsec: 0 });
    assert.deepEqual(after.atime, before.atime);
    assert.equal(after.change, before.change + 1);
  });

  it('inherits the group of a setgid directory, and the bit to directories only', () => {
    const d = fs.mkdir(fs.root, 'd', { gid: 50, perm: 0o755 | S_ISGID });
    assert.equal(fs.get(fs.create(d, 'f', { gid: 9 })).gid, 50);
    assert.equal(fs.get(fs.create(d, 'g', { gid: 9 })).mode & S_ISGID, 0);
    const sub = fs.get(fs.mkdir(d, 'sub', { gid: 9 }));
    assert.equal(sub.gid, 50);
    assert.equal(sub.mode & S_ISGID, S_ISGID);
  });

  it('answers an existing regular file with existing_ok, and refuses other types', () => {
    const ino = fs.create(fs.root, 'f', { perm: 0o600 });
    fs.mkdir(fs.root, 'd');
    fs.symlink(fs.root, 's', 'f');
    const reply = fs.ok(makeNode(fs.root, 'f', S_IFREG | 0o777, { existingOk: true }));
    assert.equal(reply.created, false);
    assert.equal((reply.result as { value: { ino: number } }).value.ino, ino);
    assert.equal(fs.get(ino).mode, S_IFREG | 0o600);
    fs.refused(makeNode(fs.root, 'f', S_IFREG), 'EEXIST');
    fs.refused(makeNode(fs.root, 'd', S_IFREG, { existingOk: true }), 'EISDIR');
    fs.refused(makeNode(fs.root, 's', S_IFREG, { existingOk: true }), 'EEXIST');
    fs.refused(makeNode(fs.root, 'f', S_IFDIR, { existingOk: true }), 'EEXIST');
  });

  it('refuses bad parents, names, types and targets', () => {
    const file = fs.create(fs.root, 'f');
    fs.refused(makeNode(99, 'x', S_IFREG), 'ENOENT');
    fs.refused(makeNode(file, 'x', S_IFREG), 'ENOTDIR');
    fs.refused(makeNode(fs.root, '', S_IFREG), 'ENOENT');
    fs.refused(makeNode(fs.root, 'x'.repeat(256), S_IFREG), 'ENAMETOOLONG');
    fs.refused(makeNode(fs.root, 'a/b', S_IFREG), 'EINVAL');
    fs.refused(makeNode(fs.root, 'a\0b', S_IFREG), 'EINVAL');
    fs.refused(makeNode(fs.root, '.', S_IFDIR), 'EEXIST');
    fs.refused(makeNode(fs.root, '..', S_IFDIR), 'EEXIST');
    fs.refused(makeNode(fs.root, 'x', 0o030000), 'EINVAL');
    fs.refused(makeNode(fs.root, 'x', S_IFLNK, { target: b('') }), 'ENOENT');
    fs.refused(makeNode(fs.root, 'x', S_IFLNK, { target: Buffer.alloc(4096, 'a') }), 'ENAMETOOLONG');
    fs.refused(makeNode(fs.root, 'f', S_IFLNK, { target: b('') }), 'EEXIST');
  });

  it('takes names of 255 arbitrary bytes', () => {
    const name = Buffer.alloc(255, 0xfe);
    fs.ok(makeNode(fs.root, name.toString('latin1'), S_IFREG));
    assert.deepEqual(fs.page(fs.root).entries[0]?.name, name);
  });

  it('never gives an inode number twice', () => {
    const first = fs.mkdir(fs.root, 'd');
    fs.ok(fs.rmdir(fs.root, 'd'));
    assert.ok(fs.mkdir(fs.root, 'd') > first);
  });

  it('refuses links beyond LINK_MAX, of a directory and of a file', () => {
    const d = fs.mkdir(fs.root, 'd');
    const other = fs.mkdir(fs.root, 'other');
    const f = fs.create(fs.root, 'f');
    fs.mkdir(d, 'sub');
    fs.mkdir(other, 'moving');
    for (const ino of [d, f]) {
      const inode = { ...(loadInode(fs.kv, ino) as Inode), nlink: LINK_MAX };
      fs.kv.transaction((txn) => txn.put(inodeKey(ino), encodeInode(inode)));
    }
    fs.refused(makeNode(d, 'more', S_IFDIR), 'EMLINK');
    fs.refused(fs.rename(other, 'moving', d, 'moving'), 'EMLINK');
    fs.refused(fs.link(f, fs.root, 'g'), 'EMLINK');
    fs.create(d, 'file');
    fs.ok(fs.rename(other, 'moving', d, 'sub'));
    assert.equal(fs.get(d).nlink, LINK_MAX);
  });
});

describe('namespace: link, unlink, rmdir', () => {
  let fs: Namespace;
  beforeEach(() => {
    fs = new Namespace();
  });

  it('links a file: nlink and ctime of the file, times of the directory', () => {
    const ino = fs.create(fs.root, 'f');
    const { mtime } = fs.get(ino);
    const attr = fs.attr(fs.link(ino, fs.root, 'g'));
    assert.equal(attr.nlink, 2);
    assert.deepEqual(attr.ctime, { sec: fs.now, nsec: 0 });
    assert.deepEqual(attr.mtime, mtime);
    assert.deepEqual(fs.get(fs.root).mtime, { sec: fs.now, nsec: 0 });
    assert.deepEqual(fs.names(fs.root), ['f', 'g']);
  });

  it('refuses links to directories, missing inodes, existing names, files without names', () => {
    const d = fs.mkdir(fs.root, 'd');
    const f = fs.create(fs.root, 'f');
    const s = fs.symlink(fs.root, 's', 'f');
    fs.refused(fs.link(d, fs.root, 'x'), 'EPERM');
    fs.refused(fs.link(d, fs.root, 'f'), 'EEXIST');
    fs.refused(fs.link(f, fs.root, 'd'), 'EEXIST');
    fs.refused(fs.link(f, fs.root, '.'), 'EEXIST');
    fs.refused(fs.link(99, fs.root, 'x'), 'ENOENT');
    fs.refused(fs.link(f, f, 'x'), 'ENOTDIR');
    fs.refused(fs.link(f, fs.root, 'y'.repeat(256)), 'ENAMETOOLONG');
    fs.ok(fs.link(s, fs.root, 's2'));
    fs.ok(fs.unlink(fs.root, 'f'));
    fs.refused(fs.link(f, fs.root, 'x'), 'ENOENT');
  });

  it('unlinks: the last name of a file leaves an orphan, of anything else nothing', () => {
    const f = fs.create(fs.root, 'f');
    fs.ok(fs.link(f, fs.root, 'g'));
    assert.deepEqual(pick(fs.ok(fs.unlink(fs.root, 'f'))), [f, 1]);
    assert.deepEqual(fs.get(f).ctime, { sec: fs.now, nsec: 0 });
    assert.deepEqual(pick(fs.ok(fs.unlink(fs.root, 'g'))), [f, 0]);
    assert.equal(fs.get(f).nlink, 0);
    assert.deepEqual(fs.machine.usage(), { inodes: 2, orphans: 1, allocatedBytes: 0 });
    for (const ino of [fs.symlink(fs.root, 's', 't'), fs.attr(makeNode(fs.root, 'p', S_IFIFO)).ino]) {
      fs.ok(fs.unlink(fs.root, fs.names(fs.root)[0] as string));
      assert.throws(() => fs.get(ino), throwsWith('ENOENT'));
    }
    assert.equal(fs.machine.usage().inodes, 2);
    assert.deepEqual(fs.names(fs.root), []);
  });

  it('refuses unlink and rmdir of the wrong kind, of dots, of what is not there, of full directories', () => {
    const d = fs.mkdir(fs.root, 'd');
    const f = fs.create(fs.root, 'f');
    fs.refused(fs.unlink(fs.root, 'd'), 'EISDIR');
    fs.refused(fs.unlink(fs.root, '.'), 'EISDIR');
    fs.refused(fs.unlink(fs.root, 'x'), 'ENOENT');
    fs.refused(fs.unlink(f, 'x'), 'ENOTDIR');
    fs.refused(fs.unlink(99, 'x'), 'ENOENT');
    fs.refused(fs.unlink(fs.root, 'x'.repeat(256)), 'ENAMETOOLONG');
    fs.refused(fs.rmdir(fs.root, 'f'), 'ENOTDIR');
    fs.refused(fs.rmdir(fs.root, '.'), 'EINVAL');
    fs.refused(fs.rmdir(fs.root, '..'), 'ENOTEMPTY');
    fs.refused(fs.rmdir(fs.root, 'x'), 'ENOENT');
    fs.create(d, 'in');
    fs.refused(fs.rmdir(fs.root, 'd'), 'ENOTEMPTY');
  });

  it('removes an empty directory at once, with its link of the parent', () => {
    const d = fs.mkdir(fs.root, 'd');
    assert.deepEqual(pick(fs.ok(fs.rmdir(fs.root, 'd'))), [d, 0]);
    assert.equal(fs.get(fs.root).nlink, 2);
    assert.throws(() => fs.get(d), throwsWith('ENOENT'));
    fs.refused(makeNode(d, 'x', S_IFREG), 'ENOENT');
  });

  it('lets only the owners and root remove from a sticky directory', () => {
    const d = fs.mkdir(fs.root, 'd', { uid: 10, perm: 0o777 | S_ISVTX });
    for (const name of ['a', 'b', 'c']) fs.create(d, name, { uid: 20 });
    fs.mkdir(d, 'sub', { uid: 20 });
    fs.refused(fs.unlink(d, 'a', 30), 'EPERM');
    fs.refused(fs.rmdir(d, 'sub', 30), 'EPERM');
    fs.refused(fs.rename(d, 'a', fs.root, 'a', { uid: 30 }), 'EPERM');
    fs.ok(fs.unlink(d, 'a', 20));
    fs.ok(fs.unlink(d, 'b', 10));
    fs.ok(fs.unlink(d, 'c', 0));
    fs.ok(fs.rmdir(d, 'sub', 20));
    const plain = fs.mkdir(fs.root, 'plain', { uid: 10 });
    fs.ok(setAttr(plain, { mode: 0o777 }));
    fs.create(plain, 'a', { uid: 20 });
    fs.ok(fs.unlink(plain, 'a', 30));
  });
});

function pick(reply: { unlinkedIno: number; unlinkedNlink: number }): number[] {
  return [reply.unlinkedIno, reply.unlinkedNlink];
}
