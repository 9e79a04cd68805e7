import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { holdfast, sh } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';

describe('a majority of the metaservers that is gone for ever', function () {
  this.timeout(240_000);
  const cluster = new TestCluster('recover', ['--chunkservers', '1', '--replicas', '1', '--no-restart']);
  const file = join(cluster.root, 'recovered.hfs');
  const dataDir = (id: number): string => join(cluster.data, `metaserver-${id}`);
  before(() => cluster.up());
  after(() => cluster.destroy());

  const recover = (id: number, ...flags: string[]) =>
    holdfast(['metaserver', 'recover', file, '--data-dir', dataDir(id), ...flags]);

  async function refuses(id: number, flags: string[], pattern: RegExp): Promise<void> {
    const result = await recover(id, ...flags);
    assert.notEqual(result.code, 0);
    assert.equal(result.stderr.trimEnd().split('\n').length, 1, result.stderr);
    assert.match(result.stderr, pattern);
    assert.ok(!existsSync(file));
  }

  it('is no majority while the others answer, nor is a server that runs a disk to recover from', async () => {
    await sh('mkdir d; head -c 3000000 /dev/urandom > d/f; sha256sum d/f > d/sum; sync d/f d/sum d .', {
      cwd: cluster.dir,
    });
    await refuses(1, ['--accept-loss'], /metaserver-1.*(in use|locked|runs)/);
    assert.equal((await holdfast(['stop', 'metaserver-1', '--data', cluster.data, '--kill'])).code, 0);
    await refuses(1, ['--accept-loss'], /start metaserver-1 again, nothing is lost/);
    await refuses(9, ['--accept-loss'], /holds no data of a metaserver/);
    assert.equal((await holdfast(['start', 'metaserver-1', '--data', cluster.data])).code, 0);
    await cluster.waitHealthy();
  });

  it('is replaced by what one disk knows, told what may be lost, and every synced byte is there', async () => {
    await sh('echo later > d/later; sync d/later d', { cwd: cluster.dir });
    // A majority is enough for a sync: the third one may be told a moment later.
    await eventually('metaserver 3 knows what the others know', async () => {
      const { metaservers } = await cluster.status();
      const applied = (id: number): number => metaservers.find((one) => one.id === id)?.appliedIndex ?? 0;
      return applied(3) > 0 && applied(3) >= Math.max(applied(1), applied(2));
    });
    await cluster.crashAll();
    for (const id of [1, 2]) rmSync(dataDir(id), { recursive: true });
    await refuses(
      3,
      [],
      /knows the log up to entry \d+ of term \d+; what the others acknowledged .* is lost/,
    );
    const recovered = await recover(3, '--accept-loss', '--json');
    assert.equal(recovered.code, 0, recovered.stderr);
    const { server, inodes } = JSON.parse(recovered.stdout) as { server: number; inodes: number };
    assert.deepEqual([server, inodes], [3, 5]);
    rmSync(dataDir(3), { recursive: true });
    await cluster.up(['--restore', file]);
    await cluster.waitHealthy();
    await sh('sha256sum -c --quiet d/sum; test "$(cat d/later)" = later; echo new > d/new; sync d/new', {
      cwd: cluster.dir,
    });
  });
});
