import { chmodSync } from 'node:fs';
import { TestCluster } from '../cluster/support/cluster.js';
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
});
