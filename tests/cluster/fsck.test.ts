import assert from 'node:assert/strict';
import { closeSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../../common/clock.js';
import { silentLogger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import { FrameType } from '../../proto/frame-header.js';
import { dialFrames } from '../../proto/frames.js';
import { AdminServiceDefinition } from '../../proto/gen/admin.js';
import { ReplicaState } from '../../proto/gen/cluster.js';
import { RpcClient } from '../../proto/rpc.js';
import { DEFAULT_CHUNK_SIZE_BYTES, PROTOCOL_VERSION, pgOfChunk } from '../../proto/types.js';
import { holdfast, nodeScript, sh } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';

interface Report {
  clean: boolean;
  inodes: number;
  chunks: number;
  bytes: number;
  found: number;
  repaired: number;
  pgsSkipped: number;
  findings: { kind: string; text: string; ino: number; repaired: boolean }[];
}

describe('fsck and scrub', function () {
  this.timeout(180_000);
  const cluster = new TestCluster('fsck');

  before(async () => {
    await cluster.up();
    await cluster.waitHealthy();
  });
  after(() => cluster.destroy());

  async function check(
    command: 'fsck' | 'scrub',
    ...flags: string[]
  ): Promise<Report & { code: number | null }> {
    const result = await holdfast([command, '--data', cluster.data, '--json', ...flags], {
      timeoutMs: 120_000,
    });
    assert.match(result.stdout, /^\{/, result.stderr);
    return { ...(JSON.parse(result.stdout) as Report), code: result.code };
  }

  async function assertSound(): Promise<Report> {
    const report = await check('fsck');
    assert.deepEqual(report.findings, []);
    assert.equal(report.code, 0);
    assert.equal(report.pgsSkipped, 0);
    return report;
  }

  /** Writes to a chunk of an inode as a client does that dies before it has told the metaservers. */
  async function leak(ino: number, chunk: number): Promise<void> {
    const { leader, mounts } = await cluster.status();
    const admin = new RpcClient((leader as { address: string }).address);
    const { fullName, methods } = AdminServiceDefinition;
    const { map } = await admin.unary(fullName, methods.status, {}, 5000);
    admin.close();
    assert.ok(map);
    const pg = map.pgs[pgOfChunk(ino, chunk, map.pgs.length)];
    const primary = pg?.replicas.find(({ state }) => state === ReplicaState.REPLICA_IN_SYNC)?.server;
    const server = map.servers.find(({ id }) => id === primary);
    const session = mounts[0]?.session;
    assert.ok(pg && server && session);
    const hello = {
      protocol: PROTOCOL_VERSION,
      clusterId: map.clusterId,
      role: 'client' as const,
      id: session,
    };
    const handler = () => Promise.reject(new HoldfastError('PROTOCOL'));
    const options = { clock: systemClock, log: silentLogger, handler, hello };
    const link = await dialFrames(server.host, server.port, options, 5000);
    const fields = { type: FrameType.WRITE, pg: pg.id, epoch: pg.epoch, ino, chunk };
    await link.call(fields, Buffer.alloc(10_000, 7), 5000);
    link.close('done');
  }

  it('find a cluster sound that is being used, and read all of it', async () => {
    await sh(`mkdir -p ${cluster.dir}/a/b; head -c 9000000 /dev/urandom > ${cluster.dir}/a/large; ln ${cluster.dir}/a/large ${cluster.dir}/link;
      ln -s nowhere ${cluster.dir}/symlink; for i in $(seq 100); do echo $i > ${cluster.dir}/a/b/$i; done`);
    const busy = nodeScript(
      `const end = Date.now() + 4000;
       for (let i = 0; Date.now() < end; i++) {
         const file = path.join(args[0], 'busy-' + (i % 20));
         fs.writeFileSync(file, Buffer.alloc(1000 * (i % 300), i));
         if (i % 3 === 0) fs.truncateSync(file, 10);
         if (i % 7 === 0) fs.unlinkSync(file);
       }`,
      [cluster.dir],
    );
    await assertSound();
    await busy;
    const report = await assertSound();
    assert.ok(report.inodes > 100 && report.chunks > 100 && report.bytes > 3 * 9_000_000);
    const quick = await check('fsck', '--quick');
    assert.deepEqual([quick.code, quick.found], [0, 0]);
    const people = await holdfast(['fsck', '--data', cluster.data]);
    assert.match(people.stdout, /^sound: \d+ inodes, \d+ names, \d+ chunks, .* in all replicas of 48 PGs\n$/);
  });

  it('find flipped bits on a disk, repair them from another replica, and count them', async () => {
    const mark = Buffer.from('a mark that no other file has, '.repeat(200));
    await nodeScript(`fs.writeFileSync(args[0], args[1], { flush: true });`, [
      join(cluster.dir, 'marked'),
      String(mark),
    ]);
    const log = join(cluster.data, 'chunkserver-2', 'log');
    let flipped = 0;
    for (const name of readdirSync(log)) {
      const at = readFileSync(join(log, name)).indexOf(mark);
      if (at < 0) continue;
      const file = openSync(join(log, name), 'r+');
      writeSync(file, Buffer.from([(mark[3000] as number) ^ 1]), 0, 1, at + 3000);
      closeSync(file);
      flipped++;
    }
    assert.equal(flipped, 1);
    const found = await check('fsck');
    assert.equal(found.code, 1);
    assert.deepEqual(
      found.findings.map(({ kind, repaired }) => [kind, repaired]),
      [['replica-damaged', false]],
    );
    const scrubbed = await check('scrub');
    assert.deepEqual([scrubbed.code, scrubbed.found, scrubbed.repaired], [0, 1, 1]);
    await assertSound();
    const again = await check('scrub');
    assert.equal(again.found, 0);
    const status = await eventually('status counts it', async () => {
      const each = (await cluster.status()).chunkservers;
      return each.some(({ damageRepaired }) => damageRepaired > 0) && each;
    });
    assert.ok(status.reduce((sum, one) => sum + one.damageFound, 0) >= 1);
    assert.match(
      (await holdfast(['status', '--data', cluster.data])).stdout,
      /damage +\d+ copies of chunks found/,
    );
  });

  it('find data that nobody reaches, and discard it', async () => {
    const ino = Number(await sh(`echo short > ${cluster.dir}/short; stat -c %i ${cluster.dir}/short`));
    const gone = Number(
      await sh(
        `echo x > ${cluster.dir}/gone; stat -c %i ${cluster.dir}/gone; rm ${cluster.dir}/gone; sync ${cluster.dir}`,
      ),
    );
    await eventually('the deleted file is gone', async () => (await cluster.status()).capacity.orphans === 0);
    await leak(ino, 5);
    await leak(gone, 3);
    const found = await check('fsck');
    assert.equal(found.code, 1);
    assert.deepEqual(found.findings.map((each) => [each.kind, each.ino]).sort(), [
      ['beyond-end', ino],
      ['unreachable', gone],
    ]);
    assert.ok(
      found.findings[0]?.text.includes(String(5 * DEFAULT_CHUNK_SIZE_BYTES + 10_000)) || found.findings[1],
    );
    const repaired = await check('fsck', '--repair');
    assert.deepEqual([repaired.code, repaired.found, repaired.repaired], [0, 2, 2]);
    await assertSound();
    assert.equal(await sh(`cat ${cluster.dir}/short`), 'short\n');
  });
});
