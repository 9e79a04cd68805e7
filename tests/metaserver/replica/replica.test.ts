import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { Cluster, until } from './cluster.js';

describe('replica', () => {
  let root: string;
  let cluster: Cluster;

  beforeEach(async () => {
    root = await fs.mkdtemp(path.join(os.tmpdir(), 'holdfast-replica-'));
  });

  afterEach(async () => {
    await cluster.close();
    await fs.rm(root, { recursive: true });
  });

  it('elects exactly one leader and replicates to all', async () => {
    cluster = await Cluster.start(root);
    const leader = await cluster.leader();
    assert.equal(await cluster.replica(leader).propose(Buffer.from('a')), 1);
    assert.equal(await cluster.replica(leader).propose(Buffer.from('b')), 2);
    await cluster.settle();
    assert.deepEqual(
      cluster.ids.filter((id) => cluster.replica(id).status().serving),
      [leader],
    );
    for (const id of cluster.ids) assert.deepEqual(cluster.machine(id).state.items, ['a', 'b']);
  });

  it('answers concurrent proposals in the order of their calls', async () => {
    cluster = await Cluster.start(root);
    const leader = cluster.replica(await cluster.leader());
    const results = await Promise.all(
      Array.from({ length: 500 }, (_, i) => leader.propose(Buffer.from(`${i}`))),
    );
    assert.deepEqual(
      results,
      Array.from({ length: 500 }, (_, i) => i + 1),
    );
  });

  it('loses nothing acknowledged when the leader dies, and elects another one', async () => {
    cluster = await Cluster.start(root);
    const first = await cluster.leader();
    const acknowledged: string[] = [];
    for (let i = 0; i < 50; i++) {
      await cluster.propose(`before ${i}`);
      acknowledged.push(`before ${i}`);
    }
    await cluster.down(first);
    for (let i = 0; i < 50; i++) {
      await cluster.propose(`after ${i}`);
      acknowledged.push(`after ${i}`);
    }
    const second = await cluster.leader();
    assert.notEqual(second, first);
    await cluster.up(first);
    await cluster.settle();
    for (const id of cluster.ids) {
      const items = cluster.machine(id).state.items;
      assert.deepEqual(
        items.filter((item) => acknowledged.includes(item)),
        acknowledged,
      );
    }
    await until(() => cluster.machine(first).state.applied > 0, 'the old leader catches up');
  });
});
