import assert from 'node:assert/strict';
import { holdfast, sh } from '../lab/command.js';
import { TestCluster } from '../lab/test-cluster.js';
import { Agent, type Argument } from '../posix/agent.js';
import { ALICE, ROOT_USER } from '../posix/bench.js';

describe('immutable and append-only files, on two mounts of one cluster', function () {
  this.timeout(180_000);
  const cluster = new TestCluster('flags');
  let agents: [Agent, Agent];
  let alice: Agent;
  const started: Agent[] = [];
  before(async () => {
    await cluster.up();
    const second = await cluster.mount('second');
    await sh(`chmod 755 ${cluster.root} ${cluster.dir}`);
    agents = [new Agent(cluster.dir, ROOT_USER), new Agent(second, ROOT_USER)];
    alice = new Agent(second, ALICE);
    started.push(...agents, alice);
  });
  after(async () => {
    for (const agent of started) agent.end();
    await cluster.destroy();
  });

  async function refused(agent: Agent, ...calls: [string, ...Argument[]][]): Promise<void> {
    for (const call of calls) await agent.fails('EPERM', ...call);
  }

  it('a file that is made immutable on one is refused to writers of both, whoever has it open, until it is mutable', async () => {
    for (const [one, two] of [agents, [...agents].reverse()] as [Agent, Agent][]) {
      await one.file('f', 'content', 0o666);
      const [here, there] = [await one.open('f', 'O_RDWR'), await two.open('f', 'O_RDWR')];
      const users = await alice.open('f', 'O_WRONLY|O_APPEND');
      await one.ok('write', here, 'C');
      await one.ok('chattr', 'f', '+i');
      for (const [agent, fd] of [
        [one, here],
        [two, there],
      ] as const) {
        assert.equal(await agent.ok('lsattr', 'f'), 'i');
        await refused(
          agent,
          ['write', fd, 'no'],
          ['ftruncate', fd, 0],
          ['ftruncate', fd, 99],
          ['fchmod', fd, 0o600],
        );
        await refused(
          agent,
          ['open', 'f', 'O_RDWR'],
          ['truncate', 'f', 0],
          ['unlink', 'f'],
          ['rename', 'f', 'g'],
        );
        await refused(
          agent,
          ['link', 'f', 'l'],
          ['setxattr', 'f', 'user.a', 'v'],
          ['utimensat', 'f', 'now', 'now'],
        );
        assert.equal(await agent.ok('mapAndStore', fd, 'xxx'), 'refused');
        assert.equal(await agent.ok('readAll', 'f'), 'Content');
      }
      await refused(alice, ['write', users, 'no'], ['open', 'f', 'O_WRONLY']);
      await two.ok('chattr', 'f', '-i');
      await one.ok('pwrite', here, 'T', 3);
      await alice.ok('write', users, '!');
      for (const agent of [one, two]) {
        assert.equal(await agent.ok('lsattr', 'f'), '');
        assert.equal(await agent.ok('readAll', 'f'), 'ConTent!');
      }
      await one.ok('close', here);
      await two.ok('close', there);
      await two.ok('unlink', 'f');
    }
  });

  it('a directory in which one mount makes names ahead is guarded as soon as the other says so', async () => {
    const [one, two] = agents;
    await one.ok('mkdir', 'd', 0o777);
    for (let i = 0; i < 30; i++) await one.ok('writeAll', `d/f${i}`, `${i}`);
    await two.ok('chattr', 'd', '+i');
    for (const agent of [one, two]) {
      await refused(
        agent,
        ['open', 'd/new', 'O_WRONLY|O_CREAT'],
        ['mkdir', 'd/new'],
        ['unlink', 'd/f0'],
        ['rename', 'd/f1', 'f1'],
      );
      await refused(agent, ['link', 'd/f2', 'd/l'], ['rmdir', 'd'], ['chmod', 'd', 0o700]);
      assert.equal(((await agent.ok('list', 'd')) as string[]).length, 30);
    }
    await two.ok('chattr', 'd', '-i+a');
    await one.ok('writeAll', 'd/new', '');
    await refused(one, ['unlink', 'd/new'], ['rename', 'd/new', 'd/newer']);
    await two.ok('chattr', 'd', '-a');
    for (let i = 0; i < 30; i++) await one.ok('unlink', `d/f${i}`);
    await two.ok('unlink', 'd/new');
    await one.ok('rmdir', 'd');
  });

  it('while one makes and removes files, and the other guards their directory, each call ends as the flags are', async () => {
    const [one, two] = agents;
    await one.ok('mkdir', 'busy', 0o777);
    const made: string[] = [];
    const guards = Array.from({ length: 12 }, (_, i) => (i % 2 ? '-i' : '+i'));
    const working = (async () => {
      for (let i = 0; i < 400; i++) {
        const { errno } = await one.call('writeAll', `busy/${i}`, '');
        if (errno === undefined) made.push(String(i));
        else assert.equal(errno, 'EPERM');
      }
    })();
    for (const change of guards) {
      await two.ok('chattr', 'busy', change);
      if (change === '-i') continue;
      const listed = await two.ok<string[]>('list', 'busy');
      await two.ok('tick');
      assert.deepEqual(await two.ok('list', 'busy'), listed, 'nothing is made in an immutable directory');
    }
    await working;
    assert.deepEqual(await two.ok('list', 'busy'), made.sort());
  });

  it('a log that many append to is cut by nobody', async () => {
    const [one, two] = agents;
    await one.file('log', '', 0o666);
    await one.ok('chattr', 'log', '+a');
    const fds = await Promise.all([one, two, alice].map((agent) => agent.open('log', 'O_WRONLY|O_APPEND')));
    await Promise.all(
      [one, two, alice].map(async (agent, index) => {
        for (let i = 0; i < 20; i++) await agent.ok('write', fds[index] as number, 'a line\n');
      }),
    );
    await refused(alice, ['truncate', 'log', 0], ['open', 'log', 'O_WRONLY|O_APPEND|O_TRUNC']);
    await refused(two, ['unlink', 'log'], ['rename', 'log', 'log.1']);
    await refused(two, ['ftruncate', fds[1] as number, 0], ['open', 'log', 'O_WRONLY']);
    assert.equal(await one.ok('readAll', 'log'), 'a line\n'.repeat(60));
  });

  it('are so when all servers were away, and the tools of others say it', async () => {
    await sh(
      `cd ${cluster.dir}; echo kept > kept; mkdir dir; chattr +iA kept; chattr +ad dir; touch dir/made`,
    );
    for (const id of [1, 2, 3]) process.kill(cluster.pid(`metaserver-${id}`), 'SIGKILL');
    await cluster.waitHealthy();
    const shown = await sh(
      `cd ${cluster.dir}; lsattr kept | cut -d' ' -f1; lsattr -d dir | cut -d' ' -f1; lsattr dir/made | cut -d' ' -f1`,
    );
    assert.deepEqual(
      shown.split('\n').map((line) => line.replaceAll('-', '')),
      ['iA', 'ad', 'd', ''],
    );
    await sh(`cd ${cluster.dir}; ! rm -f kept 2> /dev/null; ! rm dir/made 2> /dev/null; ! mv dir/made . 2> /dev/null
              cp -a kept copy; echo x >> copy; chattr -iA kept; rm kept copy; chattr -a dir; rm -r dir`);
    const { code, stdout, stderr } = await holdfast(['fsck', '--quick', '--data', cluster.data]);
    assert.equal(code, 0, stdout + stderr);
  });
});
