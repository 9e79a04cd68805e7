import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseSpans } from '../../cli/trace-summary.js';
import { delay, systemClock } from '../../common/clock.js';
import { monotonicUs } from '../../common/trace.js';
import { OWNED_IDLE_MS } from '../../metaserver/service/lease-gate.js';
import { nodeScript } from '../lab/command.js';
import { ONE_OF_EACH, TestCluster } from '../lab/test-cluster.js';

const FILES = 300;
/** What is asked for beside the files: the root, the directory, its pages, statfs, heartbeats, returned leases. */
const REQUESTS_BESIDE = 20;

describe('requests for what another mount has made', function () {
  this.timeout(120_000);
  const cluster = new TestCluster('listing-counts', [...ONE_OF_EACH]);
  before(() => cluster.up());
  after(() => cluster.destroy());

  const make = (dir: string): Promise<string> =>
    nodeScript(
      `fs.mkdirSync(args[0]);
       for (let i = 0; i < ${FILES}; i++) fs.writeFileSync(path.join(args[0], 'f' + i), 'x');`,
      [join(cluster.dir, dir)],
    );
  const listed = async (dir: string): Promise<void> => {
    const count = await nodeScript(
      `const names = fs.readdirSync(args[0]);
       console.log(names.filter((name) => fs.statSync(path.join(args[0], name)).size === 1).length);`,
      [dir],
    );
    assert.equal(Number(count), FILES);
  };

  /** Requests to the metaserver of a mount made for it, while `work` is done there. */
  async function requestsOf(name: string, work: (mount: string) => Promise<void>): Promise<string[]> {
    const traces = join(cluster.root, `${name}-traces`);
    const mount = await cluster.mount(name, ['--trace', traces]);
    const from = monotonicUs();
    await work(mount);
    const to = monotonicUs();
    // Its trace is whole once it has ended.
    assert.equal((await cluster.umount(mount)).code, 0);
    const found: string[] = [];
    for (const file of readdirSync(traces))
      for (const span of parseSpans(readFileSync(join(traces, file), 'utf8'))) {
        assert.ok(!('dropped' in span), 'the whole trace');
        if (span.stage === 'wire' && span.name.startsWith('meta ') && span.at >= from && span.at < to)
          found.push(span.name);
      }
    return found;
  }

  it('a listing with attributes of files that their maker owns asks for pages, not for each', async () => {
    await make('listed');
    const requests = await requestsOf('lister', (mount) => listed(join(mount, 'listed')));
    assert.ok(requests.length > 0, 'requests are counted');
    assert.ok(requests.length <= REQUESTS_BESIDE, `${requests.length} requests: ${requests.join(', ')}`);
  });

  it('names looked up one after the other, left alone by their maker for a moment: a page is asked back', async () => {
    await make('looked-up');
    // The age is what the rule asks for: what was changed later is not asked back.
    await delay(systemClock, OWNED_IDLE_MS * 2.5);
    const requests = await requestsOf('walker', async (mount) => {
      await nodeScript(`for (let i = 0; i < ${FILES}; i++) fs.statSync(path.join(args[0], 'f' + i));`, [
        join(mount, 'looked-up'),
      ]);
    });
    assert.ok(requests.length > 0, 'requests are counted');
    assert.ok(requests.length <= REQUESTS_BESIDE, `${requests.length} requests: ${requests.join(', ')}`);
  });

  it('listed again while another mount writes to a few of them: only those are asked for', async () => {
    await make('written');
    const rounds = 10;
    const written = 5;
    const requests = await requestsOf('watcher', async (mount) => {
      await listed(join(mount, 'written'));
      for (let round = 0; round < rounds; round++) {
        await nodeScript(
          `for (let i = 0; i < ${written}; i++) fs.writeFileSync(path.join(args[0], 'f' + (${round} + i * 50)), 'y');`,
          [join(cluster.dir, 'written')],
        );
        await listed(join(mount, 'written'));
      }
    });
    const most = REQUESTS_BESIDE + rounds * (written + 2);
    assert.ok(requests.length >= rounds * written, 'what was written is not believed');
    assert.ok(
      requests.length <= most,
      `${requests.length} requests in ${rounds} rounds: ${requests.join(', ')}`,
    );
  });
});
