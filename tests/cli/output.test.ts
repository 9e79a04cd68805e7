import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { newCluster, writeClusterFile } from '../../cli/cluster-file.js';
import { holdfast, MAIN } from '../lab/command.js';
import { passingDirectories } from '../lab/directories.js';

/** Nobody listens on the discard port. */
const NOBODY = [{ id: 1, host: '127.0.0.1', port: 9 }];

describe('what a command prints', function () {
  this.timeout(120_000);
  const temporaryDirectory = passingDirectories();

  it('may have no reader any more: no error, no stack', async () => {
    const child = spawn(process.execPath, [MAIN, 'up', '--help'], { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.destroy();
    let errors = '';
    child.stderr.on('data', (chunk) => {
      errors += String(chunk);
    });
    const [code] = await once(child, 'close');
    assert.deepEqual({ code, errors }, { code: 0, errors: '' });
  });

  it('with --json is JSON also when it fails, beside the line on standard error', async () => {
    const data = temporaryDirectory('output');
    const unknown = await holdfast(['trace', data, '--json', '--frob']);
    assert.deepEqual(
      [unknown.code, JSON.parse(unknown.stdout)],
      [2, { error: "unknown option '--frob' (see 'holdfast trace --help')", exitCode: 2 }],
    );
    assert.match(unknown.stderr, /^holdfast: unknown option.*\n$/);

    await writeClusterFile(
      join(data, 'cluster.json'),
      newCluster({ metaservers: NOBODY, chunkservers: NOBODY, replicas: 1 }),
    );
    const silent = await holdfast(['status', '--data', data, '--json']);
    const { error, ...rest } = JSON.parse(silent.stdout) as Record<string, unknown>;
    assert.match(String(error), /^no metaserver answers \(127\.0\.0\.1:9\)/);
    assert.deepEqual(rest, {
      ...{ exitCode: 1, healthy: false, problems: ['no metaserver answers'], leader: null },
    });

    writeFileSync(join(data, 'cluster.json'), '');
    const damaged = await holdfast(['pg', 'list', '--data', data, '--json']);
    assert.equal(damaged.code, 2);
    assert.match((JSON.parse(damaged.stdout) as { error: string }).error, /cluster\.json is damaged/);
  });
});
