import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { delay, systemClock } from '../../common/clock.js';
import type { Prng } from '../../common/prng.js';
import { ROOT, sh } from '../lab/command.js';
import type { Lab } from '../lab/lab.js';
import { monotonicMs } from '../lab/monotonic.js';
import { chooseFault, type FaultKind } from './faults.js';
import { type FioResult, type Load, newLoad, readLogs, verifyLoad, writeLoad } from './fio.js';
import { Probe } from './probe.js';
import type { FaultRecord, RoundRecord } from './record.js';
import type { StressSession } from './session.js';
import { Watchers } from './watchers.js';

/** One round: load on two mounts and faults at the same time; then quiet, and everything is verified. */

const HEALTHY_TIMEOUT_MS = 180_000;
const GAP_MS = 1_500;
/** fio counts what it wrote twice in a job that also reads back; the rest is verified once, from cold caches. */
const VERIFIED_MIN = 0.9;
const FSCK_TIMEOUT_MS = 240_000;

export interface RoundPlan {
  number: number;
  /** How long fio writes. */
  seconds: number;
  kinds: readonly FaultKind[];
  /** Loads of rounds before, which must still be whole. */
  older: readonly RoundLoads[];
}

/** What each client wrote. */
export type RoundLoads = ReadonlyMap<string, Load>;

/** @returns what was written, for the rounds to come */
export async function runRound(session: StressSession, plan: RoundPlan, prng: Prng): Promise<RoundLoads> {
  const { lab } = session;
  const beganMs = session.now();
  const loads = new Map(
    lab.clients.map((client) => [client, newLoad(`round-${plan.number}-${client}`, plan.seconds, prng)]),
  );
  const [writer, reader] = [lab.clients[0], lab.clients.at(-1)] as [string, string];
  const watched = `watched-${plan.number}`;
  await sh(`mkdir ${session.path(writer, watched)}`);
  const probe = new Probe(session.path(writer, `probe-${plan.number}`));
  const watchers = new Watchers();
  try {
    await probe.start();
    watchers.start({ writer: session.path(writer, watched), reader: session.path(reader, watched) });
    const written = writeLoads(session, loads);
    await injectFaults(session, plan.kinds, probe, written, prng);
    await watchers.progress();
    await probe.progress();
    const verdict = await watchers.stop(session.path(reader, watched));
    if (!(await probe.stop())) session.fail('the probe hangs');
    for (const offence of [...probe.errors.slice(0, 3), ...verdict.offences]) session.fail(offence);
    const record: RoundRecord = {
      ...{ number: plan.number, beganMs, endedMs: 0, written: await written, verdict },
      synced: probe.operations.length,
      verified: await verifyCold(session, [...plan.older, loads]),
      fsck: await fsck(session),
    };
    record.endedMs = session.now();
    session.run.rounds.push(record);
    const { bytesWritten } = record.written;
    if (record.verified.bytesVerified < VERIFIED_MIN * bytesWritten * (1 + plan.older.length))
      session.fail(
        `only ${record.verified.bytesVerified} bytes were verified, ${bytesWritten} written in each round`,
      );
    for (const error of [...record.written.errors, ...record.verified.errors]) session.fail(error);
    addSeries(session, loads, probe);
    await sh(`rm -rf ${session.path(writer, watched)} ${session.path(writer, `probe-${plan.number}`)}`);
    return loads;
  } finally {
    watchers.kill();
    await probe.stop(1);
  }
}

async function writeLoads(session: StressSession, loads: RoundLoads): Promise<FioResult> {
  const results = [...loads].map(([client, load]) =>
    writeLoad(session.lab.mountPoint(client), load, session.logDir),
  );
  return addUp(await Promise.all(results));
}

/** One fault after the other while the load lasts; at least one. */
async function injectFaults(
  session: StressSession,
  kinds: readonly FaultKind[],
  probe: Probe,
  load: Promise<unknown>,
  prng: Prng,
): Promise<void> {
  let loaded = true;
  const over = load.finally(() => {
    loaded = false;
  });
  over.catch(() => undefined);
  while (loaded) {
    await delay(systemClock, GAP_MS);
    const kind = chooseFault(kinds, prng);
    const [min, max] = kind.holdS;
    session.run.faults.push(
      await injectFault(session, kind, (min + prng.float() * (max - min)) * 1000, probe, prng),
    );
  }
  await over;
}

/** Begins a fault, holds it, ends it, and waits until everything is as before. */
export async function injectFault(
  session: StressSession,
  kind: FaultKind,
  holdMs: number,
  probe: Probe,
  prng: Prng,
): Promise<FaultRecord> {
  const { lab } = session;
  const from = monotonicMs();
  const injected = await kind.begin(lab, prng);
  session.say(`${kind.name} (${injected.victim}) for ${(holdMs / 1000).toFixed(1)} s`);
  await delay(systemClock, holdMs);
  const undone = monotonicMs();
  await injected.undo();
  await lab.waitHealthy(HEALTHY_TIMEOUT_MS);
  const healthy = monotonicMs();
  const stallMs = probe.longestStall(from, healthy);
  const record: FaultRecord = {
    ...{ name: kind.name, victim: injected.victim, stallMs },
    beganMs: session.fromMonotonic(from),
    undoneMs: session.fromMonotonic(undone),
    healthyMs: session.fromMonotonic(healthy),
    ...(injected.wiped && { copiedBytes: usedBytes(lab, injected.victim) }),
  };
  const took = `healthy ${((healthy - undone) / 1000).toFixed(1)} s after its end`;
  session.say(`  longest fsync ${Math.round(stallMs)} ms, ${took}`);
  return record;
}

function usedBytes(lab: Lab, server: string): number {
  return lab.lastStatus?.chunkservers.find((one) => one.name === server)?.usedBytes ?? 0;
}

/** Mounts everything anew and lets each client read what another one wrote. */
async function verifyCold(session: StressSession, rounds: readonly RoundLoads[]): Promise<FioResult> {
  const { lab } = session;
  await lab.waitHealthy(HEALTHY_TIMEOUT_MS);
  for (const client of lab.clients) await lab.remount(client);
  const results: FioResult[] = [];
  for (const loads of rounds)
    for (const [client, load] of loads) {
      const other = lab.clients[(lab.clients.indexOf(client) + 1) % lab.clients.length] as string;
      results.push(await verifyLoad(lab.mountPoint(other), load, session.logDir));
    }
  const total = addUp(results);
  session.say(`verified ${Math.round(total.bytesVerified / 2 ** 20)} MiB with cold caches`);
  return total;
}

/** `holdfast fsck`, as an administrator runs it. */
export async function fsck(session: StressSession): Promise<RoundRecord['fsck']> {
  if (!existsSync(join(ROOT, 'dist', 'cli', 'fsck.js'))) return 'not there';
  const result = await session.lab.holdfast(['fsck', '--cluster', session.lab.clusterFile], FSCK_TIMEOUT_MS);
  if (result.code === 0) return 'clean';
  session.fail(`fsck: ${result.stdout.slice(-500)}${result.stderr.slice(-500)}`);
  return 'not clean';
}

export async function removeLoads(session: StressSession, loads: RoundLoads): Promise<void> {
  for (const [client, load] of loads) await sh(`rm -rf ${session.path(client, load.name)}`);
}

function addUp(results: readonly FioResult[]): FioResult {
  return results.reduce((sum, one) => ({
    operations: sum.operations + one.operations,
    bytesWritten: sum.bytesWritten + one.bytesWritten,
    bytesVerified: sum.bytesVerified + one.bytesVerified,
    errors: [...sum.errors, ...one.errors],
    longestMs: Math.max(sum.longestMs, one.longestMs),
  }));
}

const SERIES_STEP_MS = 1_000;

function addSeries(session: StressSession, loads: RoundLoads, probe: Probe): void {
  const { run } = session;
  const bandwidth = new Map<number, number>();
  const latency = new Map<number, number[]>();
  const step = (atMs: number): number => Math.floor(atMs / SERIES_STEP_MS) * SERIES_STEP_MS;
  for (const load of loads.values()) {
    for (const { atMs, value } of readLogs(session.logDir, load, 'bw')) {
      const at = step(session.fromWall(atMs));
      // Two points of half a second each in a step: half of each counts.
      bandwidth.set(at, (bandwidth.get(at) ?? 0) + value / 1024 / 2);
    }
    for (const { atMs, value } of readLogs(session.logDir, load, 'lat')) {
      const at = step(session.fromWall(atMs));
      const points = latency.get(at);
      if (points) points.push(value / 1e6);
      else latency.set(at, [value / 1e6]);
    }
  }
  const longest = new Map<number, number>();
  for (const { began, ms } of probe.operations) {
    const at = step(session.fromMonotonic(began));
    longest.set(at, Math.max(longest.get(at) ?? 0, ms));
  }
  const points = (map: Map<number, number>): { atMs: number; value: number }[] =>
    [...map].map(([atMs, value]) => ({ atMs, value })).sort((a, b) => a.atMs - b.atMs);
  run.throughput.push(...points(bandwidth));
  run.fsync.push(...points(longest));
  const mean = (values: number[]): number => values.reduce((sum, one) => sum + one, 0) / values.length;
  run.latency.push(...points(new Map([...latency].map(([at, values]) => [at, mean(values)]))));
}
