import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runSuite } from '../../cli/bench/suite.js';
import { Recorder } from '../../cli/bench/workloads.js';
import { holdfast } from '../lab/command.js';

describe('holdfast bench', function () {
  this.timeout(120_000);
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'holdfast-bench-test-'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it('refuses a directory that is not there and a group it does not know, in one line', async () => {
    const absent = await holdfast(['bench', join(dir, 'absent')]);
    assert.equal(absent.code, 2);
    assert.match(absent.stderr, /^holdfast: no directory at .*absent: name one that exists\n$/);
    const unknown = await holdfast(['bench', dir, '--only', 'files,nonsense']);
    assert.equal(unknown.code, 2);
    assert.match(unknown.stderr, /nonsense: no such group; there are sequential,/);
  });

  it('measures every row of a group as one JSON object and leaves the directory as it was', async () => {
    const result = await holdfast(['bench', dir, '--only', 'files', '--files', '20', '--json']);
    assert.equal(result.code, 0, result.stderr);
    const { figures, skipped } = JSON.parse(result.stdout) as {
      figures: { workload: string; value: number }[];
      skipped: unknown[];
    };
    assert.deepEqual(skipped, []);
    assert.equal(figures.length, 12);
    for (const { workload, value } of figures) assert.ok(value > 0, workload);
    assert.deepEqual(readdirSync(dir), []);
  });

  it('goes on behind a workload that fails, and says why', async () => {
    const out = new Recorder();
    let remounts = 0;
    const sizes = { sequentialMib: 4, seconds: 1, files: 3 };
    const remount = async (): Promise<string> => {
      if (++remounts === 1) rmSync(join(dir, `holdfast-bench-${process.pid}`, 'files', 'f1'));
      return dir;
    };
    await runSuite(dir, { sizes, groups: ['files'], remount }, out);
    const names = out.skipped.map((one) => one.workload);
    assert.ok(names.includes('stat, cold') && names.includes('open + read + close, warm'), names.join());
    assert.match(out.skipped[0]?.reason ?? '', /'f1': No such file/);
    assert.ok(out.figures.some((one) => one.workload === 'mkdir'));
  });
});
