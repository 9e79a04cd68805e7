import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { PgRow } from '../../cli/pg.js';
import { holdfast, sh } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';

const SERVERS = [1, 2, 3];

describe('chunkservers that return with an empty disk', function () {
  this.timeout(300_000);
  const cluster = new TestCluster('wiped');
  before(async () => {
    await cluster.up();
    await cluster.waitHealthy();
    await sh(
      `mkdir tree
       for i in $(seq 20); do head -c $((i * 150000)) /dev/urandom > tree/f$i; done
       for i in $(seq 50); do echo $i > tree/small$i; done
       sync tree/* tree; sha256sum tree/* > sums; sync sums`,
      { cwd: cluster.dir },
    );
  });
  after(() => cluster.destroy());

  const stop = async (id: number): Promise<void> => {
    const result = await holdfast(['stop', `chunkserver-${id}`, '--data', cluster.data, '--kill']);
    assert.equal(result.code, 0, result.stderr);
  };
  const start = async (id: number): Promise<void> => {
    const result = await holdfast(['start', `chunkserver-${id}`, '--data', cluster.data]);
    assert.equal(result.code, 0, result.stderr);
  };
  const wipe = (id: number): void =>
    rmSync(join(cluster.data, `chunkserver-${id}`), { recursive: true, force: true });
  /** With a mount that has read nothing yet. */
  const check = async (label: string): Promise<void> => {
    const cold = await cluster.mount(label);
    await sh('sha256sum -c --quiet sums', { cwd: cold });
    assert.equal((await cluster.umount(cold)).code, 0);
  };

  it('are filled again, one after the other, and hold every byte then', async () => {
    for (const id of SERVERS) {
      await stop(id);
      wipe(id);
      await start(id);
      await cluster.waitHealthy();
    }
    for (const id of SERVERS) {
      await stop(id);
      await check(`without-${id}`);
      await start(id);
      await cluster.waitHealthy();
    }
  });

  it('make no data disappear when nobody else has all of it: it is missed until that disk is back', async () => {
    // Server 1 goes first; what is written then is on 2 and 3 alone.
    await stop(1);
    await eventually('the others go on', async () => (await cluster.status()).pgs.unavailable === 0);
    await sh('head -c 3000000 /dev/urandom > late; sync late .; sha256sum late >> sums; sync sums', {
      cwd: cluster.dir,
    });
    await stop(2);
    await stop(3);
    const [kept, lost] = [2, 3].map((id) => join(cluster.data, `chunkserver-${id}`));
    await sh(`mv ${kept} ${kept}.kept; mv ${lost} ${lost}.kept`);
    for (const id of SERVERS) await start(id);
    const status = await eventually('the loss shows', async () => {
      const now = await cluster.status();
      return now.chunkservers.every(({ alive }) => alive) && now.pgs.unavailable > 0 ? now : undefined;
    });
    assert.ok(
      status.problems.some((problem) =>
        /PGs are unavailable: only disk .* of chunkserver-[23]/.test(problem),
      ),
      status.problems.join(),
    );
    await stop(2);
    wipe(2);
    await sh(`mv ${kept}.kept ${kept}`);
    await start(2);
    await cluster.waitHealthy();
    await check('after-return');
    await stop(2);
    await check('without-the-returned');
    await start(2);
    await cluster.waitHealthy();
  });

  it('go on without what is gone for ever when an operator accepts that, and not before', async () => {
    const pg = (...args: string[]) => holdfast(['pg', ...args, '--data', cluster.data]);
    const healthy = await pg('accept-loss', '0', '--yes');
    assert.deepEqual([healthy.code, /PG 0 is served/.test(healthy.stderr)], [2, true], healthy.stderr);
    await stop(1);
    await eventually('the others go on', async () => (await cluster.status()).pgs.unavailable === 0);
    // On 2 and 3 alone, whose disks go for ever.
    await sh('head -c 30000000 /dev/urandom > doomed; sync doomed .', { cwd: cluster.dir });
    await stop(2);
    await stop(3);
    wipe(2);
    wipe(3);
    for (const id of SERVERS) await start(id);
    await eventually('the loss shows', async () => {
      const now = await cluster.status();
      return now.chunkservers.every(({ alive }) => alive) && now.pgs.unavailable > 0;
    });
    const listed = await pg('list', '--problems', '--json');
    const rows = (JSON.parse(listed.stdout) as PgRow[]).filter(({ state }) => state === 'unavailable');
    assert.ok(rows.length > 0 && rows.every((row) => row.waitsFor.length > 0 && row.primary === null));
    assert.deepEqual(new Set(rows.map((row) => row.survivors[0]?.server)), new Set([1]));
    const ids = rows.map((row) => String(row.pg));
    const asked = await pg('accept-loss', ...ids);
    assert.equal(asked.code, 2, asked.stderr);
    assert.match(asked.stdout, /chunkserver-1 takes over with what it had .* synced ones too/);
    assert.ok((await cluster.status()).pgs.unavailable > 0, 'nothing was done yet');
    const accepted = await pg('accept-loss', ...ids, '--yes');
    assert.equal(accepted.code, 0, accepted.stderr);
    await cluster.waitHealthy();
    await check('after-the-loss');
    await stop(1);
    await check('without-the-survivor');
    await start(1);
    await cluster.waitHealthy();
    await sh('rm doomed; echo new > new; sync new .; cat new', { cwd: cluster.dir });
  });
});
