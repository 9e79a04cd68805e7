import assert from 'node:assert/strict';
import { Fencing } from '../../../metaserver/cluster/fencing.js';
import { HoldfastError } from '../../../proto/errors.js';

function fixture(...servers: number[]) {
  const alive = new Set(servers);
  const pushed: number[] = [];
  let version = 10;
  const fencing = new Fencing({
    fence: () => ({ version: version++, upto: 3, live: [2] }),
    alive: () => alive,
    push: (fence) => pushed.push(fence.version),
  });
  const log: string[] = [];
  const shutOut = async (name: string): Promise<void> => {
    await fencing.shutOut().then(
      () => log.push(name),
      (error: HoldfastError) => log.push(`${name} ${error.errorName}`),
    );
  };
  const settled = () => new Promise((resolve) => setImmediate(resolve));
  return { fencing, alive, pushed, log, shutOut, settled };
}

describe('fencing', () => {
  it('is over when every living chunkserver keeps the fence', async () => {
    const { fencing, pushed, log, shutOut } = fixture(1, 2);
    const done = shutOut('a');
    assert.deepEqual(pushed, [10]);
    fencing.kept(1, 10);
    fencing.kept(2, 9);
    assert.deepEqual(log, []);
    fencing.kept(2, 12);
    await done;
    assert.deepEqual(log, ['a']);
  });

  it('does not wait for a chunkserver that the map drops, but for one that it takes up', async () => {
    const { fencing, alive, log, shutOut, settled } = fixture(1, 2);
    const done = shutOut('a');
    alive.add(3);
    fencing.kept(1, 10);
    alive.delete(2);
    fencing.check();
    await settled();
    assert.deepEqual(log, []);
    fencing.kept(3, 10);
    await done;
  });

  it('is over at once when nothing serves, or all keep it already', async () => {
    const empty = fixture();
    await empty.shutOut('a');
    const { fencing, shutOut, log } = fixture(1);
    fencing.kept(1, 50);
    await shutOut('b');
    assert.deepEqual(log, ['b']);
  });

  it('fails with the leadership, and trusts no answer of a former one', async () => {
    const { fencing, log, shutOut, settled } = fixture(1);
    fencing.kept(1, 9);
    const done = shutOut('a');
    fencing.end(new HoldfastError('NOT_LEADER'));
    await done;
    assert.deepEqual(log, ['a NOT_LEADER']);
    void shutOut('b');
    await settled();
    assert.equal(log.length, 1);
  });
});
