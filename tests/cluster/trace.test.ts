import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { TraceSummary } from '../../cli/trace-summary.js';
import { holdfast, nodeScript } from '../lab/command.js';
import { TestCluster } from '../lab/test-cluster.js';

describe('holdfast trace', function () {
  this.timeout(240_000);
  let cluster: TestCluster;
  beforeEach(() => {
    cluster = new TestCluster('trace', ['--trace']);
  });
  afterEach(() => cluster.destroy());

  it('says where the time of requests went, through all processes', async () => {
    await cluster.up();
    await cluster.waitHealthy();
    const further = await cluster.mount('further', ['--trace', join(cluster.data, 'trace')]);
    await nodeScript(
      `const fd = fs.openSync(path.join(args[0], 'file'), 'w');
       fs.writeSync(fd, Buffer.alloc(4096)); fs.fsyncSync(fd); fs.closeSync(fd);`,
      [further],
    );
    await cluster.umount(further);
    await cluster.down();
    const names = readdirSync(join(cluster.data, 'trace'));
    for (const name of ['mount', 'metaserver-1', 'chunkserver-3'])
      assert.ok(names.includes(`${name}.jsonl`), name);
    const result = await holdfast(['trace', cluster.data, '--json']);
    assert.equal(result.code, 0, result.stderr);
    const { operations, work } = JSON.parse(result.stdout) as TraceSummary;
    const fsync = operations.find(({ operation }) => operation === 'fsync');
    assert.equal(fsync?.count, 1);
    const parts = fsync.stages.reduce((sum, { share }) => sum + share, 0);
    assert.ok(Math.abs(parts - 1) < 1e-6, `all of its time is given to a stage: ${parts}`);
    // A write with fsync passes every stage; which of them the kernel waits for is up to the mount.
    const stages = new Set(work.map(({ stage }) => stage));
    for (const stage of [
      'wire',
      'metaserver',
      'chunkserver',
      'raft commit',
      'replication',
      'replica',
      'sync',
    ])
      assert.ok(stages.has(stage as never), stage);
    assert.equal(work.filter(({ name }) => name === 'data WRITE').length, 1);
  });

  it('refuses a directory without traces, and one where none can be written, in one line', async () => {
    const none = await holdfast(['trace', cluster.root]);
    assert.equal(none.code, 2);
    assert.match(none.stderr, /^holdfast: no traces in .*: run 'holdfast up --trace'.*\n$/);
    const flags = ['--id', '1', '--listen', '127.0.0.1:1', '--data-dir', join(cluster.root, 'c')];
    const bad = await holdfast([
      'chunkserver',
      ...flags,
      '--meta',
      '127.0.0.1:1',
      '--trace',
      '/dev/null/none',
    ]);
    assert.equal(bad.code, 2);
    assert.match(bad.stderr, /^holdfast: --trace \/dev\/null\/none: .*\n$/);
  });
});
