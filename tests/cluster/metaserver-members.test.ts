import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { holdfast, nodeScript } from '../lab/command.js';
import { temporaryDirectory } from '../lab/directories.js';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';
import { CHECK_RECORDS, SYNCED_WRITER } from './support/synced-writer.js';

describe('metaservers that are added and removed under a mount', function () {
  this.timeout(240_000);
  const cluster = new TestCluster('members');
  let local: string;

  before(async () => {
    local = temporaryDirectory('members-local');
    await cluster.up(['--metaservers', '1']);
    await cluster.waitHealthy();
  });
  after(async () => {
    await cluster.destroy();
    rmSync(local, { recursive: true, force: true });
  });

  const manage = (...args: string[]) => holdfast(['metaserver', ...args, '--data', cluster.data]);
  const names = async (): Promise<string[]> =>
    (await cluster.waitHealthy()).metaservers.map(({ name, role }) => `${name} ${role}`);

  it('grow a cluster of one to three, and let the first one go, while a writer works', async () => {
    const stop = join(local, 'stop');
    const count = join(local, 'count');
    const records = join(cluster.dir, 'records');
    const writer = nodeScript(SYNCED_WRITER, [records, stop, count]);
    const written = (): number => (existsSync(count) ? Number(readFileSync(count, 'utf8')) : 0);
    await eventually('the writer writes', () => written() > 20);

    for (const id of [2, 3]) {
      const added = await manage('add', '--json');
      assert.equal(added.code, 0, added.stderr);
      const events = added.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as object);
      assert.deepEqual(events.at(-1), { event: 'added', server: id, voters: id });
    }
    assert.deepEqual(await names(), [
      'metaserver-1 leader',
      'metaserver-2 follower',
      'metaserver-3 follower',
    ]);

    const { metaservers } = await cluster.waitHealthy();
    const follower = metaservers.find(({ role }) => role === 'follower')?.address as string;
    const byOne = ['--meta', follower];
    const shown = await holdfast(['status', '--check', ...byOne]);
    assert.equal(shown.code, 0, shown.stdout);
    assert.match(shown.stdout, /^metaserver-1 .*\n^metaserver-2 .*\n^metaserver-3 /m, 'named by one address');
    const checked = await holdfast(['fsck', '--quick', ...byOne]);
    assert.doesNotMatch(checked.stderr, /no metaserver leads/);
    const second = `2=${metaservers.find(({ id }) => id === 2)?.address}`;
    const member = await holdfast(['metaserver', 'add', second, '--timeout', '20', ...byOne]);
    assert.match(member.stderr, /metaserver-2 is a member already/);

    const removed = await manage('remove', 'metaserver-1');
    assert.equal(removed.code, 0, removed.stderr);
    assert.match(removed.stdout, /it leads: another one takes over/);
    assert.match(removed.stdout, /removed: metaserver-1; 2 vote/);
    const left = (await names()).map((text) => text.split(' ')[0]);
    assert.deepEqual(left, ['metaserver-2', 'metaserver-3']);
    assert.ok(!cluster.pids().has('metaserver-1'), 'its process has ended');

    const before = written();
    await eventually('the writer goes on', () => written() > before + 20);
    writeFileSync(stop, '');
    const acknowledged = await writer;
    const cold = await cluster.mount('cold');
    await nodeScript(CHECK_RECORDS, [join(cold, 'records'), acknowledged]);
    assert.equal((await cluster.umount(cold)).code, 0);
  });

  it('are refused with one line where that cannot be', async () => {
    const refused: [string[], number, RegExp][] = [
      [['remove', '1'], 1, /^holdfast: metaserver-1 is no member of the cluster\n$/],
      [['remove', 'x'], 2, /'x' is no metaserver/],
      [['add', '4=nowhere'], 2, /'nowhere' is not host:port/],
      [['add', '99=h:1'], 2, /not id=host:port with an id from 1 to 64/],
    ];
    for (const [args, code, message] of refused) {
      const result = await manage(...args);
      assert.match(result.stderr, message);
      assert.equal(result.code, code, args.join(' '));
    }
    const none = await holdfast(['metaserver', 'add', '--data', join(local, 'nowhere')]);
    assert.match(none.stderr, /no 'holdfast up' is running/);
    assert.equal(none.code, 2);
  });

  it('are known to the next start', async () => {
    assert.equal(await cluster.down(), 0);
    await cluster.up();
    const left = (await names()).map((text) => text.split(' ')[0]);
    assert.deepEqual(left, ['metaserver-2', 'metaserver-3']);
  });

  it('found no empty cluster when all of them lost their disks', async () => {
    assert.equal(await cluster.down(), 0);
    for (const id of [2, 3]) rmSync(join(cluster.data, `metaserver-${id}`), { recursive: true });
    const up = cluster.up().then(
      () => 'it served',
      (error: Error) => error.message,
    );
    await eventually('they say what they wait for', async () => {
      const { problems } = await cluster.status();
      return problems.filter((line) => /has an empty disk: it waits for the leader/.test(line)).length === 2;
    });
    assert.equal(await cluster.down(), 0);
    assert.match(await up, /up ended with/);
  });
});
