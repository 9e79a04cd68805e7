import assert from 'node:assert/strict';
import { unpack } from '../../../client/meta/packed-page.js';
import { MetaStateMachine } from '../../../metaserver/namespace/state-machine.js';
import { MemoryKv } from '../../../metaserver/store/memory-kv.js';
import { CommitWrite, type DirPage, LeaseMode, SetAttr } from '../../../proto/gen/meta.js';
import { MAX_INO } from '../../../proto/types.js';
import { b, Namespace, throwsWith } from './harness.js';

describe('namespace: reads', () => {
  let fs: Namespace;
  let d: number;
  beforeEach(() => {
    fs = new Namespace();
    d = fs.mkdir(fs.root, 'd');
  });

  it('looks up names, "." of any inode, and ".."', () => {
    const f = fs.create(d, 'f');
    assert.equal(fs.lookup(d, 'f').ino, f);
    assert.equal(fs.lookup(d, '.').ino, d);
    assert.equal(fs.lookup(f, '.').ino, f);
    assert.equal(fs.lookup(d, '..').ino, fs.root);
    assert.throws(() => fs.lookup(f, '..'), throwsWith('ENOTDIR'));
    assert.throws(() => fs.lookup(f, 'x'), throwsWith('ENOTDIR'));
    assert.throws(() => fs.lookup(d, 'x'), throwsWith('ENOENT'));
    assert.throws(() => fs.lookup(d, ''), throwsWith('ENOENT'));
    assert.throws(() => fs.lookup(99, 'x'), throwsWith('ENOENT'));
    assert.throws(() => fs.lookup(d, 'x'.repeat(256)), throwsWith('ENAMETOOLONG'));
    assert.throws(() => fs.get(99), throwsWith('ENOENT'));
    assert.throws(() => fs.page(f), throwsWith('ENOTDIR'));
  });

  it('pages through a directory: each entry once, in order, with an end', () => {
    const inos = Array.from({ length: 10 }, (_, n) => fs.create(d, `f${9 - n}`));
    const seen: number[] = [];
    for (let cookie = 0, end = false; !end; ) {
      const page = fs.page(d, cookie, 3);
      assert.ok(page.entries.length <= 3);
      assert.equal(page.parent, fs.root);
      for (const entry of page.entries) {
        assert.ok(entry.cookie > cookie && entry.cookie > 2);
        cookie = entry.cookie;
        assert.deepEqual([entry.type, entry.attr], [8, undefined]);
        seen.push(entry.ino);
      }
      ({ end } = page);
    }
    assert.deepEqual(seen, inos);
    assert.equal(fs.page(d, 0, 10).end, true);
    assert.equal(fs.page(d, 0, 9).end, false);
    assert.deepEqual(fs.page(fs.create(d, 'x') && fs.mkdir(d, 'empty')), {
      entries: [],
      end: true,
      parent: d,
      attr: undefined,
    });
  });

  it('gives the same page as rows to who asks for that', () => {
    const f = fs.create(d, 'f');
    fs.symlink(d, '\xff', 'target');
    fs.mkdir(d, 'sub');
    fs.ok({ $case: 'setXattr', value: { ino: f, name: b('user.a'), value: b('1'), flags: 0 } });
    const cut = fs.create(d, 'cut');
    fs.ok({
      $case: 'commitWrite',
      value: CommitWrite.create({ ino: cut, newSize: 100, allocatedDelta: 100 }),
    });
    fs.ok({ $case: 'setAttr', value: SetAttr.create({ ino: cut, size: 10 }) });
    assert.equal(fs.get(cut).truncates.length, 1);
    const value = { ino: d, cookie: 0, maxEntries: 3, plus: true, want: LeaseMode.LEASE_SHARED };
    for (let end = false; !end; ) {
      const plain = fs.read({ $case: 'readDir', value }) as DirPage;
      const packed = fs.read({ $case: 'readDir', value: { ...value, packed: true } }) as DirPage;
      assert.equal(packed.entries.length, 0);
      assert.deepEqual(unpack(packed), [], 'without leases');
      assert.deepEqual({ ...packed, packed: undefined }, { ...plain, packed: undefined });
      value.cookie = plain.entries.at(-1)?.cookie ?? 0;
      ({ end } = plain);
    }
  });

  it('gives attributes with plus', () => {
    const f = fs.create(d, 'f');
    const [entry] = fs.page(d, 0, 0, true).entries;
    assert.deepEqual(entry?.attr, fs.get(f));
  });

  it('goes on behind a cookie whose entry is gone, and shows what is new at the end', () => {
    for (const name of ['1', '2', '3', '4']) fs.create(d, name);
    const cookie = fs.page(d, 0, 2).entries[1]?.cookie;
    fs.ok(fs.unlink(d, '2'));
    fs.ok(fs.unlink(d, '3'));
    fs.create(d, '5');
    assert.deepEqual(
      fs.page(d, cookie).entries.map((entry) => String(entry.name)),
      ['4', '5'],
    );
  });

  it('answers statfs from the given capacity and its own counts', () => {
    const capacity = { totalBytes: 100, freeBytes: 60, availBytes: 50 };
    const sized = new Namespace(new MemoryKv(), { capacity: () => capacity });
    sized.create(sized.root, 'f');
    const reply = sized.read({ $case: 'statFs', value: {} });
    assert.deepEqual(reply, { ...capacity, inodesUsed: 2, inodesFree: MAX_INO - 2 });
  });

  it('refuses reads before the cluster is made', () => {
    const machine = new MetaStateMachine(new MemoryKv());
    assert.throws(() => machine.read({ op: { $case: 'statFs', value: {} } }), throwsWith('UNAVAILABLE'));
    assert.throws(() => fs.machine.read({ op: undefined }), throwsWith('PROTOCOL'));
  });
});
