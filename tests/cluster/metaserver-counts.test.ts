import assert from 'node:assert/strict';
import { holdfast, sh } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';

const FEW_CHUNKSERVERS = ['--chunkservers', '1', '--replicas', '1'];

async function command(cluster: TestCluster, ...args: string[]): Promise<void> {
  const { code, stderr } = await holdfast([...args, '--data', cluster.data]);
  assert.equal(code, 0, stderr);
}

describe('five metaservers', function () {
  this.timeout(240_000);
  const cluster = new TestCluster('five', ['--metaservers', '5', ...FEW_CHUNKSERVERS]);
  before(() => cluster.up());
  after(() => cluster.destroy());

  it('go on without their leader and a second one, lose nothing, and take both back', async () => {
    const { leader, metaservers } = await cluster.waitHealthy();
    assert.equal(metaservers.length, 5);
    const victims = [1, 2, 3, 4, 5].filter((id) => id !== leader?.id).slice(0, 1);
    const killed = [`metaserver-${leader?.id}`, `metaserver-${victims[0]}`];
    await sh('mkdir d; echo before > d/before; sync d/before d', { cwd: cluster.dir });
    for (const name of killed) await command(cluster, 'stop', name, '--kill');
    await sh('echo meanwhile > d/meanwhile; sync d/meanwhile d; mv d/before d/moved', { cwd: cluster.dir });
    const status = await eventually('another one leads', async () => {
      const now = await cluster.status();
      return now.leader && now.leader.id !== leader?.id ? now : undefined;
    });
    assert.equal(status.healthy, false);
    for (const name of killed)
      assert.ok(
        status.problems.some((problem) => problem.includes(name)),
        status.problems.join('; '),
      );
    for (const name of killed) await command(cluster, 'start', name);
    await cluster.waitHealthy();
    assert.equal(await sh('cat d/moved d/meanwhile', { cwd: cluster.dir }), 'before\nmeanwhile\n');
  });
});

describe('a single metaserver', function () {
  this.timeout(240_000);
  const cluster = new TestCluster('single', ['--metaservers', '1', ...FEW_CHUNKSERVERS]);
  before(() => cluster.up());
  after(() => cluster.destroy());

  it('is waited for while it is down, and comes back with everything that was synced', async () => {
    await sh('mkdir d; echo synced > d/f; sync d/f d', { cwd: cluster.dir });
    await command(cluster, 'stop', 'metaserver-1', '--kill');
    const waiting = sh('echo later > d/g; sync d/g; cat d/f d/g', { cwd: cluster.dir });
    const status = await cluster.status();
    assert.deepEqual([status.leader ?? undefined, status.healthy], [undefined, false]);
    await command(cluster, 'start', 'metaserver-1');
    assert.equal(await waiting, 'synced\nlater\n');
    await cluster.waitHealthy();
  });
});
