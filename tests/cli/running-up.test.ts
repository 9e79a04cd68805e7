import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import type { Server } from 'node:net';
import { join } from 'node:path';
import type { ClusterSelection } from '../../cli/cluster-options.js';
import { type ControlRequest, listenForControl } from '../../cli/control.js';
import { startFurther, stopForGood } from '../../cli/running-up.js';
import { passingDirectories } from '../lab/directories.js';

describe('a running `up`', () => {
  const temporaryDirectory = passingDirectories();
  let dataDir: string;
  let server: Server;
  let asked: ControlRequest[];

  beforeEach(async () => {
    dataDir = temporaryDirectory('running-up');
    mkdirSync(join(dataDir, 'run'));
    asked = [];
    server = await listenForControl(dataDir, async (request) => {
      asked.push(request);
      return 'chunkserver-4';
    });
  });
  afterEach(() => server.close());

  it('is asked for further servers of its cluster, named by its data directory or the cluster file in it', async () => {
    for (const selection of [{ data: dataDir }, { cluster: join(dataDir, 'cluster.json') }]) {
      const started = await startFurther(selection, 'chunkserver', 'start one');
      assert.deepEqual(started, { name: 'chunkserver-4', dataDir });
      await stopForGood(selection, 'chunkserver-4');
    }
    assert.deepEqual(
      asked.map(({ command }) => command),
      ['add', 'remove', 'add', 'remove'],
    );
  });

  it('in the present directory is left alone when another cluster is meant', async () => {
    const before = process.cwd();
    const above = temporaryDirectory('present');
    mkdirSync(join(above, '.holdfast', 'run'), { recursive: true });
    const present = await listenForControl(join(above, '.holdfast'), async (request) => {
      asked.push(request);
      return 'chunkserver-1';
    });
    process.chdir(above);
    try {
      const others: ClusterSelection[] = [{ cluster: '/elsewhere/copy.json' }, { meta: 'elsewhere:7400' }];
      for (const selection of others) {
        await stopForGood(selection, 'chunkserver-1');
        await assert.rejects(startFurther(selection, 'chunkserver', 'start one'), /--data, or start one$/);
      }
      assert.deepEqual(asked, []);
      await stopForGood({}, 'chunkserver-1');
      assert.equal(asked.length, 1);
    } finally {
      process.chdir(before);
      present.close();
    }
  });
});
