import assert from 'node:assert/strict';
import { join } from 'node:path';
import { delay, systemClock } from '../../common/clock.js';
import { Histories } from '../histories/histories.js';
import type { Verdict } from '../histories/judge.js';
import { sh } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';

const SEED = Number(process.env.HOLDFAST_HISTORIES_SEED ?? 1);
const SEEDS_OF_A_GROUP = 1_000_000;
/** How long a process stands still: longer than the leases of servers, shorter than those of clients. */
const STOPPED_MS = 2_000;
/** So many histories of a hundred may be too tangled to be decided. */
const UNDECIDED_MAX_PERCENT = 10;

/** Groups of programs at work at the same time: what one waits for in a mount may be held up by what another does there. */
const GROUPS = ['one', 'two'];

describe('programs on three mounts that use the same names and files', function () {
  this.timeout(300_000);
  const cluster = new TestCluster('histories');
  const histories: Histories[] = [];
  let other: string;
  before(async () => {
    await cluster.up();
    other = await cluster.mount('other');
    const third = await cluster.mount('third');
    await sh(GROUPS.map((group) => `mkdir ${cluster.dir}/${group}`).join(' && '));
    for (const [n, group] of GROUPS.entries()) {
      const mounts = new Map([
        ['first', join(cluster.dir, group)],
        ['other', join(other, group)],
        ['third', join(third, group)],
      ]);
      histories.push(new Histories({ mounts, seed: SEED + n * SEEDS_OF_A_GROUP }));
    }
    await Promise.all(histories.map((group) => group.start()));
  });
  after(async () => {
    await Promise.all(histories.map((group) => group.end()));
    await cluster.destroy();
  });

  const each = async (call: (group: Histories) => Promise<void>): Promise<void> => {
    await Promise.all(histories.map(call));
  };
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

  const FAULTS: [string, () => Promise<void>][] = [
    ['the leader of the metaservers is killed', async () => killed(await leader())],
    ['a chunkserver is killed', () => killed('chunkserver-2')],
    ['leadership is handed over', () => cluster.handOver()],
    ['the leader stands still', async () => stopped(cluster.pid(await leader()))],
    ['a chunkserver stands still', () => stopped(cluster.pid('chunkserver-1'))],
    ['a mount stands still', () => stopped(cluster.mountPid(other))],
    ['a program is killed', () => each((group) => group.killProgram('first'))],
    [
      'all servers are killed',
      () => killed(...[...cluster.pids().keys()].filter((name) => name !== 'mount')),
    ],
  ];

  it('find an order of all calls that explains every answer, whatever happens to servers and mounts', async () => {
    for (const [fault, happens] of FAULTS) {
      await each((group) => group.progress(8));
      await happens();
      await each((group) => group.progress(8)).catch((error: Error) => {
        throw new Error(`after ${fault}: ${error.message}\n${cluster.logs()}`);
      });
    }
    const verdicts: Verdict[] = [];
    for (const group of histories) verdicts.push(await group.finish());
    assert.deepEqual(
      histories.flatMap(({ offences }) => offences),
      [],
    );
    assert.deepEqual(
      verdicts.flatMap(({ violations }) => violations),
      [],
    );
    const undecided = verdicts.flatMap((verdict) => verdict.undecided);
    const [all, operations, overlapping] = (['histories', 'operations', 'overlapping'] as const).map((what) =>
      verdicts.reduce((sum, verdict) => sum + verdict[what], 0),
    ) as [number, number, number];
    assert.ok(undecided.length * 100 <= all * UNDECIDED_MAX_PERCENT, undecided.join('\n'));
    // It proved something.
    assert.ok(operations > FAULTS.length * 3 * 20 && overlapping > operations / 20, JSON.stringify(verdicts));
  });
});
