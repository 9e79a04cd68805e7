import fc from 'fast-check';
import { CommitWrite, Mutation } from '../../../proto/gen/meta.js';
import { S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from '../../../proto/types.js';
import { type Body, b, makeNode, type Op, setAttr } from './harness.js';

/** Random operations on a small set of inodes and names, so that they meet. */

const NAMES = ['a', 'b', 'c', 'd'];

/** Made before the random operations: directories 2..6, nested, and files 7..10, of which 10 has two names. */
export const FIRST_OPS: Op[] = [
  makeNode(1, 'a', S_IFDIR | 0o755),
  makeNode(1, 'b', S_IFDIR | 0o1777, { uid: 10 }),
  makeNode(2, 'a', S_IFDIR | 0o2775, { gid: 20 }),
  makeNode(2, 'b', S_IFDIR | 0o755),
  makeNode(4, 'c', S_IFDIR | 0o755),
  makeNode(1, 'c', S_IFREG | 0o644),
  makeNode(2, 'c', S_IFREG | 0o644),
  makeNode(3, 'a', S_IFREG | 0o644, { uid: 20 }),
  makeNode(4, 'a', S_IFREG | 0o644),
  { $case: 'link', value: { ino: 10, parent: 3, name: b('b') } },
];
const LAST_DIRECTORY = 6;
const MAX_INO = 14;

const name = fc.oneof(
  { weight: 30, arbitrary: fc.constantFrom(...NAMES) },
  { weight: 1, arbitrary: fc.constantFrom('.', '..') },
);
const ino = fc.integer({ min: 1, max: MAX_INO });
const parent = fc.oneof(
  { weight: 9, arbitrary: fc.integer({ min: 1, max: LAST_DIRECTORY }) },
  { weight: 1, arbitrary: ino },
);
const file = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: LAST_DIRECTORY + 1, max: MAX_INO }) },
  { weight: 1, arbitrary: ino },
);
const uid = fc.constantFrom(0, 0, 10, 20);
const type = fc.constantFrom(S_IFDIR, S_IFDIR, S_IFDIR, S_IFREG, S_IFREG, S_IFLNK, S_IFIFO);
const perm = fc.constantFrom(0o755, 0o644, 0o1777, 0o2775, 0o4755);

export const opArbitrary: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ parent, name, type, perm, uid, existingOk: fc.boolean() }).map((r) =>
      makeNode(r.parent, r.name, r.type | r.perm, {
        uid: r.uid,
        gid: r.uid,
        existingOk: r.existingOk,
        target: b('t'),
      }),
    ),
  },
  {
    weight: 3,
    arbitrary: fc
      .record({ ino: file, parent, name })
      .map((r): Op => ({ $case: 'link', value: { ...r, name: b(r.name) } })),
  },
  {
    weight: 4,
    arbitrary: fc
      .record({ parent, name, uid })
      .map((r): Op => ({ $case: 'unlink', value: { ...r, name: b(r.name) } })),
  },
  {
    weight: 3,
    arbitrary: fc
      .record({ parent, name, uid })
      .map((r): Op => ({ $case: 'rmdir', value: { ...r, name: b(r.name) } })),
  },
  {
    weight: 8,
    arbitrary: fc
      .record({
        parent,
        name,
        newParent: parent,
        newName: name,
        flags: fc.constantFrom(0, 0, 0, 1, 2, 2, 3, 8),
        uid,
      })
      .map((r): Op => ({ $case: 'rename', value: { ...r, name: b(r.name), newName: b(r.newName) } })),
  },
  {
    weight: 3,
    arbitrary: fc
      .record({
        ino: file,
        size: fc.option(fc.nat(20_000), { nil: undefined }),
        mode: fc.option(perm, { nil: undefined }),
      })
      .map(({ ino: target, ...changes }) => setAttr(target, changes)),
  },
  {
    weight: 3,
    arbitrary: fc
      .record({
        ino: file,
        newSize: fc.nat(30_000),
        allocatedDelta: fc.integer({ min: -9000, max: 20_000 }),
        truncateSeq: fc.constantFrom(0, 0, 0, 1, 2),
      })
      .map((r): Op => ({ $case: 'commitWrite', value: { ...CommitWrite.create({}), ...r } })),
  },
  {
    weight: 2,
    arbitrary: fc
      .record({
        ino,
        name: fc.constantFrom('user.a', 'user.a', 'trusted.b', 'bad'),
        flags: fc.constantFrom(0, 0, 0, 1, 2, 3),
        value: fc.constantFrom('', 'v'),
      })
      .map((r): Op => ({ $case: 'setXattr', value: { ...r, name: b(r.name), value: b(r.value) } })),
  },
  {
    weight: 1,
    arbitrary: fc
      .record({ ino, name: fc.constantFrom('user.a', 'trusted.b') })
      .map((r): Op => ({ $case: 'removeXattr', value: { ...r, name: b(r.name) } })),
  },
  {
    weight: 3,
    arbitrary: fc
      .record({ ino, uid, flags: fc.constantFrom(0, 0, 0, 0x10, 0x20, 0x80, 0x90, 0xb0, 0x8) })
      .map((r): Op => ({ $case: 'setFlags', value: r })),
  },
);

/** Commands of the log: mutations of two sessions with colliding numbers, reclaims, and session ends. */
export const commandArbitrary: fc.Arbitrary<Body> = fc.oneof(
  {
    weight: 20,
    arbitrary: fc
      .record({
        session: fc.integer({ min: 1, max: 3 }),
        seq: fc.integer({ min: 0, max: 60 }),
        acked: fc.nat(30),
        op: opArbitrary,
      })
      .map(
        ({ acked, ...r }): Body => ({
          $case: 'mutation',
          value: { ...Mutation.create({}), ...r, ackedBelow: Math.max(0, r.seq - acked) },
        }),
      ),
  },
  {
    weight: 3,
    arbitrary: fc
      .record({ ino, truncateSeq: fc.nat(2) })
      .map((value): Body => ({ $case: 'reclaimDone', value })),
  },
  { weight: 1, arbitrary: fc.constant<Body>({ $case: 'expireSession', value: { session: 2 } }) },
  {
    weight: 1,
    arbitrary: fc.constant<Body>({
      $case: 'putChunkServer',
      value: { server: { id: 1, diskUuid: 'd', host: 'h', port: 1, alive: true, domain: '' } },
    }),
  },
);
