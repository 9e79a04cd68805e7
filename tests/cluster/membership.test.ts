import assert from 'node:assert/strict';
import { holdfast, sh } from '../lab/command.js';
import { TestCluster } from '../lab/test-cluster.js';

describe('chunkservers that come and go', function () {
  this.timeout(300_000);
  const cluster = new TestCluster('membership');
  before(async () => {
    await cluster.up();
    await cluster.waitHealthy();
    await sh(
      `mkdir tree
       for i in $(seq 12); do head -c $((i * 300000)) /dev/urandom > tree/f$i; done
       sync tree/* tree; sha256sum tree/* > sums; sync sums`,
      { cwd: cluster.dir },
    );
  });
  after(() => cluster.destroy());

  const manage = (...args: string[]) => holdfast(['chunkserver', ...args, '--data', cluster.data]);
  const held = async (): Promise<Record<string, number>> =>
    Object.fromEntries((await cluster.status()).chunkservers.map(({ name, pgs }) => [name, pgs]));
  const check = async (label: string): Promise<void> => {
    const cold = await cluster.mount(label);
    await sh('sha256sum -c --quiet sums', { cwd: cold });
    assert.equal((await cluster.umount(cold)).code, 0);
  };

  it('get their share of the data when they are added', async () => {
    const added = await manage('add', '--json');
    assert.equal(added.code, 0, added.stderr);
    const events = added.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { event: string });
    assert.equal(events.at(-1)?.event, 'added');
    assert.ok(events.some(({ event }) => event === 'progress'));
    const numbers = await held();
    assert.deepEqual(numbers, { ...numbers, 'chunkserver-1': 36, 'chunkserver-4': 36 });
    assert.equal((await cluster.status()).healthy, true);
  });

  it('are removed only when others have all they hold, and nothing is lost then', async () => {
    const early = await manage('remove', '1');
    assert.equal(early.code, 1);
    assert.match(early.stderr, /chunkserver 1 holds 36 PGs: drain it first/);
    const drained = await manage('drain', 'chunkserver-1');
    assert.equal(drained.code, 0, drained.stderr);
    assert.match(drained.stdout, /holds \d+ of 48 PGs, \d+ moving/);
    assert.equal((await held())['chunkserver-1'], 0);
    const removed = await manage('remove', '1');
    assert.equal(removed.code, 0, removed.stderr);
    const status = await cluster.waitHealthy();
    assert.deepEqual(
      status.chunkservers.map(({ id, pgs }) => [id, pgs]),
      [2, 3, 4].map((id) => [id, 48]),
    );
    assert.equal(cluster.pids().has('chunkserver-1'), false);
    await check('after-removal');
  });

  it('are not drained when too few would be left', async () => {
    const refused = await manage('drain', '2');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /leaves 2 servers for 3 copies of each chunk: add one first/);
    assert.equal((await manage('drain', '9')).code, 1);
    assert.equal((await manage('drain', 'nine')).code, 2);
  });

  it('are added by `up` when it is told to run more of them', async () => {
    assert.equal(await cluster.down(), 0);
    await cluster.up(['--chunkservers', '4']);
    const { stdout, code } = await manage('add', '5');
    assert.equal(code, 0, stdout);
    assert.deepEqual(Object.values(await held()), [36, 36, 36, 36]);
    await check('after-growth');
  });
});
