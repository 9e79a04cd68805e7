import assert from 'node:assert/strict';
import { holdfast, sh } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { LineChild } from '../lab/line-child.js';
import { TestCluster } from '../lab/test-cluster.js';
import { LockAgent } from './support/lock-agent.js';

/** A program on the mount that is stopped: it holds files open over the pause, and does one thing for each line it is sent. */
const HOLDER = `
  const fs = require('node:fs');
  const [dir, mount] = process.argv.slice(1);
  const dirty = fs.openSync(dir + '/dirty', 'w+');
  fs.writeSync(dirty, 'synced ', 0);
  fs.fsyncSync(dirty);
  const cached = fs.openSync(dir + '/cached', 'r');
  const read = (fd) => { const b = Buffer.alloc(64); return b.toString('latin1', 0, fs.readSync(fd, b, 0, 64, 0)); };
  const attempt = (what) => { try { return what(); } catch (error) { return error.code; } };
  const acts = {
    warm: () => [read(cached), fs.readFileSync(dir + '/cached', 'utf8'), fs.readdirSync(dir + '/names').join()].join(' '),
    // Not a moment later: what is written stays unwritten for a second at most.
    writeAndStop: () => fs.writeSync(dirty, 'unsynced', 0) && process.kill(Number(mount), 'SIGSTOP'),
    sync: () => fs.fsyncSync(dirty),
    cached: () => read(cached),
    reopened: () => fs.readFileSync(dir + '/cached', 'utf8'),
    names: () => fs.readdirSync(dir + '/names').join(),
    size: () => fs.statSync(dir + '/cached').size,
    dirty: () => fs.readFileSync(dir + '/dirty', 'utf8'),
  };
  console.log(JSON.stringify('ready'));
  require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
    console.log(JSON.stringify(attempt(acts[line]) ?? 'ok'));
  });`;

class Holder {
  readonly #child: LineChild;
  readonly #said: string[] = [];

  /** @param mount pid of the process that serves the directory */
  constructor(dir: string, mount: number) {
    const args = ['-e', HOLDER, dir, String(mount)];
    this.#child = new LineChild(process.execPath, args, (line) => this.#said.push(line));
  }

  async #next(what: string): Promise<unknown> {
    await eventually(`the holder answers '${what}'`, () => this.#said.length > 0, 120_000);
    return JSON.parse(this.#said.shift() as string) as unknown;
  }

  ready(): Promise<unknown> {
    return this.#next('ready');
  }

  ask(what: string): Promise<unknown> {
    this.#child.say(what);
    return this.#next(what);
  }

  end(): void {
    this.#child.kill();
  }
}

describe('a client that is stopped while it holds leases, locks and data that it has not written', function () {
  this.timeout(240_000);
  const cluster = new TestCluster('stopped-client');
  let other: string;
  let holder: Holder | undefined;
  const agents: LockAgent[] = [];

  before(async () => {
    await cluster.up();
    other = await cluster.mount('other');
  });
  after(async () => {
    const pid = cluster.pids().get('mount');
    if (pid !== undefined) process.kill(pid, 'SIGCONT');
    holder?.end();
    await Promise.all(agents.map((agent) => agent.end()));
    await cluster.destroy();
  });

  it('delays others under a new leader for a bounded time, and awake again neither writes the old nor reads it', async () => {
    const { leader } = await cluster.waitHealthy();
    await sh(`mkdir names; printf old > cached; touch names/old; sync`, { cwd: cluster.dir });
    holder = new Holder(cluster.dir, cluster.pid('mount'));
    assert.equal(await holder.ready(), 'ready');
    assert.equal(await holder.ask('warm'), 'old old old');
    const [locker, taker] = [new LockAgent(), new LockAgent()];
    agents.push(locker, taker);
    for (const handle of ['f', 'g']) await locker.do(`open ${handle} ${cluster.dir}/locked-${handle}`);
    for (const command of ['flock f w', 'set g w 0 0', 'write f mine', 'write g mine'])
      assert.equal(await locker.do(command), 'ok');
    await sh('sync locked-f locked-g', { cwd: cluster.dir });
    assert.equal(await holder.ask('writeAndStop'), true);
    assert.equal(
      (await holdfast(['stop', `metaserver-${leader?.id}`, '--data', cluster.data, '--kill'])).code,
      0,
    );

    // Nobody can do any of this before the stopped client is shut out.
    await sh(
      `printf newer > cached; rm names/old; touch names/new; printf other > dirty; sync cached names dirty`,
      {
        cwd: other,
        timeoutMs: 120_000,
      },
    );
    await taker.do(`open f ${other}/locked-f`);
    for (const command of ['flock f w wait', 'write f theirs']) assert.equal(await taker.do(command), 'ok');
    assert.equal((await holdfast(['start', `metaserver-${leader?.id}`, '--data', cluster.data])).code, 0);

    process.kill(cluster.pid('mount'), 'SIGCONT');
    for (const [what, expected] of [
      ['cached', 'newer'],
      ['size', 5],
      ['reopened', 'newer'],
      ['names', 'new'],
    ] as const)
      assert.deepEqual([what, await holder.ask(what)], [what, expected]);
    // What it had not written is lost, and it is told so; the other one's is not touched.
    assert.equal(await holder.ask('sync'), 'EIO');
    assert.equal(await holder.ask('dirty'), 'other');
    assert.equal(await sh('cat cached dirty; ls names', { cwd: other }), 'newerothernew\n');
    await cluster.waitHealthy();
    // Who has lost a lock hears of it with the next read or write, and goes on when it has given the lock up.
    for (const handle of ['f', 'g']) {
      assert.equal(await locker.do(`write ${handle} stale`), 'EIO');
      assert.equal(await locker.do(`read ${handle}`), 'EIO');
    }
    assert.equal(await locker.do('flock f w'), 'EAGAIN');
    for (const command of ['flock f u', 'set g u 0 0', 'set g w 0 0', 'write g new'])
      assert.equal(await locker.do(command), 'ok');
    assert.equal(await locker.do('read f'), 'theirs');
    assert.equal(await sh('cat locked-f locked-g', { cwd: other }), 'theirsnewe');
  });
});
