import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT, sh, TestCluster, temporaryDirectory } from '../cluster/support/cluster.js';
import { writeSourceTree } from '../cluster/support/source-tree.js';
import { type BenchRun, markdown, rows } from './report.js';
import { type BenchSizes, type BenchTarget, type Figure, fileRows, fioRows } from './rows.js';
import { soak } from './soak.js';

const HELP = `npm run bench [-- options]: measures a cluster of this machine beside its local disk
  --passes N       passes, interleaved; medians are reported (default 3)
  --mib N          size of the file of the sequential rows, MiB (default 512)
  --seconds N      length of each random row (default 10)
  --files N        files of the metadata rows (default 2000)
  --write          write docs/benchmarks.md and docs/benchmarks.json
  --soak N         instead: N operations on one mount, memory of every process along the way
`;

function machine(): string {
  const model = cpus()[0]?.model ?? 'unknown CPU';
  return `${cpus().length} cores (${model}), ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`;
}

/** Resident memory of every process of a cluster, bytes. */
export function residentMemory(cluster: TestCluster): Map<string, number> {
  const memory = new Map<string, number>();
  for (const [name, pid] of cluster.pids()) {
    if (!existsSync(`/proc/${pid}`)) continue;
    const kib = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    memory.set(name, Number(kib ?? 0) * 1024);
  }
  return memory;
}

async function dropCaches(): Promise<void> {
  await sh('sync; echo 3 > /proc/sys/vm/drop_caches');
}

async function pass(target: BenchTarget, sizes: BenchSizes): Promise<Figure[]> {
  const { figures, dir } = await fioRows(target, sizes);
  return [...figures, ...(await fileRows({ ...target, dir }, sizes))];
}

function clusterTarget(cluster: TestCluster): BenchTarget {
  let current: string | undefined;
  let count = 0;
  const cold = async (): Promise<string> => {
    if (current && (await cluster.umount(current)).code !== 0) throw new Error(`cannot unmount ${current}`);
    current = await cluster.mount(`bench-${process.pid}-${count++}`);
    await dropCaches();
    return current;
  };
  return { dir: cluster.dir, cold };
}

async function bench(sizes: BenchSizes, passes: number, work: string): Promise<BenchRun> {
  const cluster = new TestCluster('bench');
  const run: BenchRun = {
    machine: machine(),
    command: ['npm run bench --', ...process.argv.slice(2)].join(' '),
    mount: [],
    local: [],
    memory: [],
  };
  try {
    await cluster.up();
    await cluster.waitHealthy();
    const before = residentMemory(cluster);
    const mounted = clusterTarget(cluster);
    for (let i = 0; i < passes; i++) {
      const local = join(work, 'local');
      mkdirSync(local);
      const coldLocal = async (): Promise<string> => {
        await dropCaches();
        return local;
      };
      run.local.push(await pass({ dir: local, cold: coldLocal }, sizes));
      rmSync(local, { recursive: true });
      run.mount.push(await pass(mounted, sizes));
      console.error(`pass ${i + 1} of ${passes} done`);
    }
    const after = residentMemory(cluster);
    run.memory = [...before].map(([name, bytes]) => ({ name, before: bytes, after: after.get(name) ?? 0 }));
    return run;
  } finally {
    await cluster.destroy();
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      passes: { type: 'string', default: '3' },
      mib: { type: 'string', default: '512' },
      seconds: { type: 'string', default: '10' },
      files: { type: 'string', default: '2000' },
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
  const work = temporaryDirectory('bench-local');
  try {
    writeSourceTree(join(work, 'src'));
    await sh('tar cf tree.tar src && rm -rf src', { cwd: work });
    const sizes = {
      sequentialMib: Number(values.mib),
      seconds: Number(values.seconds),
      files: Number(values.files),
      archive: join(work, 'tree.tar'),
    };
    const result = await bench(sizes, Number(values.passes), work);
    process.stdout.write(`${markdown(result)}\n`);
    if (values.write) {
      writeFileSync(join(ROOT, 'docs', 'benchmarks.md'), markdown(result));
      writeFileSync(
        join(ROOT, 'docs', 'benchmarks.json'),
        `${JSON.stringify({ ...result, rows: rows(result) }, null, 2)}\n`,
      );
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
