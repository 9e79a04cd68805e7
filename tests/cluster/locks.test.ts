import assert from 'node:assert/strict';
import { join } from 'node:path';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';
import { LockAgent } from './support/lock-agent.js';

describe('locks on two mounts', function () {
  this.timeout(180_000);
  const cluster = new TestCluster('locks');
  const agents: LockAgent[] = [];
  let a: string;
  let b: string;
  let files = 0;

  before(async () => {
    await cluster.up();
    a = cluster.dir;
    b = await cluster.mount('second');
  });
  after(() => cluster.destroy());
  afterEach(async () => {
    await Promise.all(agents.splice(0).map((agent) => agent.end()));
  });

  /** Processes that have one new file open as `f`, on the first mount, the second, the first .. */
  async function open(...mounts: string[]): Promise<LockAgent[]> {
    const name = `file-${++files}`;
    const opened: LockAgent[] = [];
    for (const mount of mounts) {
      const agent = new LockAgent();
      agents.push(agent);
      opened.push(agent);
      assert.equal(await agent.do(`open f ${join(mount, name)}`), 'ok');
    }
    return opened;
  }

  it('record locks keep each other out by ranges, and F_GETLK tells who is in the way', async () => {
    const [one, same, other] = (await open(a, a, b)) as [LockAgent, LockAgent, LockAgent];
    assert.equal(await one.do('set f w 10 10'), 'ok');
    for (const agent of [same, other]) {
      assert.equal(await agent.do('set f r 19 1'), 'EAGAIN');
      assert.equal(await agent.do('set f w 20 0'), 'ok');
      assert.equal(await agent.do('set f u 20 0'), 'ok');
    }
    assert.equal(await same.do('get f r 0 0'), `w 10 10 ${await one.do('pid f')}`);
    assert.match(await other.do('get f r 0 0'), /^w 10 10 /);
    assert.equal(await other.do('get f r 20 0'), 'free');
    assert.equal(await one.do('set f u 0 0'), 'ok');
    assert.equal(await other.do('get f w 0 0'), 'free');
  });

  it('a process gives its record locks up with any close of the file, and with its death', async () => {
    const [one, other] = (await open(a, b)) as [LockAgent, LockAgent];
    await one.do('set f w 0 0');
    assert.equal(await other.do('set f w 0 0'), 'EAGAIN');
    await one.do(`open g ${join(a, `file-${files}`)}`);
    await one.do('close g');
    assert.equal(await other.do('set f w 0 0'), 'ok');
    await other.end();
    await eventually('the lock of the dead', async () => (await one.do('set f w 0 0')) === 'ok');
  });

  it('flock and open-file locks belong to the open file', async () => {
    const [one, other] = (await open(a, b)) as [LockAgent, LockAgent];
    for (const [lock, unlock] of [
      ['flock f w', 'flock f u'],
      ['ofd f w 0 0', 'set f u 0 0'],
    ] as const) {
      const name = join(a, `file-${files}`);
      assert.equal(await one.do(lock), 'ok');
      await one.do(`open g ${name}`);
      assert.equal(await one.do(lock.replace(' f ', ' g ')), 'EAGAIN');
      await one.do('close g');
      assert.equal(await other.do(lock.replace('ofd', 'set')), 'EAGAIN');
      await one.do('close f');
      const taken = async () => (await other.do(lock.replace('ofd', 'set'))) === 'ok';
      await eventually('the lock of the closed file', taken);
      await other.do(unlock);
      await one.do(`open f ${name}`);
    }
  });

  it('who waits goes on when the lock is given up, also on the other mount', async () => {
    const [one, other] = (await open(a, b)) as [LockAgent, LockAgent];
    for (const [lock, wait, unlock] of [
      ['set f w 0 0', 'wait f w 0 0', 'set f u 0 0'],
      ['flock f w', 'flock f w wait', 'flock f u'],
    ] as const) {
      await one.do(lock);
      const waiting = other.do(wait);
      assert.equal(await one.do('get f r 0 0').then(() => 'asked'), 'asked');
      assert.equal(await one.do(unlock), 'ok');
      assert.equal(await waiting, 'ok');
      assert.equal(await one.do(lock), 'EAGAIN');
      await other.do(unlock);
    }
  });

  it('a deadlock between mounts is found', async () => {
    const [one, other] = (await open(a, b)) as [LockAgent, LockAgent];
    await one.do('set f w 0 1');
    await other.do('set f w 1 1');
    const outcomes = [one.do('wait f w 1 1'), other.do('wait f w 0 1')];
    const first = await Promise.race(outcomes.map(async (outcome, at) => ({ at, is: await outcome })));
    assert.equal(first.is, 'EDEADLK');
    const loser = first.at === 0 ? one : other;
    await loser.do('set f u 0 0');
    assert.equal(await outcomes[1 - first.at], 'ok');
  });

  it('a signal ends a wait, which leaves nothing behind', async () => {
    const [one, other, third] = (await open(a, b, b)) as [LockAgent, LockAgent, LockAgent];
    await one.do('set f w 0 0');
    const waiting = other.do('wait f w 0 0');
    await one.do('get f r 0 0');
    other.signal('SIGTERM');
    assert.equal(await waiting, 'ended');
    await one.do('set f u 0 0');
    assert.equal(await third.do('set f w 0 0'), 'ok');
  });

  it('locks survive a change of the leader', async () => {
    const [one, other, third] = (await open(a, b, b)) as [LockAgent, LockAgent, LockAgent];
    await one.do('set f w 0 0');
    const waiting = other.do('wait f w 0 0');
    const { leader } = await cluster.status();
    process.kill(cluster.pid(`metaserver-${leader?.id}`), 'SIGKILL');
    assert.equal(await third.do('set f r 0 0'), 'EAGAIN');
    await one.do('set f u 0 0');
    assert.equal(await waiting, 'ok');
  });
});
