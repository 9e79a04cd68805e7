import assert from 'node:assert/strict';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Supervisor } from '../../cli/supervisor.js';
import { planCluster } from '../../cli/up-plan.js';
import { systemClock } from '../../common/clock.js';
import { deferred } from '../../common/deferred.js';
import { passingDirectories } from '../lab/directories.js';
import { takePorts } from '../ports.js';

describe('the beginning of `up`', () => {
  const temporaryDirectory = passingDirectories();

  it('goes on where one was cut short before it had written cluster.json', async () => {
    const dataDir = temporaryDirectory('plan');
    writeFileSync(join(dataDir, 'cluster.json.new'), '{"form');
    const cluster = await planCluster({ dataDir, port: takePorts(6) });
    assert.deepEqual([cluster.metaservers.length, cluster.chunkservers.length], [3, 3]);
    assert.deepEqual(readdirSync(dataDir).sort(), ['cluster.json', 'log', 'run']);
  });

  it('says in one line that the data directory cannot be written', async () => {
    const dataDir = temporaryDirectory('plan');
    writeFileSync(join(dataDir, 'run'), '');
    await assert.rejects(planCluster({ dataDir, port: takePorts(6) }), {
      name: 'CliError',
      exitCode: 2,
      message: /^cannot write the data directory .*: EEXIST/,
    });
  });

  it('starts no process that was stopped while its start was prepared', async () => {
    const dataDir = temporaryDirectory('supervisor');
    const lines: string[] = [];
    const events = { event: (name: string, line: string) => lines.push(`${name}: ${line}`) };
    const supervisor = new Supervisor({ dataDir, clock: systemClock, restart: true, events });
    const prepared = deferred<void>();
    supervisor.add({ name: 'mount', args: ['--version'], prepare: () => prepared.promise });
    const started = supervisor.start('mount');
    await supervisor.stop('mount');
    prepared.resolve();
    await started;
    assert.equal(supervisor.state('mount'), 'stopped');
    assert.equal(existsSync(join(dataDir, 'log')), false, 'it was spawned');
    assert.deepEqual(lines, []);
  });
});
