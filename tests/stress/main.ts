import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '../../common/clock.js';
import { createPrng, type Prng } from '../../common/prng.js';
import { imageDiskUnavailable } from '../lab/image-disk.js';
import { Lab } from '../lab/lab.js';
import { networkUnavailable } from '../lab/network.js';
import { FAULTS, type FaultKind } from './faults.js';
import { histories } from './histories.js';
import { concludeRun, newRun } from './record.js';
import { htmlReport } from './report-html.js';
import { textReport } from './report-text.js';
import { type RoundLoads, removeLoads, runRound } from './round.js';
import { clientDeath, fill, stalls } from './scripts.js';
import { StressSession } from './session.js';
import { wiped } from './wiped.js';

const ROUND_SCENARIOS = ['mixed', ...new Set(FAULTS.map((kind) => kind.scenario))];
const SCRIPTS = ['stalls', 'wiped', 'client-death', 'fill', 'histories'];
const SCENARIOS = ['all', ...ROUND_SCENARIOS, ...SCRIPTS];
const HELP = `npm run stress [-- options]: servers and clients in network namespaces under fio and a nemesis
  --minutes M       how long rounds of load and faults go on (default 10; histories in all: one minute)
  --seed S          seed of the faults and the load (default: a new one, printed)
  --scenario NAME   ${SCENARIOS.join(', ')} (default all: mixed, then each of the last five)
  --fault NAME      only this fault, in rounds; an unknown name lists all
  --round-seconds N how long fio writes in a round (default 30)
  --times N         of each fault in the scenarios stalls and wiped (default 5)
  --report DIR      where stress.html and stress.json go (default stress-report)
  --json            print the report as JSON
Exit codes: 0 passed, 1 something failed or nothing was proved, 2 bad input or this machine cannot run it.
`;

interface Options {
  minutes: number;
  seed: number;
  scenario: string;
  fault: string | undefined;
  roundSeconds: number;
  times: number;
  report: string;
  json: boolean;
}

/** Room for all rounds' data and what compaction has not given back yet; image files are sparse. */
const DISK_MIB = 6_144;
/** Loads of so many rounds before are verified again. */
const OLDER_ROUNDS = 2;

class UsageError extends Error {}

function number(flag: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (text === '' || !(value >= min && value <= max))
    throw new UsageError(`--${flag}: '${text}' is not a number from ${min} to ${max}`);
  return value;
}

function parseOptions(): Options | undefined {
  const text = (value: string) => ({ type: 'string', default: value }) as const;
  const { values } = parseArgs({
    options: {
      ...{ minutes: text('10'), seed: text(String(process.pid)), scenario: text('all'), times: text('5') },
      ...{ 'round-seconds': text('30'), report: text('stress-report') },
      fault: { type: 'string' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  if (!SCENARIOS.includes(values.scenario))
    throw new UsageError(`--scenario: '${values.scenario}' is not one of ${SCENARIOS.join(', ')}`);
  if (values.fault !== undefined && !FAULTS.some((kind) => kind.name === values.fault))
    throw new UsageError(
      `--fault: '${values.fault}' is not one of ${FAULTS.map((kind) => kind.name).join(', ')}`,
    );
  return {
    fault: values.fault,
    minutes: number('minutes', values.minutes, 0.1, 1440),
    seed: Math.trunc(number('seed', values.seed, 0, 2 ** 48)),
    scenario: values.fault === undefined ? values.scenario : 'mixed',
    roundSeconds: number('round-seconds', values['round-seconds'], 5, 3600),
    times: Math.trunc(number('times', values.times, 1, 100)),
    report: resolve(values.report),
    json: values.json,
  };
}

async function rounds(session: StressSession, options: Options, prng: Prng): Promise<void> {
  const mixed = options.scenario === 'mixed' || options.scenario === 'all';
  const kinds: FaultKind[] = FAULTS.filter(
    (kind) => (options.fault ?? kind.name) === kind.name && (mixed || kind.scenario === options.scenario),
  );
  const older: RoundLoads[] = [];
  for (let n = 1; session.now() < options.minutes * 60_000; n++) {
    session.say(`round ${n}`);
    const plan = { number: n, seconds: options.roundSeconds, kinds, older };
    const loads = await runRound(session, plan, prng);
    if (session.run.failures.length > 0) return;
    older.push(loads);
    if (older.length > OLDER_ROUNDS) await removeLoads(session, older.shift() as RoundLoads);
  }
}

async function script(
  session: StressSession,
  name: string,
  act: () => Promise<string[] | undefined>,
): Promise<void> {
  session.say(name);
  const lines = await act();
  if (lines) session.run.scripts.push({ name, lines });
}

async function play(session: StressSession, options: Options): Promise<void> {
  const prng = createPrng(options.seed);
  const { scenario } = options;
  const wanted = (name: string): boolean => scenario === name || scenario === 'all';
  await session.lab.open();
  session.say('the cluster is healthy and mounted');
  if (scenario === 'all' || ROUND_SCENARIOS.includes(scenario)) await rounds(session, options, prng);
  if (session.run.failures.length > 0) return;
  if (wanted('stalls')) {
    session.say('stalls');
    await stalls(session, options.times, prng);
  }
  if (wanted('wiped')) {
    session.say('wiped');
    await wiped(session, options.times);
  }
  if (wanted('client-death')) await script(session, 'client-death', () => clientDeath(session));
  if (wanted('fill')) await script(session, 'fill', () => fill(session));
  if (wanted('histories')) {
    const minutes = scenario === 'histories' ? options.minutes : 1;
    await script(session, 'histories', () => histories(session, minutes, options.seed, prng));
  }
}

async function main(): Promise<number> {
  const options = parseOptions();
  if (!options) {
    process.stdout.write(HELP);
    return 0;
  }
  const missing = networkUnavailable() ?? imageDiskUnavailable();
  if (missing) throw new UsageError(`cannot run here: ${missing}`);
  const command = ['npm run stress --', ...process.argv.slice(2)].join(' ');
  const machine = `${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`;
  const run = newRun(command, machine, options.seed);
  const clients = options.scenario === 'histories' ? 3 : 2;
  const lab = new Lab('stress', { clients, diskMib: DISK_MIB });
  const session = new StressSession(lab, run, (line) => process.stderr.write(`${line}\n`));
  const interrupted = new Promise<string>((done) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => done(signal));
  });
  const { sec } = systemClock.wall();
  session.say(`seed ${options.seed}, begun at ${new Date(sec * 1000).toISOString()}`);
  rmSync(join(options.report, 'logs'), { recursive: true, force: true });
  session.start();
  try {
    const played = play(session, options);
    played.catch(() => undefined);
    const signal = await Promise.race([played.then(() => undefined), interrupted]);
    if (signal) session.fail(`interrupted by ${signal}`);
  } catch (error) {
    session.fail(error instanceof Error ? (error.stack ?? error.message) : String(error));
  } finally {
    session.close();
    // What the processes logged, for whoever wants to know why.
    cpSync(join(lab.data, 'log'), join(options.report, 'logs'), { recursive: true, force: true });
    await lab.close();
  }
  concludeRun(run);
  mkdirSync(options.report, { recursive: true });
  writeFileSync(join(options.report, 'stress.json'), `${JSON.stringify(run, null, 2)}\n`);
  writeFileSync(join(options.report, 'stress.html'), htmlReport(run));
  process.stdout.write(options.json ? `${JSON.stringify(run)}\n` : textReport(run));
  process.stderr.write(`report: ${join(options.report, 'stress.html')}\n`);
  return run.failures.length === 0 ? 0 : 1;
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    const usage =
      error instanceof UsageError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS');
    console.error(usage ? `stress: ${(error as Error).message}; see --help` : error);
    process.exit(usage ? 2 : 1);
  },
);
