import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TestCluster } from '../lab/test-cluster.js';
import { openDirectory } from '../posix/bench.js';
import { localFeatures } from '../posix/features.js';
import { Differential } from './differential.js';

const SEED = 20_240_229;
const TWO_MOUNTS_RUNS = 30;
/** Compared calls of both tests together, at least, unless fewer runs were asked for. */
const CALLS_MIN = 10_000;

describe('the same operations on a mount and on a local file system', function () {
  this.timeout(600_000);
  const local = mkdtempSync(join(tmpdir(), 'holdfast-differential-'));
  const cluster = new TestCluster('differential');
  let both: Differential | undefined;
  let calls = 0;
  let flagsToo = false;

  before(async function () {
    openDirectory(local);
    const { xattrs, acls, flags } = localFeatures(local);
    flagsToo = flags;
    if (process.getuid?.() !== 0 || !xattrs || !acls) this.skip();
    await cluster.up();
    chmodSync(cluster.root, 0o755);
    mkdirSync(join(local, 'tree'));
    openDirectory(join(local, 'tree'));
  });
  after(async () => {
    both?.end();
    await cluster.destroy();
    rmSync(local, { recursive: true, force: true });
  });

  it('by three users: every answer, and afterwards every name, attribute and byte, is equal', async () => {
    both = new Differential(join(local, 'tree'), [cluster.dir], flagsToo);
    await both.check(SEED);
    calls += both.calls;
  });

  it('by three users on two mounts of one cluster, in turns: as if there were one', async () => {
    both?.end();
    const second = await cluster.mount('second');
    both = new Differential(join(local, 'tree'), [cluster.dir, second], flagsToo);
    await both.check(SEED, TWO_MOUNTS_RUNS);
    calls += both.calls;
    if (process.env.HOLDFAST_DIFFERENTIAL_RUNS === undefined) assert.ok(calls >= CALLS_MIN, `${calls} calls`);
  });
});
