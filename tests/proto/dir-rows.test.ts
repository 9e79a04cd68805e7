import assert from 'node:assert/strict';
import fc from 'fast-check';
import { DirRows, DirRowsWriter } from '../../proto/dir-rows.js';
import { HoldfastError } from '../../proto/errors.js';
import { Attr, type DirEntry, LeaseMode } from '../../proto/gen/meta.js';

const u32 = fc.nat(0xffff_ffff);
const u53 = fc.maxSafeNat();
const time = fc.record({ sec: fc.maxSafeInteger(), nsec: fc.nat(999_999_999) }, { noNullPrototype: true });
const attrs: fc.Arbitrary<Attr> = fc.record({
  ino: u53,
  generation: u32,
  mode: u32,
  nlink: u32,
  uid: u32,
  gid: u32,
  rdev: u32,
  size: u53,
  allocated: u53,
  atime: time,
  mtime: time,
  ctime: time,
  chunkSize: u32,
  truncateSeq: u32,
  truncates: fc.constant([]),
  change: u53,
  project: fc.constant(undefined),
  xattrKinds: u32,
  hasXattrs: fc.boolean(),
  birth: fc.option(time, { nil: undefined }),
  flags: fc.option(fc.integer({ min: 1, max: 0xffff_ffff }), { nil: undefined }),
});
const entries: fc.Arbitrary<DirEntry> = fc
  .record({
    name: fc.uint8Array({ maxLength: 255 }).map((bytes) => Buffer.from(bytes)),
    ino: u53,
    type: fc.nat(15),
    cookie: u53,
    attr: fc.option(attrs, { nil: undefined }),
  })
  .map((entry) => ({ ...entry, attr: entry.attr && { ...entry.attr, ino: entry.ino } }));

function pageOf(listed: readonly DirEntry[], expected: number): Buffer {
  const writer = new DirRowsWriter(expected);
  for (const [row, { name, ino, type, cookie, attr }] of listed.entries()) {
    writer.add(ino, type, cookie, Buffer.concat([Buffer.from('..'), name]), 2);
    if (attr) writer.setAttr(row, attr, attr.hasXattrs ?? false);
  }
  return writer.finish();
}

const refused = (error: unknown): boolean => error instanceof HoldfastError && error.errorName === 'PROTOCOL';

describe('pages of a directory as rows', () => {
  it('hold what entries hold, however many were expected and wherever the page lies', () => {
    fc.assert(
      fc.property(fc.array(entries, { maxLength: 40 }), fc.nat(50), fc.nat(9), (listed, expected, offset) => {
        const page = pageOf(listed, expected);
        const moved = Buffer.concat([Buffer.alloc(offset), page]).subarray(offset);
        assert.deepEqual(new DirRows(moved).entries([]), listed);
      }),
    );
  });

  it('carry a lease on each row, and attributes that no row can hold', () => {
    const attr = Attr.create({ ino: 7, change: 3 });
    const listed = [7, 8].map((ino) => ({
      name: Buffer.from([ino]),
      ino,
      type: 8,
      cookie: ino,
      attr: { ...attr, ino },
    }));
    const rows = new DirRows(pageOf(listed, 2));
    rows.setLease(1, { mode: LeaseMode.LEASE_EXCLUSIVE, seq: 2 ** 40 });
    assert.deepEqual(rows.leases(), [{ ino: 8, mode: LeaseMode.LEASE_EXCLUSIVE, seq: 2 ** 40 }]);
    const other = { ...attr, truncates: [{ seq: 1, from: 5 }] };
    assert.deepEqual(rows.entries([other])[0]?.attr, other);
    rows.hideAttr(0);
    assert.deepEqual([rows.hasAttr(0), rows.entries([other])[0]?.attr], [false, undefined]);
  });

  it('are refused when they are cut off, of another layout, or name what is not there', () => {
    const page = pageOf([{ name: Buffer.from('name'), ino: 7, type: 8, cookie: 3, attr: undefined }], 1);
    for (const length of [0, 7, page.length - 5]) {
      assert.throws(() => new DirRows(Buffer.from(page.subarray(0, length))), refused);
    }
    const later = Buffer.from(page);
    later.writeUInt32LE(2, 0);
    assert.throws(() => new DirRows(later), refused);
    const shorter = new DirRows(Buffer.from(page.subarray(0, page.length - 1)));
    assert.throws(() => shorter.entries([]), refused);
  });
});
