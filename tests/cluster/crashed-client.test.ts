import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createPrng } from '../../common/prng.js';
import { holdfast, nodeScript, sh } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { LineChild } from '../lab/line-child.js';
import { TestCluster } from '../lab/test-cluster.js';
import { LockAgent } from './support/lock-agent.js';
import { CHANGER, LISTER, nameChanges, prefixShown } from './support/name-changes.js';

const SEED = 7;
const CHANGES = 6_000;
const SYNC_EVERY = 1_000;
/** It is killed when it has made so many changes since the last sync. */
const UNSYNCED_MIN = 300;
/** Data that was written before the metaservers heard of it: the only thing that a crash may leave to be cleared away. */
const LEFT_BEHIND = new Set(['unreachable', 'beyond-end']);

/** Has sent data behind the end that the metaservers know, and goes on holding the file open. */
const GROWER = `const fs = require('node:fs'); const fd = fs.openSync(process.argv[1], 'w'); const mib = Buffer.alloc(1 << 20, 1);
  fs.writeSync(fd, mib); fs.fsyncSync(fd); for (let n = 1; n < 12; n++) fs.writeSync(fd, mib);
  console.log('grown'); setInterval(() => {}, 1 << 30);`;

describe('a mount whose process is killed amid changes that no server has heard of', function () {
  this.timeout(240_000);
  const cluster = new TestCluster('crashed-client');
  const agents: LockAgent[] = [];
  let changer: LineChild | undefined;
  let grower: LineChild | undefined;
  let crashing: string;

  before(async () => {
    await cluster.up();
    crashing = await cluster.mount('crashing');
  });
  after(async () => {
    changer?.kill();
    grower?.kill();
    await Promise.all(agents.map((agent) => agent.end()));
    await cluster.destroy();
  });

  async function fsck(...flags: string[]): Promise<{ code: number | null; kinds: string[] }> {
    const { code, stdout, stderr } = await holdfast(['fsck', '--data', cluster.data, '--json', ...flags]);
    assert.match(stdout, /^\{/, stderr);
    const { findings } = JSON.parse(stdout) as { findings: { kind: string }[] };
    return { code, kinds: findings.map(({ kind }) => kind) };
  }

  it('leaves what was synced, and of the rest a prefix; its locks and removed files go, others go on', async () => {
    const changes = nameChanges(CHANGES, SYNC_EVERY, createPrng(SEED));
    const script = join(cluster.root, 'changes.json');
    writeFileSync(script, JSON.stringify(changes));
    await sh('mkdir tree; head -c 300000 /dev/urandom > removed; touch locked; sync locked', {
      cwd: crashing,
    });
    const [holder, taker] = [new LockAgent(), new LockAgent()];
    agents.push(holder, taker);
    for (const command of [
      `open f ${crashing}/removed`,
      `open g ${crashing}/locked`,
      'flock g w',
      'set g w 0 0',
    ])
      assert.equal(await holder.do(command), 'ok');
    await sh(`rm removed; test "$(ls)" = "$(printf 'locked\ntree')"`, { cwd: crashing });
    await taker.do(`open f ${cluster.dir}/locked`);
    assert.equal(await taker.do('flock f w'), 'EAGAIN');

    let grown = false;
    const growing = ['-e', GROWER, join(crashing, 'growing')];
    grower = new LineChild(process.execPath, growing, () => (grown = true), 'ignore');
    await eventually('a file has grown', () => grown);
    let synced = 0;
    let made = 0;
    const program = `const fs = require('node:fs'); const path = require('node:path'); const args = process.argv.slice(1); ${CHANGER}`;
    const count = (line: string): void => {
      made = Number(line.replace('synced ', ''));
      if (line.startsWith('synced')) synced = made;
    };
    const args = ['-e', program, join(crashing, 'tree'), script];
    changer = new LineChild(process.execPath, args, count, 'ignore');
    await eventually('some is synced and some is not', () => synced > 0 && made >= synced + UNSYNCED_MIN);
    await cluster.crashMount(crashing);
    const acknowledged = synced;
    assert.ok(acknowledged < CHANGES - SYNC_EVERY, 'it was amid its changes');
    // A new leader ends the session of who does not come 10 s later, not 30.
    await cluster.handOver();

    for (const command of ['flock f w wait', 'wait f w 0 0', 'write f free'])
      assert.equal(await taker.do(command), 'ok');
    const listing = await nodeScript(LISTER, [join(cluster.dir, 'tree')]);
    const shown = prefixShown(changes, listing, acknowledged, made + 1);
    assert.notEqual(
      shown,
      undefined,
      `none of ${acknowledged} to ${made} changes leaves\n${listing.slice(0, 4000)}`,
    );
    await sh('echo on > tree/d1/on; mv tree/d1/on tree/on; rm tree/on; rmdir empty 2>/dev/null || true', {
      cwd: cluster.dir,
    });
    await sh(
      'size=$(stat -c %s growing); truncate -s 14M growing; test $(tail -c +$((size + 1)) growing | tr -d "\\0" | wc -c) = 0',
      { cwd: cluster.dir },
    );
    await eventually('the removed file is gone', async () => (await cluster.status()).capacity.orphans === 0);
    const { kinds } = await fsck('--repair');
    assert.deepEqual(
      kinds.filter((kind) => !LEFT_BEHIND.has(kind)),
      [],
    );
    assert.deepEqual(await fsck(), { code: 0, kinds: [] });
  });
});
