import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { GROUPS, type Group } from '../../cli/bench/workloads.js';
import { systemClock } from '../../common/clock.js';
import { ROOT } from '../lab/command.js';
import { residentMemory } from '../lab/processes.js';
import { ratioChart } from './chart.js';
import { countsBench } from './counts.js';
import { buildRevision, holdfastSystem } from './holdfast.js';
import { inodesBench } from './inodes.js';
import { markdown } from './markdown.js';
import { runPasses } from './passes.js';
import { gluster } from './peers/gluster.js';
import { moosefs } from './peers/moosefs.js';
import { passThrough } from './peers/pass-through.js';
import { sshfs } from './peers/sshfs.js';
import { type BenchRun, rowsOf } from './report.js';
import { scaleBench } from './scale.js';
import { soak } from './soak.js';
import { localDisk, type System } from './system.js';

const EXIT_USAGE = 2;
const EXIT_INTERRUPTED = 130;
const MS_PER_SECOND = 1_000;
const MS_PER_MINUTE = 60_000;

const HELP = `npm run bench [-- options]: measures a cluster of this machine beside its local disk and others
  --passes N       passes, interleaved; medians are reported (default 3)
  --mib N          size of the file of the sequential and random rows, MiB (default 512)
  --seconds N      length of each random and commit row, s (default 10)
  --files N        files of the metadata rows (default 2000)
  --only GROUPS    comma-separated: ${GROUPS.join(', ')} (default all)
  --peers          also MooseFS, GlusterFS, sshfs and a C pass-through, where they are installed
  --compare REV    also the build of another commit of this repository
  --warm-up N      seconds of all kinds of work before the first row of each system's pass, not measured (default 40;
                   0: none, the rows are then those of processes that are seconds old)
  --limit N        minutes that one pass over one system may take before the rest is left out (default 20)
  --out BASE       write BASE.md, BASE.json and BASE.svg after each system (default: .bench/latest)
  --write          the same in docs/benchmarks
instead of all that:
  --soak N         N operations on one mount, memory of every process along the way
  --scale          clients, metaservers, chunkservers, directory and file sizes, idle CPU; writes docs/scaling.md with
                   --write; --most N: entries of the largest directory (default 1000000); --delay N: ms of network delay
                   each way where the kernel has netem (default 2)
  --counts         requests, log entries and syncs that each kind of operation costs (--files N); docs/counts.md with --write
  --inodes N       memory and start of a metaserver with N inodes, and of a chunkserver's index as of --index-gb GB
                   (default 300)
`;

function machine(): string {
  const model = cpus()[0]?.model ?? 'unknown CPU';
  return `${cpus().length} cores (${model}), ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`;
}

function git(...args: string[]): string {
  return execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim();
}

/** The commit of the build, with a mark when files of the tree differ from it. */
function revision(): string {
  try {
    const isChanged = git('status', '--porcelain', '--untracked-files=no') !== '';
    return `${git('rev-parse', '--short', 'HEAD')}${isChanged ? ' with changes' : ''}`;
  } catch {
    return 'unknown';
  }
}

function presentPeers(run: BenchRun): System[] {
  const peers = [passThrough(), moosefs(), gluster(), sshfs()];
  return peers.filter((peer) => {
    const missing = peer.missing();
    if (missing) run.absent.push(`${peer.name} (${missing})`);
    return !missing;
  });
}

function save(run: BenchRun, base: string): void {
  mkdirSync(dirname(base), { recursive: true });
  writeFileSync(`${base}.md`, markdown(run));
  writeFileSync(`${base}.json`, `${JSON.stringify({ ...run, rows: rowsOf(run) }, null, 1)}\n`);
}

const OPTIONS = {
  passes: { type: 'string', default: '3' },
  mib: { type: 'string', default: '512' },
  seconds: { type: 'string', default: '10' },
  files: { type: 'string', default: '2000' },
  only: { type: 'string', default: GROUPS.join(',') },
  peers: { type: 'boolean', default: false },
  compare: { type: 'string' },
  'warm-up': { type: 'string', default: '40' },
  limit: { type: 'string', default: '20' },
  out: { type: 'string', default: join('.bench', 'latest') },
  write: { type: 'boolean', default: false },
  soak: { type: 'string' },
  scale: { type: 'boolean', default: false },
  most: { type: 'string', default: '1000000' },
  delay: { type: 'string', default: '2' },
  counts: { type: 'boolean', default: false },
  inodes: { type: 'string' },
  'index-gb': { type: 'string', default: '300' },
  help: { type: 'boolean', default: false },
} as const;

class UsageError extends Error {}

function number(name: string, text: string, least = 1): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > 1e9)
    throw new UsageError(`--${name} '${text}' is not a whole number from ${least} to 1000000000`);
  return value;
}

function parse() {
  try {
    return parseArgs({ options: OPTIONS }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

type Values = ReturnType<typeof parse>;

function selectGroups(only: string): Group[] {
  return only.split(',').map((name) => {
    const group = GROUPS.find((one) => one === name);
    if (!group) throw new UsageError(`--only ${name}: there are ${GROUPS.join(', ')}`);
    return group;
  });
}

/** The command line with every setting, and the commit instead of a name that moves. */
function commandLine(values: Values, compared: string | undefined): string {
  const { passes, mib, seconds, files, only, peers, limit, write, 'warm-up': warmUp } = values;
  const flags = [`--passes ${passes}`, `--mib ${mib}`, `--seconds ${seconds}`, `--files ${files}`];
  flags.push(`--warm-up ${warmUp}`);
  if (only !== GROUPS.join(',')) flags.push(`--only ${only}`);
  if (peers) flags.push('--peers');
  if (compared) flags.push(`--compare ${compared}`);
  if (limit !== OPTIONS.limit.default) flags.push(`--limit ${limit}`);
  if (write) flags.push('--write');
  return `npm run bench -- ${flags.join(' ')}`;
}

async function compareSystems(values: Values): Promise<void> {
  const groups = selectGroups(values.only);
  const sizes = {
    sequentialMib: number('mib', values.mib),
    seconds: number('seconds', values.seconds),
    files: number('files', values.files),
  };
  const passes = number('passes', values.passes);
  const limitMs = number('limit', values.limit) * MS_PER_MINUTE;
  const warmUpSeconds = number('warm-up', values['warm-up'], 0);
  const compared = values.compare && git('rev-parse', '--short', values.compare);
  const command = commandLine(values, compared);
  const run: BenchRun = {
    ...{ machine: machine(), cores: cpus().length, revision: revision(), command, warmUpSeconds },
    ...{ passes: [], memory: [], cpu: [], absent: [] },
  };
  const base = values.write ? join(ROOT, 'docs', 'benchmarks') : resolve(ROOT, values.out);
  const systems = [holdfastSystem(), localDisk(), ...(values.peers ? presentPeers(run) : [])];
  const other = compared ? await buildRevision(compared) : undefined;
  if (other) systems.push(holdfastSystem(`Holdfast ${compared}`, other.main));
  let isInterrupted = false;
  const interrupted = (signal: NodeJS.Signals): void => {
    isInterrupted = true;
    console.error(`${signal}: taking everything down; what was measured is in ${base}.md`);
    save(run, base);
    void Promise.allSettled([...systems.map((system) => system.down()), other?.remove()]).then(() =>
      process.exit(EXIT_INTERRUPTED),
    );
  };
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);
  const tell = (line: string): void => console.error(line);
  try {
    const options = {
      passes,
      groups,
      sizes,
      limitMs,
      warmUpMs: warmUpSeconds * MS_PER_SECOND,
      clock: systemClock,
      tell,
      save: () => save(run, base),
      interrupted: () => isInterrupted,
    };
    await runPasses(systems, run, options);
  } finally {
    await other?.remove();
  }
  process.stdout.write(`${markdown(run)}\n`);
  writeFileSync(`${base}.svg`, await ratioChart(run));
}

async function main(): Promise<void> {
  const values = parse();
  const environment = { machine: machine(), revision: revision() };
  if (values.help) process.stdout.write(HELP);
  else if (values.soak !== undefined) await soak(number('soak', values.soak), residentMemory);
  else if (values.counts) await countsBench(environment, number('files', values.files), values.write);
  else if (values.scale)
    await scaleBench(environment, {
      most: number('most', values.most),
      delayMs: number('delay', values.delay),
      seconds: number('seconds', values.seconds),
      write: values.write,
    });
  else if (values.inodes !== undefined)
    await inodesBench(environment, number('inodes', values.inodes), number('index-gb', values['index-gb']));
  else await compareSystems(values);
}

main().catch((error: unknown) => {
  if (error instanceof UsageError) console.error(`bench: ${error.message} (see --help)`);
  else console.error(error);
  process.exitCode = error instanceof UsageError ? EXIT_USAGE : 1;
});
