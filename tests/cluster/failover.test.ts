import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { writeSourceTree } from '../../cli/bench/source-tree.js';
import { holdfast, nodeScript, sh } from '../lab/command.js';
import { temporaryDirectory } from '../lab/directories.js';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';
import { CHECK_RECORDS, SYNCED_WRITER } from './support/synced-writer.js';

describe('servers that die under a mount', function () {
  this.timeout(300_000);
  const cluster = new TestCluster('failover');
  let local: string;
  before(async () => {
    local = temporaryDirectory('failover-local');
    writeSourceTree(join(local, 'src'));
    await sh('tar cf tree.tar src', { cwd: local });
    await cluster.up();
    await cluster.waitHealthy();
  });
  after(async () => {
    await cluster.destroy();
    rmSync(local, { recursive: true, force: true });
  });

  /** Kills a server while a tree is unpacked and records are written and synced; neither may fail or lose anything. */
  async function surviveDeathOf(label: string, victim: () => Promise<string>): Promise<void> {
    const records = join(cluster.dir, `records-${label}`);
    const stop = join(local, `stop-${label}`);
    const count = join(local, `count-${label}`);
    const writer = nodeScript(SYNCED_WRITER, [records, stop, count]);
    const untar = sh(`mkdir ${label} && tar xf ${local}/tree.tar -C ${label}`, { cwd: cluster.dir });
    const written = async (): Promise<number> => Number(await sh(`cat ${count} 2>/dev/null || echo 0`));
    await eventually('the writer writes', async () => (await written()) > 20);
    const name = await victim();
    process.kill(cluster.pid(name), 'SIGKILL');
    const atDeath = await written();
    await eventually('status tells of the death', async () => {
      const status = await cluster.status();
      return !status.healthy || cluster.output.includes(`${name}: restarted`);
    });
    await eventually('the writer goes on', async () => (await written()) > atDeath + 20);
    await sh(`touch ${stop}`);
    const acknowledged = Number(await writer);
    await untar;
    await nodeScript(CHECK_RECORDS, [records, String(acknowledged)]);
    await sh(`diff -r --no-dereference ${label}/src ${local}/src`, { cwd: cluster.dir });
    await cluster.waitHealthy();
    const cold = await cluster.mount(`cold-${label}`);
    await sh(`diff -r --no-dereference ${cold}/${label}/src ${local}/src`);
    await nodeScript(CHECK_RECORDS, [join(cold, `records-${label}`), String(acknowledged)]);
    assert.equal((await cluster.umount(cold)).code, 0);
    await sh(`rm -rf ${label}`, { cwd: cluster.dir });
  }

  it('the leader of the metaservers', () =>
    surviveDeathOf('leader', async () => `metaserver-${(await cluster.status()).leader?.id}`));

  it('a chunkserver', () => surviveDeathOf('chunkserver', async () => 'chunkserver-1'));

  it('a stopped server shows in status, and comes back by start', async () => {
    assert.equal((await holdfast(['stop', 'chunkserver-2', '--data', cluster.data, '--kill'])).code, 0);
    const status = await eventually('status tells the truth', async () => {
      const now = await cluster.status();
      return now.healthy ? undefined : now;
    });
    assert.ok(
      status.problems.some((problem) => problem.includes('chunkserver-2')),
      status.problems.join(),
    );
    assert.ok(status.pgs.inSync < status.pgs.total);
    await sh('head -c 5000000 /dev/urandom > while-down; sync while-down; sha256sum while-down > sum', {
      cwd: cluster.dir,
    });
    assert.equal((await holdfast(['start', 'chunkserver-2', '--data', cluster.data])).code, 0);
    await cluster.waitHealthy();
    assert.equal((await holdfast(['stop', 'chunkserver-1', '--data', cluster.data, '--kill'])).code, 0);
    await sh('sha256sum -c --quiet sum', { cwd: cluster.dir });
    assert.equal((await holdfast(['start', 'chunkserver-1', '--data', cluster.data])).code, 0);
    await cluster.waitHealthy();
  });

  it('all of them at once: every synced byte is there after the next start', async () => {
    const stop = join(local, 'stop-all');
    const count = join(local, 'count-all');
    const writer = nodeScript(SYNCED_WRITER, [join(cluster.dir, 'records-all'), stop, count]).catch(
      () => 'cut off',
    );
    await sh('head -c 20000000 /dev/urandom > synced; sync synced .; sha256sum synced', { cwd: cluster.dir });
    const sum = await sh('sha256sum < synced', { cwd: cluster.dir });
    await eventually(
      'the writer writes',
      async () => Number(await sh(`cat ${count} 2>/dev/null || echo 0`)) > 50,
    );
    const expired = (): number => cluster.logs(100_000).split('"msg":"session expired"').length - 1;
    const expiredBefore = expired();
    await cluster.crashAll();
    await sh(`touch ${stop}`);
    assert.equal(await writer, 'cut off');
    const acknowledged = await sh(`cat ${count}`);
    await cluster.up();
    // The mount that was killed may have held leases: calls are answered when it is known to be gone, and not before.
    assert.equal(expired(), expiredBefore + 1, 'ready before the first call is answered');
    await cluster.waitHealthy();
    await nodeScript(CHECK_RECORDS, [join(cluster.dir, 'records-all'), acknowledged]);
    assert.equal(await sh('sha256sum < synced', { cwd: cluster.dir }), sum);
  });

  it('an ordinary stop ends with 0, and the next start brings everything back', async () => {
    await sh('echo kept > kept; mkdir -p a/b/c; echo deep > a/b/c/f', { cwd: cluster.dir });
    assert.equal(await cluster.down(), 0);
    assert.equal(cluster.pids().size, 0);
    await sh(`test -z "$(ls -A ${cluster.dir})"; ! grep -q ${cluster.dir} /proc/mounts`);
    await cluster.up();
    assert.equal((await sh('cat kept a/b/c/f', { cwd: cluster.dir })).trim(), 'kept\ndeep');
  });
});
