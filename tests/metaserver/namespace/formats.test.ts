import assert from 'node:assert/strict';
import { decodeInode, encodeInode, type Inode } from '../../../metaserver/namespace/inode-codec.js';
import {
  allotmentKey,
  CLUSTER_KEY,
  COUNTERS_KEY,
  cookieKey,
  dentryKey,
  FORMAT_KEY,
  inodeKey,
  MAP_KEY,
  nameOfKey,
  parseAllotmentKey,
  parseQuotaKey,
  parseReclaimKey,
  quotaKey,
  reclaimKey,
  resultKey,
  sessionKey,
  symlinkKey,
  treeWalkKey,
  uuidKey,
  xattrKey,
} from '../../../metaserver/namespace/keys.js';
import {
  decodeAllotment,
  decodeQuota,
  encodeAllotment,
  encodeQuota,
  newQuota,
  QuotaState,
} from '../../../metaserver/namespace/quota-records.js';
import {
  decodeCookieEntry,
  decodeCounters,
  decodeDentry,
  decodeReclaim,
  decodeSession,
  encodeCookieEntry,
  encodeCounters,
  encodeDentry,
  encodeReclaim,
  encodeSession,
} from '../../../metaserver/namespace/records.js';
import { FILE_SIZE_MAX_BYTES, S_IFCHR, S_IFDIR, S_IFREG } from '../../../proto/types.js';
import { b, throwsWith } from './harness.js';

const hex = (buffer: Buffer): string => buffer.toString('hex');
const INO = 0x0abc_1234_5678;

// Stores in the field hold these bytes: a change here is a new FORMAT_VERSION.
describe('namespace: durable formats', () => {
  it('pins the keys', () => {
    assert.equal(hex(inodeKey(INO)), '4900000abc12345678');
    assert.equal(hex(dentryKey(1, b('na\xff'))), '4400000000000000016e61ff');
    assert.equal(hex(cookieKey(1, 2 ** 40)), '4300000000000000010000010000000000');
    assert.equal(hex(symlinkKey(2)), '4c0000000000000002');
    assert.equal(hex(xattrKey(2, b('user.a'))), '580000000000000002757365722e61');
    assert.equal(hex(reclaimKey(INO, 7)), '5000000abc1234567800000007');
    assert.equal(hex(sessionKey(3)), '5a0000000000000003');
    assert.equal(hex(uuidKey('u-1')), '55752d31');
    assert.equal(hex(resultKey(3, 4)), '5200000000000000030000000000000004');
    assert.deepEqual([FORMAT_KEY, COUNTERS_KEY, CLUSTER_KEY, MAP_KEY].map(String), [
      'Sformat',
      'Scounters',
      'Scluster',
      'Smap',
    ]);
  });

  it('orders keys by number, and reads them back', () => {
    for (const [low, high] of [
      [1, 2],
      [255, 256],
      [2 ** 32 - 1, 2 ** 32],
      [2 ** 52, FILE_SIZE_MAX_BYTES],
    ] as const) {
      assert.equal(Buffer.compare(inodeKey(low), inodeKey(high)), -1);
      assert.equal(Buffer.compare(resultKey(low, high), resultKey(high, low)), -1);
    }
    assert.deepEqual(parseReclaimKey(reclaimKey(INO, 0xffff_ffff)), { ino: INO, truncateSeq: 0xffff_ffff });
    assert.equal(String(nameOfKey(xattrKey(2, b('user.a')))), 'user.a');
  });

  it('pins the small records', () => {
    const dentry = { ino: INO, type: 8, cookie: 17 };
    assert.equal(hex(encodeDentry(dentry)), '00000abc12345678080000000000000011');
    assert.deepEqual(decodeDentry(encodeDentry(dentry)), dentry);
    assert.equal(hex(encodeCookieEntry(2, 4, b('ab'))), '0000000000000002046162');
    assert.deepEqual(decodeCookieEntry(encodeCookieEntry(2, 4, b('ab'))), { ino: 2, type: 4, name: b('ab') });
    const reclaim = { from: 1, size: FILE_SIZE_MAX_BYTES, chunkSize: 4096 };
    assert.equal(hex(encodeReclaim(reclaim)), '0000000000000001001fffffffffffff00001000');
    assert.deepEqual(decodeReclaim(encodeReclaim(reclaim)), reclaim);
    const counters = {
      applied: 1,
      nextIno: 2,
      nextSession: 3,
      nextCookie: 4,
      inodes: 5,
      orphans: 6,
      allocated: 7,
    };
    assert.equal(
      hex(encodeCounters(counters)),
      [1, 2, 3, 4, 5, 6, 7].map((n) => n.toString(16).padStart(16, '0')).join(''),
    );
    assert.deepEqual(decodeCounters(encodeCounters(counters)), counters);
    const session = {
      id: 9,
      clientUuid: 'u',
      hostname: 'hö',
      mountPoint: '/m',
      place: '',
      wantsLeases: true,
      forgottenBelow: 3,
      maxSeq: 5,
    };
    assert.equal(
      hex(encodeSession(session)),
      '000000000000000300000000000000050001750003 68c3b600022f6d01'.replace(' ', ''),
    );
    assert.deepEqual(decodeSession(9, encodeSession(session)), session);
    const withoutFlags = encodeSession(session).subarray(0, -1);
    assert.deepEqual(decodeSession(9, withoutFlags), { ...session, wantsLeases: false });
    const placed = { ...session, place: 'ab' };
    assert.equal(hex(encodeSession(placed)), `${hex(encodeSession(session))}00026162`);
    assert.deepEqual(decodeSession(9, encodeSession(placed)), placed);
  });

  const time = { sec: -1, nsec: 5 };
  const file: Inode = {
    ino: 3,
    generation: 1,
    mode: S_IFREG | 0o644,
    nlink: 1,
    uid: 0xffff_fffe,
    gid: 100,
    rdev: 0,
    size: FILE_SIZE_MAX_BYTES,
    allocated: 4096,
    atime: time,
    mtime: time,
    ctime: time,
    chunkSize: 1 << 22,
    truncateSeq: 0,
    truncates: [],
    change: 1,
    parent: 0,
    entries: 0,
    xattrBytes: 0,
    xattrKinds: 0,
    unnamed: false,
    project: 0,
    birth: time,
    flags: 0,
  };

  it('pins the plain inode', () => {
    assert.equal(
      hex(encodeInode(file)),
      '010481a400000001fffffffe00000064000000010000000000000001' +
        'ffffffffffffffff00000005' +
        '001fffffffffffff00000000000010000040000000000000',
    );
    assert.deepEqual(decodeInode(3, encodeInode(file)), file);
  });

  it('keeps the time of birth at the end, and does without it in inodes that were stored before it was kept', () => {
    const changed = { ...file, ctime: { sec: 7, nsec: 8 } };
    const bytes = encodeInode(changed);
    assert.equal(hex(bytes).slice(-24), 'ffffffffffffffff00000005');
    assert.deepEqual(decodeInode(3, bytes.subarray(0, -12)), { ...changed, birth: undefined });
  });

  it('keeps flags behind all else, in a layout that is known by its number', () => {
    const flagged = { ...file, flags: 0x90 };
    assert.equal(hex(encodeInode(flagged)), `02${hex(encodeInode(file)).slice(2)}00000090`);
    assert.deepEqual(decodeInode(3, encodeInode(flagged)), flagged);
    const born = { ...flagged, ctime: { sec: 7, nsec: 8 } };
    assert.deepEqual(decodeInode(3, encodeInode(born)), born);
    assert.deepEqual(decodeInode(3, encodeInode({ ...born, birth: undefined })), {
      ...born,
      birth: undefined,
    });
  });

  it('keeps every field of every kind of inode', () => {
    const kinds: Partial<Inode>[] = [
      { atime: { sec: -9_007_199_254_740, nsec: 999_999_999 }, ctime: { sec: 2 ** 33, nsec: 0 } },
      {
        mode: S_IFDIR | 0o7777,
        parent: INO,
        entries: 70_000,
        size: 4096,
        allocated: 0,
        chunkSize: 0,
        nlink: 65_000,
      },
      { mode: S_IFCHR | 0o600, rdev: 0xffff_ffff, size: 0, allocated: 0, chunkSize: 0 },
      {
        xattrBytes: 65_536,
        xattrKinds: 7,
        unnamed: true,
        truncateSeq: 9,
        truncates: [
          { seq: 8, from: 1 },
          { seq: 9, from: 2 ** 52 },
        ],
        change: 2 ** 50,
        project: INO,
      },
      { birth: { sec: 2 ** 33, nsec: 7 } },
      { ctime: { sec: 9, nsec: 0 }, birth: { sec: 8, nsec: 0 }, project: 5 },
      {
        mode: S_IFDIR | 0o755,
        parent: 1,
        size: 4096,
        allocated: 0,
        chunkSize: 0,
        flags: 0xffff_ffff,
        project: 5,
      },
    ];
    for (const kind of kinds) {
      const inode = { ...file, ...kind };
      assert.deepEqual(decodeInode(3, encodeInode(inode)), inode);
    }
  });

  it('pins quotas and what is reserved of them', () => {
    assert.equal(hex(quotaKey(1, INO)), '510100000abc12345678');
    assert.deepEqual(parseQuotaKey(quotaKey(2, 7)), { kind: 2, id: 7 });
    assert.equal(hex(allotmentKey(3, 0, INO)), '4100000000000000030000000abc12345678');
    assert.deepEqual(parseAllotmentKey(allotmentKey(3, 1, 7)), { session: 3, kind: 1, id: 7 });
    assert.equal(hex(treeWalkKey(2)), '570000000000000002');
    const fields = { root: 2, parent: 3, limitBytes: 4, limitInodes: 5, bytes: 6, inodes: 7, orphans: 8 };
    const quota = { ...newQuota(0, 9), ...fields, state: QuotaState.REMOVING, cursor: 10, done: 11 };
    const numbers = [2, 3, 4, 5, 6, 7, 8, 10, 11].map((n) => n.toString(16).padStart(16, '0'));
    assert.equal(hex(encodeQuota(quota)), `0102${numbers.join('')}`);
    assert.deepEqual(decodeQuota(0, 9, encodeQuota(quota)), quota);
    assert.deepEqual(decodeAllotment(encodeAllotment({ bytes: 1, inodes: 2 })), { bytes: 1, inodes: 2 });
  });

  it('refuses an inode of an unknown layout', () => {
    const bytes = encodeInode(file);
    bytes[0] = 3;
    assert.throws(() => decodeInode(3, bytes), throwsWith('VERSION'));
  });
});
