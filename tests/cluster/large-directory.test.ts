import assert from 'node:assert/strict';
import { join } from 'node:path';
import { ROOT, sh } from '../lab/command.js';
import { ONE_OF_EACH, TestCluster } from '../lab/test-cluster.js';

/** 1,000,000 takes minutes and some GB of disk. */
const ENTRIES = Number(process.env.HOLDFAST_DIRECTORY_ENTRIES ?? 20_000);
const TIMEOUT_MS = 120_000 + ENTRIES * 10;
const SCRIPT = join(ROOT, 'tests', 'posix', 'big-directory.py');

interface Step {
  step: string;
  /** Names that were missing, met twice, and never made. */
  wrong?: number[];
}

describe(`a directory of ${ENTRIES} entries`, function () {
  this.timeout(TIMEOUT_MS);
  const cluster = new TestCluster('large-directory', ONE_OF_EACH);
  before(() => cluster.up());
  after(() => cluster.destroy());

  it('is listed without losing or doubling a name, also while others make and remove names in it', async () => {
    const script = `python3 ${SCRIPT} ${cluster.dir}/large ${ENTRIES}`;
    const steps = (await sh(script, { timeoutMs: TIMEOUT_MS })).trim().split('\n');
    const seen = steps.map((line) => JSON.parse(line) as Step);
    assert.deepEqual(
      seen.map(({ step, wrong }) => [step, wrong]),
      [
        ['made', undefined],
        ['listed', [0, 0, 0]],
        ['listed while others change it', [0, 0, 0]],
        ['after an unlink and a rename', [0, 0, 0]],
      ],
    );
  });

  it('is seen whole by a mount that comes later', async () => {
    const second = await cluster.mount('later');
    // Names, "." and "..", one of them removed.
    const count = await sh(`ls -f ${second}/large | sort -u | wc -l`, { timeoutMs: TIMEOUT_MS });
    assert.equal(Number(count), ENTRIES + 1);
    assert.equal((await cluster.umount(second)).code, 0);
  });
});
