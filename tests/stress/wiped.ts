import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { delay, systemClock } from '../../common/clock.js';
import { sh } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { monotonicMs } from '../lab/monotonic.js';
import { type Load, readLogs } from './fio.js';
import { median, type WipedRecord } from './record.js';
import type { StressSession } from './session.js';

/** A chunkserver that comes back with an empty disk: how soon it is in-sync again, and what that costs a writer. */

const CONTENT_MIB = 512;
/** From the server's start until all its groups are in-sync, nothing else to do; median. */
export const IN_SYNC_TARGET_S = 10;
/** What a writer keeps of its speed while the server is filled at the default cap. */
export const FOREGROUND_TARGET = 1 / 3;
const IN_SYNC_TIMEOUT_MS = 240_000;
const ALONE_MS = 8_000;
/** What a writer does at first is not its speed. */
const WARM_UP_MS = 2_000;
const FIO_MAX_S = 600;
const LOG_INTERVAL_MS = 250;
const BYTES_PER_MB = 1_000_000;

/** Wiped so many times with nothing else to do, and once more beside a writer. */
export async function wiped(session: StressSession, times: number): Promise<void> {
  const { lab } = session;
  const dir = session.path(lab.clients[0] as string, 'wiped');
  await sh(`mkdir ${dir} && head -c ${CONTENT_MIB}M /dev/urandom > ${dir}/content && sync ${dir}/content`);
  const sum = await sh(`sha256sum < ${dir}/content`);
  const record: WipedRecord = { refills: [], beside: undefined, targetS: IN_SYNC_TARGET_S };
  session.run.wiped = record;
  for (let n = 0; n < times; n++) {
    const victim = lab.chunkservers[n % lab.chunkservers.length] as string;
    record.refills.push(await refill(session, victim));
  }
  const seconds = median(record.refills.map((one) => one.seconds));
  if (seconds > IN_SYNC_TARGET_S)
    session.fail(`wiped: in-sync after ${seconds.toFixed(1)} s (median), at most ${IN_SYNC_TARGET_S} s`);
  record.beside = await besideWriter(session, dir);
  const { ratio } = record.beside;
  if (!(ratio >= FOREGROUND_TARGET))
    session.fail(`wiped: a writer beside it has ${ratio.toFixed(2)} of its speed, at least a third`);
  await lab.remount(lab.clients[0] as string);
  if ((await sh(`sha256sum < ${dir}/content`)) !== sum) session.fail('wiped: a file is not whole');
  await sh(`rm -r ${dir}`);
}

type Refill = WipedRecord['refills'][number];

/** Kills a chunkserver, empties its disk, starts it, and waits until every group is whole. */
async function refill(session: StressSession, victim: string): Promise<Refill> {
  const { lab } = session;
  await lab.waitHealthy();
  await lab.kill(victim);
  lab.wipe(victim);
  await eventually('the loss shows', async () => (await lab.status())?.healthy === false);
  const began = monotonicMs();
  lab.start(victim);
  await lab.waitHealthy(IN_SYNC_TIMEOUT_MS);
  const ended = monotonicMs();
  const seconds = (ended - began) / 1000;
  // The server tells what it holds with its next heartbeat.
  const used = async (): Promise<number> =>
    (await lab.status())?.chunkservers.find((one) => one.name === victim)?.usedBytes ?? 0;
  const bytes = await eventually(`${victim} holds all`, async () => {
    const now = await used();
    return now >= CONTENT_MIB * 2 ** 20 ? now : undefined;
  });
  const mbps = bytes / BYTES_PER_MB / seconds;
  session.say(`${victim} wiped: in-sync ${seconds.toFixed(1)} s after its start, ${mbps.toFixed(0)} MB/s`);
  return {
    beganMs: session.fromMonotonic(began),
    endedMs: session.fromMonotonic(ended),
    seconds,
    bytes,
    mbps,
  };
}

/** The same beside a writer that syncs: its speed meanwhile, and before and after it. */
async function besideWriter(
  session: StressSession,
  dir: string,
): Promise<NonNullable<WipedRecord['beside']>> {
  const load: Load = { name: 'foreground', seconds: FIO_MAX_S, seed: 1 };
  const writer = startWriter(session, dir, load);
  let copied: Refill;
  const began = session.now();
  try {
    await delay(systemClock, WARM_UP_MS + ALONE_MS);
    copied = await refill(session, session.lab.chunkservers.at(-1) as string);
    await delay(systemClock, ALONE_MS);
  } finally {
    await writer.end();
  }
  const points = readLogs(session.logDir, load, 'bw').map(({ atMs, value }) => ({
    atMs: session.fromWall(atMs),
    mbps: (value * 1024) / BYTES_PER_MB,
  }));
  const speed = (from: number, to: number): number => {
    const within = points.filter(({ atMs }) => atMs > from && atMs <= to);
    // An interval in which nothing was written has no point.
    return (within.reduce((sum, { mbps }) => sum + mbps, 0) * LOG_INTERVAL_MS) / (to - from);
  };
  const { beganMs, endedMs } = copied;
  const before = speed(began + WARM_UP_MS, began + WARM_UP_MS + ALONE_MS);
  const after = speed(endedMs, endedMs + ALONE_MS);
  const aloneMbps = (before + after) / 2;
  const besideMbps = speed(beganMs, endedMs);
  const ratio = besideMbps / aloneMbps;
  session.say(`a writer beside it: ${besideMbps.toFixed(1)} MB/s, alone ${aloneMbps.toFixed(1)} MB/s`);
  return { refill: copied, aloneMbps, besideMbps, ratio };
}

/** fio in the mount, until `end`. */
function startWriter(session: StressSession, dir: string, load: Load): { end(): Promise<void> } {
  const logDir = join(session.logDir, load.name);
  mkdirSync(logDir, { recursive: true });
  const job = [
    ...[`--name=${load.name}`, `--directory=${dir}`, '--ioengine=psync', '--rw=write', '--bs=256k'],
    ...['--size=64m', '--fsync=8', '--fallocate=none', '--time_based', `--runtime=${load.seconds}`],
    ...[`--write_bw_log=${join(logDir, 'log')}`, `--log_avg_msec=${LOG_INTERVAL_MS}`, '--log_unix_epoch=1'],
    `--randseed=${load.seed}`,
  ];
  const child = spawn('fio', job, { stdio: ['ignore', 'ignore', 'pipe'], cwd: logDir });
  let said = '';
  child.stderr.on('data', (data: Buffer) => {
    said = `${said}${data}`.slice(0, 1000);
  });
  const exited = new Promise<void>((done) => {
    child.on('exit', () => done());
    child.on('error', (error) => {
      said = error.message;
      done();
    });
  });
  return {
    end: async () => {
      if (child.exitCode !== null || child.pid === undefined) session.fail(`wiped: fio ended: ${said}`);
      child.kill('SIGINT');
      await exited;
    },
  };
}
