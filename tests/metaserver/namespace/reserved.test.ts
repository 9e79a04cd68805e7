import assert from 'node:assert/strict';
import { RESERVED_RANGES_MAX } from '../../../metaserver/namespace/reserved.js';
import { S_IFREG } from '../../../proto/types.js';
import { b, makeNode, Namespace, type Op, setAttr } from './harness.js';

const reserve = (count: number): Op => ({ $case: 'reserveInodes', value: { count } });
const file = (name: string, ino?: number): Op => makeNode(1, name, S_IFREG | 0o644, { ino });

describe('reserved inode numbers', () => {
  it('are given to no other inode, and to new ones of the session in rising order', () => {
    const space = new Namespace();
    const first = space.ok(reserve(10)).firstIno as number;
    const other = space.ok(file('other')).result;
    assert.equal(other?.$case === 'attr' && other.value.ino, first + 10);
    for (const ino of [first, first + 4, first + 9]) {
      const { result } = space.ok(file(`n${ino}`, ino));
      assert.equal(result?.$case === 'attr' && result.value.ino, ino);
    }
    space.refused(file('again', first + 4), 'EINVAL');
    space.refused(file('skipped', first + 2), 'EINVAL');
    space.refused(file('beyond', first + 10), 'EINVAL');
  });

  it('a number that was refused with its change is not used up', () => {
    const space = new Namespace();
    const first = space.ok(reserve(10)).firstIno as number;
    space.ok(file('x'));
    space.refused(file('x', first), 'EEXIST');
    space.ok(file('y', first));
  });

  it('belong to one session, for as long as it lives', () => {
    const space = new Namespace();
    const first = space.ok(reserve(10)).firstIno as number;
    const session = space.openSession('client-2');
    const mutation = { session, seq: 1, ackedBelow: 1, op: file('theft', first) };
    assert.equal(space.command({ $case: 'mutation', value: mutation }).error, 22);
    const before = [...space.kv.range(Buffer.from('N'), Buffer.from('O'))].length;
    space.command({ $case: 'expireSession', value: { session: space.session } });
    assert.deepEqual([before, [...space.kv.range(Buffer.from('N'), Buffer.from('O'))].length], [1, 0]);
  });

  it('are bounded in number', () => {
    const space = new Namespace();
    for (let at = 0; at < RESERVED_RANGES_MAX; at++) space.ok(reserve(1));
    space.refused(reserve(1), 'OVERLOADED');
    space.refused(reserve(0), 'EINVAL');
    space.refused(reserve(1e6), 'EINVAL');
  });
});

describe('a batch of changes', () => {
  it('is applied in order, each change with its own result and time', () => {
    const space = new Namespace();
    const first = space.ok(reserve(10)).firstIno as number;
    const results = space.mutateBatch([
      { op: file('a', first), time: { sec: 5, nsec: 1 } },
      { op: file('a', first + 1) },
      {
        op: {
          $case: 'rename',
          value: { parent: 1, name: b('a'), newParent: 1, newName: b('b'), flags: 0, uid: 0 },
        },
      },
      { op: setAttr(first, { mode: 0o600 }), time: { sec: 6000, nsec: 0 } },
    ]);
    assert.deepEqual(
      results.map(({ error }) => error),
      [0, 17, 0, 0],
    );
    const { result } = space.machine.read({ op: { $case: 'lookup', value: { parent: 1, name: b('b') } } });
    assert.ok(result?.$case === 'attr');
    assert.deepEqual(
      [result.value.ino, result.value.mode & 0o777, result.value.mtime, result.value.ctime],
      [first, 0o600, { sec: 5, nsec: 1 }, { sec: 6000, nsec: 0 }],
    );
  });

  it('that is repeated gives the results of the first time', () => {
    const space = new Namespace();
    const changes = [{ op: file('a') }, { op: file('a') }];
    const first = space.mutateBatch(changes);
    space.seq -= 2;
    const again = space.mutateBatch(changes);
    assert.deepEqual(
      again.map(({ error, mutation }) => [error, mutation?.result]),
      first.map(({ error, mutation }) => [error, mutation?.result]),
    );
    assert.equal(space.machine.usage().inodes, 2);
  });
});
