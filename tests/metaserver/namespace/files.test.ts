import assert from 'node:assert/strict';
import { CommitWrite, SetAttr } from '../../../proto/gen/meta.js';
import {
  FILE_SIZE_MAX_BYTES,
  MAX_PENDING_TRUNCATES,
  S_IFREG,
  S_ISGID,
  S_ISUID,
} from '../../../proto/types.js';
import { b, errorOf, makeNode, Namespace, type Op, setAttr, throwsWith } from './harness.js';

function commit(ino: number, newSize: number, allocatedDelta = 0, more: Partial<CommitWrite> = {}): Op {
  return {
    $case: 'commitWrite',
    value: { ...CommitWrite.create({}), ino, newSize, allocatedDelta, ...more },
  };
}

describe('namespace: attributes', () => {
  let fs: Namespace;
  let f: number;
  beforeEach(() => {
    fs = new Namespace();
    f = fs.create(fs.root, 'f');
  });

  it('changes mode bits but not the type, and only ctime', () => {
    const before = fs.get(f);
    const after = fs.attr(setAttr(f, { mode: 0o100777 | S_ISUID }));
    const ctime = { sec: fs.now, nsec: 0 };
    assert.deepEqual(after, { ...before, mode: S_IFREG | 0o777 | S_ISUID, ctime, change: before.change + 1 });
    fs.refused(setAttr(fs.symlink(fs.root, 's', 't'), { mode: 0o600 }), 'EOPNOTSUPP');
    fs.refused(setAttr(99, { mode: 0o600 }), 'ENOENT');
  });

  it('changes owner and group apart, to any id', () => {
    assert.equal(fs.attr(setAttr(f, { uid: 0xffff_fffe })).uid, 0xffff_fffe);
    const { uid, gid } = fs.attr(setAttr(f, { gid: 5 }));
    assert.deepEqual([uid, gid], [0xffff_fffe, 5]);
  });

  it('takes setuid, and setgid of what the group may execute, with kill_priv', () => {
    const cases: [number, number][] = [
      [0o6775, 0o775],
      [0o6765, 0o2765],
      [0o1775, 0o1775],
    ];
    for (const [mode, killed] of cases) {
      fs.ok(setAttr(f, { mode }));
      assert.equal(fs.attr(setAttr(f, { uid: 3, killPriv: true })).mode, S_IFREG | killed);
    }
    const d = fs.mkdir(fs.root, 'd', { perm: 0o755 | S_ISGID });
    assert.ok(fs.attr(setAttr(d, { uid: 3, killPriv: true })).mode & S_ISGID);
    fs.ok(setAttr(f, { mode: 0o4755 }));
    assert.equal(fs.attr(commit(f, 10, 0, { killPriv: true })).mode, S_IFREG | 0o755);
  });

  it('drops file capabilities with kill_priv', () => {
    const name = b('security.capability');
    fs.ok({ $case: 'setXattr', value: { ino: f, name, value: b('caps'), flags: 0 } });
    fs.ok(setAttr(f, { size: 0, killPriv: true }));
    assert.throws(() => fs.read({ $case: 'getXattr', value: { ino: f, name } }), throwsWith('ENODATA'));
  });

  it('sets times: given ones, now, before 1970, with ctime always now', () => {
    const old = { sec: -12_345_678_901, nsec: 999_999_999 };
    const attr = fs.attr(setAttr(f, { atime: old, mtimeNow: true }));
    assert.deepEqual(attr.atime, old);
    assert.deepEqual(
      [attr.mtime, attr.ctime],
      [
        { sec: fs.now, nsec: 0 },
        { sec: fs.now, nsec: 0 },
      ],
    );
    assert.deepEqual(fs.get(f), attr);
    const ctime = { sec: fs.now + 9, nsec: 6 };
    assert.deepEqual(fs.attr(setAttr(f, { ctime })).ctime, ctime);
    assert.deepEqual(
      fs.attr(setAttr(f, { mode: 0o600, ctime: { sec: 5, nsec: 6 } })).ctime,
      ctime,
      'never back',
    );
    fs.refused(setAttr(f, { mtime: { sec: 1, nsec: 1_000_000_000 } }), 'EINVAL');
  });

  it('leaves everything alone when nothing is asked', () => {
    const before = fs.get(f);
    assert.deepEqual(fs.attr(setAttr(f, {})), before);
  });

  it('counts several changes of one command once', () => {
    const before = fs.get(f).change;
    assert.equal(fs.attr(setAttr(f, { uid: 1, mode: 0o600, size: 9, atimeNow: true })).change, before + 1);
  });

  it('sizes regular files only, up to 2^53 - 1', () => {
    fs.refused(setAttr(fs.root, { size: 1 }), 'EISDIR');
    fs.refused(setAttr(fs.symlink(fs.root, 's', 't'), { size: 1 }), 'EINVAL');
    assert.equal(fs.attr(setAttr(f, { size: FILE_SIZE_MAX_BYTES })).size, FILE_SIZE_MAX_BYTES);
    assert.equal(fs.get(f).size, FILE_SIZE_MAX_BYTES);
  });
});

describe('namespace: sizes, truncates, allocation', () => {
  let fs: Namespace;
  let f: number;
  beforeEach(() => {
    fs = new Namespace();
    f = fs.create(fs.root, 'f');
  });

  const done = (ino: number, truncateSeq: number): void => {
    assert.equal(fs.command({ $case: 'reclaimDone', value: { ino, truncateSeq } }).error, 0);
  };

  it('is made with what was written to it and set of it since, as if that had come one after the other', () => {
    const at = (sec: number) => ({ sec, nsec: 0 });
    const written = { ...CommitWrite.create({}), newSize: 100, mtime: at(3), ctime: at(12) };
    const set = { mode: 0o600, uid: 7, gid: 8, mtime: at(3), ctime: at(13) };
    const reserve: Op = { $case: 'reserveInodes', value: { count: 2 } };
    const space = () => {
      const space = new Namespace();
      const ino = space.ok(reserve).firstIno as number;
      const make = (more: object): Op => makeNode(space.root, 'f', S_IFREG | 0o644, { ino, ...more });
      return { space, ino, make };
    };
    const [one, other] = [space(), space()];
    const together = { ...SetAttr.create({}), ...set, changes: 2 };
    one.space.mutateBatch([{ op: one.make({ written, set: together }), time: at(10) }]);
    const { mode, uid, gid, mtime, ctime } = set;
    other.space.mutateBatch([
      { op: other.make({}), time: at(10) },
      { op: commit(other.ino, 100, 0, { mtime: at(3), ctime: at(12) }), time: at(12) },
      { op: setAttr(other.ino, { mtime, mode, ctime: at(12) }), time: at(12) },
      { op: setAttr(other.ino, { uid, gid, ctime }), time: at(13) },
    ]);
    assert.deepEqual(one.space.get(one.ino), other.space.get(other.ino));
    assert.equal(one.space.get(one.ino).uid, 7);
    for (const wrong of [{ size: 5 }, { killPriv: true }, { mtime: { sec: 1, nsec: 1e9 } }]) {
      const op = makeNode(fs.root, 'g', S_IFREG | 0o644, { set: { ...SetAttr.create({}), ...wrong } });
      fs.refused(op, 'EINVAL');
    }
  });

  it('grows by what was written, never shrinks by it, and counts allocation', () => {
    assert.equal(fs.attr(commit(f, 5000, 8192)).size, 5000);
    const attr = fs.attr(commit(f, 100, -4096, { mtime: { sec: 7, nsec: 8 } }));
    assert.deepEqual([attr.size, attr.allocated], [5000, 4096]);
    assert.deepEqual(
      [attr.mtime, attr.ctime],
      [
        { sec: 7, nsec: 8 },
        { sec: fs.now, nsec: 0 },
      ],
    );
    assert.equal(fs.machine.usage().allocatedBytes, 4096);
    assert.equal(fs.attr(commit(f, 0, -100_000)).allocated, 0);
    assert.equal(fs.machine.usage().allocatedBytes, 0);
    fs.refused(commit(fs.root, 1), 'EISDIR');
    fs.refused(commit(99, 1), 'ENOENT');
    fs.refused(commit(f, 1, 0, { truncateSeq: 1 }), 'EINVAL');
  });

  it('keeps the ctime that the writer has shown, unless the file changed later', () => {
    const attr = fs.attr(commit(f, 1, 0, { ctime: { sec: fs.now + 5, nsec: 9 } }));
    assert.deepEqual(attr.ctime, { sec: fs.now + 4, nsec: 9 });
    const changed = fs.attr(setAttr(f, { mode: 0o600 }));
    assert.deepEqual(fs.attr(commit(f, 2, 0, { ctime: { sec: 1, nsec: 0 } })).ctime, changed.ctime);
  });

  it('numbers shrinking truncates, and leaves the rest to be reclaimed', () => {
    fs.ok(commit(f, 10_000, 12_288));
    const attr = fs.attr(setAttr(f, { size: 4097 }));
    assert.deepEqual([attr.size, attr.allocated, attr.truncateSeq], [4097, 8192, 1]);
    assert.deepEqual(attr.truncates, [{ seq: 1, from: 4097 }]);
    assert.deepEqual(
      [attr.mtime, attr.ctime],
      [
        { sec: fs.now, nsec: 0 },
        { sec: fs.now, nsec: 0 },
      ],
    );
    assert.equal(fs.attr(setAttr(f, { size: 0 })).allocated, 0);
    assert.deepEqual(fs.machine.reclaims(undefined, 10), [
      { ino: f, truncateSeq: 1, from: 4097, size: 10_000, chunkSize: 1 << 20 },
      { ino: f, truncateSeq: 2, from: 0, size: 4097, chunkSize: 1 << 20 },
    ]);
    done(f, 1);
    assert.deepEqual(fs.get(f).truncates, [{ seq: 2, from: 0 }]);
    done(f, 1);
    done(f, 2);
    assert.deepEqual([fs.get(f).truncates, fs.get(f).truncateSeq], [[], 2]);
    assert.deepEqual(fs.machine.reclaims(undefined, 10), []);
  });

  it('needs no number to grow a file or to keep its size', () => {
    assert.equal(fs.attr(setAttr(f, { size: 5 })).truncateSeq, 0);
    assert.equal(fs.attr(setAttr(f, { size: 5 })).truncateSeq, 0);
    assert.deepEqual(fs.machine.reclaims(undefined, 10), []);
  });

  it('does not bring back the length that a truncate took, when older data is reported late', () => {
    fs.ok(commit(f, 10_000, 12_288));
    fs.ok(setAttr(f, { size: 10 }));
    const late = fs.attr(commit(f, 10_000, 4096, { truncateSeq: 0 }));
    assert.deepEqual([late.size, late.allocated], [10, 8192]);
    assert.equal(fs.attr(commit(f, 300, 0, { truncateSeq: 1 })).size, 300);
  });

  it('asks to wait when too many truncates are pending, and takes the same number again later', () => {
    for (let n = 0; n < MAX_PENDING_TRUNCATES; n++) {
      fs.ok(setAttr(f, { size: 9 }));
      fs.ok(setAttr(f, { size: 8 }));
    }
    fs.ok(setAttr(f, { size: 9 }));
    fs.refused(setAttr(f, { size: 8 }), 'UNAVAILABLE');
    fs.seq--;
    done(f, 3);
    assert.equal(fs.attr(setAttr(f, { size: 8 })).size, 8);
  });

  it('keeps an orphan usable until all its data is reclaimed, then removes everything of it', () => {
    fs.ok(commit(f, 100_000, 102_400));
    fs.ok(setAttr(f, { size: 50_000 }));
    fs.ok({ $case: 'setXattr', value: { ino: f, name: b('user.x'), value: b('y'), flags: 0 } });
    fs.ok(fs.unlink(fs.root, 'f'));
    const whole = { ino: f, truncateSeq: 0, from: 0, size: 100_000, chunkSize: 1 << 20 };
    assert.deepEqual(fs.machine.reclaims(undefined, 1), [whole]);
    assert.equal(fs.attr(commit(f, 200_000, 4096, { truncateSeq: 1 })).size, 200_000);
    assert.equal(fs.attr(setAttr(f, { mode: 0 })).nlink, 0);
    assert.deepEqual(fs.machine.reclaims(undefined, 1), [{ ...whole, size: 200_000 }]);
    assert.deepEqual(fs.machine.usage(), { inodes: 2, orphans: 1, allocatedBytes: 57_344 });
    done(f, 0);
    assert.throws(() => fs.get(f), throwsWith('ENOENT'));
    assert.deepEqual(fs.machine.reclaims(undefined, 10), []);
    assert.deepEqual(fs.machine.usage(), { inodes: 1, orphans: 0, allocatedBytes: 0 });
    const left = [...fs.kv.range(b('I'), b('Y'))].map(({ key }) => key.toString('latin1')[0]);
    assert.deepEqual(
      left.filter((tag) => tag !== 'S' && tag !== 'R' && tag !== 'U'),
      ['I'],
    );
    done(f, 0);
    assert.equal(errorOf(fs.mutate(commit(f, 1))), 'ENOENT');
  });

  it('ignores the reclaim of a file that has a name', () => {
    fs.ok(commit(f, 10, 4096));
    done(f, 0);
    assert.equal(fs.get(f).size, 10);
  });

  it('lists what is to reclaim in pages, in order', () => {
    for (const name of ['x', 'y', 'z']) {
      const ino = fs.attr(makeNode(fs.root, name, S_IFREG)).ino;
      fs.ok(commit(ino, 10));
      fs.ok(setAttr(ino, { size: 1 }));
      fs.ok(fs.unlink(fs.root, name));
    }
    const all = fs.machine.reclaims(undefined, 100);
    assert.deepEqual(
      all.map(({ ino, truncateSeq }) => [ino - f, truncateSeq]),
      [
        [1, 0],
        [1, 1],
        [2, 0],
        [2, 1],
        [3, 0],
        [3, 1],
      ],
    );
    assert.deepEqual(fs.machine.reclaims(all[1], 2), all.slice(2, 4));
    assert.deepEqual(fs.machine.reclaims(all[5], 2), []);
  });
});
