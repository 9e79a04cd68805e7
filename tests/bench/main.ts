import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runSuite } from '../../cli/bench/suite.js';
import { type BenchSizes, GROUPS, type Group, Recorder } from '../../cli/bench/workloads.js';
import { ROOT } from '../cluster/support/cluster.js';
import { ratioChart } from './chart.js';
import { buildRevision, holdfastSystem } from './holdfast.js';
import { gluster } from './peers/gluster.js';
import { moosefs } from './peers/moosefs.js';
import { passThrough } from './peers/pass-through.js';
import { sshfs } from './peers/sshfs.js';
import { type BenchRun, markdown, rowsOf } from './report.js';
import { soak } from './soak.js';
import { localDisk, type System } from './system.js';

const EXIT_INTERRUPTED = 130;

const HELP = `npm run bench [-- options]: measures a cluster of this machine beside its local disk and others
  --passes N       passes, interleaved; medians are reported (default 3)
  --mib N          size of the file of the sequential and random rows, MiB (default 512)
  --seconds N      length of each random and commit row, s (default 10)
  --files N        files of the metadata rows (default 2000)
  --only GROUPS    comma-separated: ${GROUPS.join(', ')} (default all)
  --peers          also MooseFS, GlusterFS, sshfs and a C pass-through, where they are installed
  --compare REV    also the build of another commit of this repository
  --write          write docs/benchmarks.md, docs/benchmarks.json and docs/benchmarks.svg
  --soak N         instead: N operations on one mount, memory of every process along the way
`;

function machine(): string {
  const model = cpus()[0]?.model ?? 'unknown CPU';
  return `${cpus().length} cores (${model}), ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`;
}

/** Resident memory of processes, bytes. */
function residentMemory(pids: ReadonlyMap<string, number>): Map<string, number> {
  const memory = new Map<string, number>();
  for (const [name, pid] of pids) {
    if (!existsSync(`/proc/${pid}`)) continue;
    const kib = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    memory.set(name, Number(kib ?? 0) * 1024);
  }
  return memory;
}

/** One pass over one system: up, measured, down. */
async function measure(
  system: System,
  groups: readonly Group[],
  sizes: BenchSizes,
  run: BenchRun,
): Promise<void> {
  const out = new Recorder(({ workload, value, unit }) => {
    console.error(`${system.name}: ${workload}: ${value.toFixed(2)} ${unit}`);
  });
  try {
    const directory = await system.up();
    const pids = system.pids?.() ?? new Map();
    const before = residentMemory(pids);
    await runSuite(directory, { groups, sizes, remount: () => system.remount() }, out);
    const after = residentMemory(pids);
    if (system.name === run.passes[0]?.system || run.passes.length === 0) {
      run.memory = [...before].map(([name, bytes]) => ({ name, before: bytes, after: after.get(name) ?? 0 }));
    }
    run.passes.push({ system: system.name, figures: out.figures, skipped: out.skipped });
  } finally {
    await system.down();
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

async function write(run: BenchRun): Promise<void> {
  const base = join(ROOT, 'docs', 'benchmarks');
  writeFileSync(`${base}.md`, markdown(run));
  writeFileSync(`${base}.json`, `${JSON.stringify({ ...run, rows: rowsOf(run) }, null, 1)}\n`);
  writeFileSync(`${base}.svg`, await ratioChart(run));
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      passes: { type: 'string', default: '3' },
      mib: { type: 'string', default: '512' },
      seconds: { type: 'string', default: '10' },
      files: { type: 'string', default: '2000' },
      only: { type: 'string', default: GROUPS.join(',') },
      peers: { type: 'boolean', default: false },
      compare: { type: 'string' },
      soak: { type: 'string' },
      write: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  if (values.soak !== undefined) {
    await soak(Number(values.soak), residentMemory);
    return;
  }
  const groups = GROUPS.filter((group) => values.only.split(',').includes(group));
  if (groups.length === 0) throw new Error(`--only ${values.only}: there are ${GROUPS.join(', ')}`);
  const sizes = {
    sequentialMib: Number(values.mib),
    seconds: Number(values.seconds),
    files: Number(values.files),
  };
  const command = ['npm run bench --', ...process.argv.slice(2)].join(' ');
  const run: BenchRun = { machine: machine(), command, passes: [], memory: [], absent: [] };
  const systems = [holdfastSystem(), localDisk(), ...(values.peers ? presentPeers(run) : [])];
  const other = values.compare === undefined ? undefined : await buildRevision(values.compare);
  const interrupted = (signal: NodeJS.Signals): void => {
    console.error(`${signal}: taking everything down`);
    void Promise.allSettled(systems.map((system) => system.down())).then(() =>
      process.exit(EXIT_INTERRUPTED),
    );
  };
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);
  try {
    if (other) systems.push(holdfastSystem(`Holdfast ${values.compare}`, other.main));
    for (let pass = 1; pass <= Number(values.passes); pass++) {
      for (const system of systems) await measure(system, groups, sizes, run);
      console.error(`pass ${pass} of ${values.passes} done`);
    }
  } finally {
    await other?.remove();
  }
  process.stdout.write(`${markdown(run)}\n`);
  if (values.write) await write(run);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
