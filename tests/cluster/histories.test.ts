import assert from 'node:assert/strict';
import { delay, systemClock } from '../../common/clock.js';
import { Histories } from '../histories/histories.js';
import type { Verdict } from '../histories/judge.js';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';

const SEED = Number(process.env.HOLDFAST_HISTORIES_SEED ?? 1);
/** How long a process stands still: longer than the leases of servers, shorter than those of clients. */
const STOPPED_MS = 2_000;
/** So many histories of a hundred may be too tangled to be decided. */
const UNDECIDED_MAX_PERCENT = 10;

describe('programs on three mounts that use the same names and files', function () {
  this.timeout(300_000);
  const cluster = new TestCluster('histories');
  let histories: Histories | undefined;
  let other: string;
  before(async () => {
    await cluster.up();
    other = await cluster.mount('other');
    const mounts = new Map([
      ['first', cluster.dir],
      ['other', other],
      ['third', await cluster.mount('third')],
    ]);
    histories = new Histories({ mounts, seed: SEED });
    await histories.start();
  });
  after(async () => {
    await histories?.end();
    await cluster.destroy();
  });

  const leader = async (): Promise<string> => {
    const { leader } = await eventually('a leader', async () => {
      const status = await cluster.status().catch(() => undefined);
      return status?.leader ? status : undefined;
    });
    return `metaserver-${leader?.id}`;
  };
  const killed = async (...names: string[]): Promise<void> => {
    for (const pid of names.map((name) => cluster.pid(name))) process.kill(pid, 'SIGKILL');
  };
  const stopped = async (pid: number): Promise<void> => {
    process.kill(pid, 'SIGSTOP');
    await delay(systemClock, STOPPED_MS);
    process.kill(pid, 'SIGCONT');
  };

  const FAULTS: [string, (histories: Histories) => Promise<void>][] = [
    ['the leader of the metaservers is killed', async () => killed(await leader())],
    ['a chunkserver is killed', () => killed('chunkserver-2')],
    ['leadership is handed over', () => cluster.handOver()],
    ['the leader stands still', async () => stopped(cluster.pid(await leader()))],
    ['a chunkserver stands still', () => stopped(cluster.pid('chunkserver-1'))],
    ['a mount stands still', () => stopped(cluster.mountPid(other))],
    ['a program is killed', (running) => running.killProgram('first')],
    [
      'all servers are killed',
      () => killed(...[...cluster.pids().keys()].filter((name) => name !== 'mount')),
    ],
  ];

  it('find an order of all calls that explains every answer, whatever happens to servers and mounts', async () => {
    const running = histories as Histories;
    for (const [fault, happens] of FAULTS) {
      await running.progress(8);
      await happens(running);
      await running.progress(8).catch((error: Error) => {
        throw new Error(`after ${fault}: ${error.message}\n${cluster.logs()}`);
      });
    }
    const verdict: Verdict = await running.finish();
    assert.deepEqual(running.offences, []);
    assert.deepEqual(verdict.violations, []);
    const { histories: all, undecided, operations, overlapping } = verdict;
    assert.ok(undecided.length * 100 <= all * UNDECIDED_MAX_PERCENT, undecided.join('\n'));
    // It proved something.
    assert.ok(operations > FAULTS.length * 3 * 20 && overlapping > operations / 20, JSON.stringify(verdict));
  });
});
