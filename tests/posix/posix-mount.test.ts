import assert from 'node:assert/strict';
import { chmodSync } from 'node:fs';
import { holdfast } from '../lab/command.js';
import { TestCluster } from '../lab/test-cluster.js';
import { MOUNT_FEATURES } from './features.js';
import { posixSuite } from './suite.js';

describe('POSIX on a mounted cluster', function () {
  this.timeout(180_000);
  const cluster = new TestCluster('posix');
  before(async () => {
    await cluster.up();
    chmodSync(cluster.root, 0o755);
  });
  after(() => cluster.destroy());
  posixSuite(() => cluster.dir, MOUNT_FEATURES);

  it('is sound in the end', async () => {
    const { code, stdout, stderr } = await holdfast(['fsck', '--quick', '--data', cluster.data]);
    assert.equal(code, 0, stdout + stderr);
  });
});
