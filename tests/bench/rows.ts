import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { nodeScript, run, sh } from '../cluster/support/cluster.js';

/** One figure of one workload on one directory. */
export interface Figure {
  workload: string;
  value: number;
  unit: string;
  higherIsBetter: boolean;
}

export interface BenchTarget {
  dir: string;
  /** Drops caches: the client's by mounting anew, the kernel's by drop_caches. Gives the directory to go on with. */
  cold: () => Promise<string>;
}

export interface BenchSizes {
  /** Of the file for sequential rows, MiB. */
  sequentialMib: number;
  /** Of each random row, seconds. */
  seconds: number;
  /** Files of the metadata rows. */
  files: number;
  /** A tar archive of a source tree. */
  archive: string;
}

const FIO_TIMEOUT_MS = 300_000;

interface FioSide {
  io_bytes: number;
  runtime: number;
  total_ios: number;
  iops: number;
  clat_ns: { percentile?: Record<string, number> };
}

/** Runs one fio job. @throws Error when fio fails or reports an error */
async function fio(args: string[]): Promise<{ read: FioSide; write: FioSide }> {
  const result = await run(
    'fio',
    [
      '--name=bench',
      '--ioengine=psync',
      '--group_reporting',
      '--fallocate=none',
      '--output-format=json',
      ...args,
    ],
    { timeoutMs: FIO_TIMEOUT_MS, cwd: '/' },
  );
  if (result.code !== 0)
    throw new Error(`fio failed: ${result.stderr.slice(-500)}${result.stdout.slice(-500)}`);
  const report = JSON.parse(result.stdout.slice(result.stdout.indexOf('{'))) as {
    jobs: { error: number; read: FioSide; write: FioSide }[];
  };
  const job = report.jobs[0];
  if (job?.error !== 0) throw new Error(`fio reports error ${job?.error}`);
  return job;
}

const megabytesPerSecond = (side: FioSide): number => side.io_bytes / side.runtime / 1000;
const perSecond = (side: FioSide): number => (side.total_ios / side.runtime) * 1000;

/** The fio rows. @returns the figures and the directory to go on with */
export async function fioRows(
  target: BenchTarget,
  sizes: BenchSizes,
): Promise<{ figures: Figure[]; dir: string }> {
  const figures: Figure[] = [];
  const add = (workload: string, value: number, unit: string, higherIsBetter = true): void => {
    figures.push({ workload, value, unit, higherIsBetter });
  };
  let dir = target.dir;
  const file = (): string => `--filename=${join(dir, 'seq.dat')}`;
  const size = `--size=${sizes.sequentialMib}M`;
  add(
    'sequential write 1 MiB + fsync',
    megabytesPerSecond((await fio([file(), size, '--rw=write', '--bs=1M', '--end_fsync=1'])).write),
    'MB/s',
  );
  dir = await target.cold();
  add(
    'sequential read 1 MiB, cold',
    megabytesPerSecond((await fio([file(), size, '--rw=read', '--bs=1M', '--invalidate=0'])).read),
    'MB/s',
  );
  dir = await target.cold();
  const quarter = Math.floor(sizes.sequentialMib / 4);
  const random = [
    file(),
    `--size=${quarter}M`,
    `--offset_increment=${quarter}M`,
    '--numjobs=4',
    '--bs=4k',
    '--invalidate=0',
  ];
  const timed = [`--runtime=${sizes.seconds}`];
  add(
    'random read 4 KiB, cold, 4 jobs',
    perSecond((await fio([...random, '--rw=randread', ...timed])).read),
    'IOPS',
  );
  add(
    'random write 4 KiB, 4 jobs, fsync at end',
    perSecond((await fio([...random, '--rw=randwrite', '--end_fsync=1', '--time_based', ...timed])).write),
    'IOPS',
  );
  const synced = (
    await fio([file(), size, '--bs=4k', '--rw=randwrite', '--fsync=1', '--time_based', ...timed])
  ).write;
  add('write 4 KiB + fsync, 1 job', perSecond(synced), '/s');
  await sh(`rm -f ${join(dir, 'seq.dat')}`);
  return { figures, dir };
}

/** Each phase over all files, timed inside the child; prints seconds as JSON. */
const FILE_PHASES = `
  const [root, count, phase] = [args[0], Number(args[1]), args[2]];
  const data = Buffer.alloc(4096, 120); const buffer = Buffer.alloc(4096);
  const name = (i) => path.join(root, 'f' + i);
  const phases = {
    create: (i) => { const f = fs.openSync(name(i), 'w'); fs.writeSync(f, data); fs.closeSync(f); },
    stat: (i) => fs.statSync(name(i)),
    read: (i) => { const f = fs.openSync(name(i)); if (fs.readSync(f, buffer) !== 4096) throw new Error('short'); fs.closeSync(f); },
    rename: (i) => fs.renameSync(name(i), name(i) + 'r'),
    unlink: (i) => fs.unlinkSync(name(i) + 'r'),
  };
  const start = process.hrtime.bigint();
  for (let i = 0; i < count; i++) phases[phase](i);
  console.log(Number(process.hrtime.bigint() - start) / 1e9);`;

/** Create, stat, read, rename and unlink of small files, and a tree by tar and rm. */
export async function fileRows(target: BenchTarget, sizes: BenchSizes): Promise<Figure[]> {
  const figures: Figure[] = [];
  let dir = target.dir;
  mkdirSync(join(dir, 'files'), { recursive: true });
  const phase = async (name: string, label: string): Promise<void> => {
    const seconds = Number(
      await nodeScript(FILE_PHASES, [join(dir, 'files'), String(sizes.files), name], FIO_TIMEOUT_MS),
    );
    figures.push({ workload: label, value: sizes.files / seconds, unit: '/s', higherIsBetter: true });
  };
  await phase('create', 'create + write 4 KiB + close');
  dir = await target.cold();
  await phase('stat', 'stat, cold');
  await phase('stat', 'stat, warm');
  dir = await target.cold();
  await phase('read', 'open + read + close, cold');
  await phase('read', 'open + read + close, warm');
  await phase('rename', 'rename');
  await phase('unlink', 'unlink');
  rmSync(join(dir, 'files'), { recursive: true, force: true });
  const seconds = async (label: string, script: string): Promise<void> => {
    const text = await sh(`start=$(date +%s%N); ${script}; echo $(( $(date +%s%N) - start ))`, {
      cwd: dir,
      timeoutMs: FIO_TIMEOUT_MS,
    });
    figures.push({
      workload: label,
      value: Number(text.trim().split('\n').at(-1)) / 1e9,
      unit: 's',
      higherIsBetter: false,
    });
  };
  await seconds('tar x of 2,100 files', `tar xf ${sizes.archive}`);
  await seconds('rm -rf of them', 'rm -rf src');
  return figures;
}
