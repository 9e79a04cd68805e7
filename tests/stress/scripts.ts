import { join } from 'node:path';
import { delay, systemClock } from '../../common/clock.js';
import type { Prng } from '../../common/prng.js';
import { SESSION_TIMEOUT_MS } from '../../proto/types.js';
import { sh } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { FAULTS } from './faults.js';
import { Probe } from './probe.js';
import { median } from './record.js';
import { fsck, injectFault } from './round.js';
import type { StressSession } from './session.js';

/** Scenarios with a plan of their own. */

/** The longest stall of a writer that syncs, milliseconds: medians on a machine with nothing else to do. */
export const STALL_TARGETS_MS: Record<string, number> = {
  'kill chunkserver': 250,
  'kill leader': 1_500,
  'kill follower': 1_500,
  'stop chunkserver': 3_000,
  'stop leader': 3_000,
  'stop follower': 3_000,
  'cut chunkserver off': 3_000,
  'cut leader off': 3_000,
};
const STALL_HOLD_MS = 5_000;

/** Each fault several times while nothing but the probe runs. */
export async function stalls(session: StressSession, times: number, prng: Prng): Promise<void> {
  const { lab, run } = session;
  const probe = new Probe(session.path(lab.clients[0] as string, 'probe-stalls'));
  await probe.start();
  try {
    for (const [name, targetMs] of Object.entries(STALL_TARGETS_MS)) {
      const kind = FAULTS.find((one) => one.name === name);
      if (!kind) throw new Error(`no fault ${name}`);
      const record = { name, targetMs, stallsMs: [] as number[] };
      run.stalls.push(record);
      for (let n = 0; n < times; n++) {
        await probe.progress();
        const fault = await injectFault(session, kind, STALL_HOLD_MS, probe, prng);
        record.stallsMs.push(fault.stallMs);
      }
      const middle = Math.round(median(record.stallsMs));
      if (middle > targetMs)
        session.fail(`${name}: a stall of ${middle} ms (median), at most ${targetMs} ms`);
    }
  } finally {
    if (!(await probe.stop())) session.fail('the probe hangs');
  }
  for (const error of probe.errors.slice(0, 3)) session.fail(error);
}

/**
 * A client's machine dies, its network with it: what it had synced is whole, what it had unlinked and held open is
 * reclaimed after its session's time-out.
 */
export async function clientDeath(session: StressSession): Promise<string[]> {
  const { lab } = session;
  const [victim, other] = [lab.clients[0], lab.clients.at(-1)] as [string, string];
  const before = (await lab.status())?.capacity.orphans ?? 0;
  const dir = session.path(victim, 'dying');
  await sh(`mkdir ${dir} && head -c 8000000 /dev/urandom > ${dir}/synced && sync ${dir}/synced ${dir}`);
  const sum = await sh(`sha256sum < ${dir}/synced`);
  const holder = `exec 9> ${dir}/open; head -c 4000000 /dev/zero >&9; rm ${dir}/open; echo held; exec sleep 600`;
  const held = sh(holder).catch(() => 'ended');
  await eventually(
    'an open file is unlinked',
    async () => ((await lab.status())?.capacity.orphans ?? 0) > before,
  );
  lab.network.part([victim], [...lab.servers, ...lab.clients]);
  await lab.kill(victim);
  lab.network.heal();
  const began = session.now();
  const remains = await sh(`sha256sum < ${join(session.path(other, 'dying'), 'synced')}`);
  if (remains !== sum) session.fail('a file that a dead client had synced is not whole');
  const limit = SESSION_TIMEOUT_MS + 60_000;
  await eventually(
    'open-unlinked files of the dead client are reclaimed',
    async () => ((await lab.status())?.capacity.orphans ?? 0) <= before,
    limit,
  );
  const took = (session.now() - began) / 1000;
  await lab.mount(victim);
  await sh(`rm -rf ${dir}`);
  void held;
  return [`open-unlinked files reclaimed ${took.toFixed(1)} s after the death; the synced file is whole`];
}

const FILL_LEAVES_MIB = 160;
const FILL_FILE_MIB = 32;
/** What a store has preallocated is still written to: so much is tried. */
const FILL_FILES = 12;

/** The disks of one server after the other fill up: ENOSPC at worst, deletes work, and nothing synced is lost. */
export async function fill(session: StressSession): Promise<string[]> {
  const { lab } = session;
  const lines: string[] = [];
  const dir = session.path(lab.clients[0] as string, 'filling');
  await sh(`mkdir ${dir} && head -c 8000000 /dev/urandom > ${dir}/before && sync ${dir}/before`);
  const sum = await sh(`sha256sum < ${dir}/before`);
  for (const victim of ['chunkserver-1', await lab.leader()]) {
    lab.disk(victim).fill(FILL_LEAVES_MIB);
    const write = `for i in $(seq ${FILL_FILES}); do head -c ${FILL_FILE_MIB}M /dev/urandom > ${dir}/f$i && sync ${dir}/f$i || exit 28; done`;
    const result = await sh(`(${write}) 2>&1 || true; echo; rm -f ${dir}/f*`);
    const said = /No space left|Input\/output error/.exec(result)?.[0] ?? 'written';
    if (said === 'Input/output error') session.fail(`${victim} full: the writer got EIO`);
    const problems = (await lab.status())?.problems.join('; ') || 'healthy';
    lab.disk(victim).free();
    if (!lab.alive(victim)) lab.start(victim);
    await delay(systemClock, 1_000);
    await lab.waitHealthy();
    lines.push(`${victim} full (${problems}): ${said}; deletes worked, healthy again once it had room`);
  }
  await lab.remount(lab.clients[0] as string);
  if ((await sh(`sha256sum < ${dir}/before`)) !== sum) session.fail('a file from before is not whole');
  await sh(`echo after > ${dir}/after && sync ${dir}/after && rm -rf ${dir}`);
  await fsck(session);
  return lines;
}
