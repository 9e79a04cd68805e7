import assert from 'node:assert/strict';
import { S_IFDIR, S_IFREG } from '../../../proto/types.js';
import { b, makeNode, Namespace, type Op } from './harness.js';

describe('namespace: files without a name, and access times', () => {
  let fs: Namespace;
  beforeEach(() => {
    fs = new Namespace();
  });

  const unnamed = (mode = S_IFREG | 0o640): Op => makeNode(fs.root, '', mode, { unnamed: true, open: true });
  const make = (): number => {
    const { result } = fs.ok(unnamed());
    assert.ok(result?.$case === 'attr');
    return result.value.ino;
  };
  const link = (ino: number, name: string): Op => ({
    $case: 'link',
    value: { ino, parent: fs.root, name: b(name) },
  });

  it('are orphans from the start: no name, no link, data to reclaim', () => {
    const ino = make();
    const { nlink, mode } = fs.get(ino);
    assert.deepEqual({ nlink, mode }, { nlink: 0, mode: S_IFREG | 0o640 });
    assert.deepEqual(fs.page(fs.root).entries, []);
    assert.deepEqual(
      fs.machine.reclaims(undefined, 10).map((item) => item.ino),
      [ino],
    );
    fs.refused(unnamed(S_IFDIR | 0o755), 'EINVAL');
  });

  it('get a name once, and are files like others from then on', () => {
    const ino = make();
    fs.ok(link(ino, 'f'));
    assert.equal(fs.get(ino).nlink, 1);
    assert.deepEqual(fs.machine.reclaims(undefined, 10), []);
    fs.ok(link(ino, 'g'));
    for (const name of ['f', 'g'])
      fs.ok({ $case: 'unlink', value: { parent: fs.root, name: b(name), uid: 0 } });
    assert.equal(fs.machine.reclaims(undefined, 10).length, 1);
    fs.refused(link(ino, 'h'), 'ENOENT');
  });

  it('access times move forward alone and are no change', () => {
    const ino = fs.create(fs.root, 'f');
    const before = fs.get(ino);
    const set = (sec: number): Op => ({
      $case: 'setAtimes',
      value: {
        atimes: [
          { ino, atime: { sec, nsec: 5 } },
          { ino: 999, atime: { sec, nsec: 0 } },
        ],
      },
    });
    fs.ok(set(fs.now + 100));
    const after = fs.get(ino);
    assert.deepEqual(after, { ...before, atime: after.atime });
    fs.ok(set(1));
    assert.deepEqual(fs.get(ino), after);
  });
});
