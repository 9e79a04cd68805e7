import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from './child.js';
import type { BenchSizes, BenchTarget, Recorder } from './workloads.js';

const FIO_TIMEOUT_MS = 300_000;
const RANDOM_JOBS = 4;

interface FioSide {
  io_bytes: number;
  runtime: number;
  total_ios: number;
}

/** Runs one fio job. @throws Error when fio is missing, fails, or reports an error */
async function fio(args: string[]): Promise<{ read: FioSide; write: FioSide }> {
  const common = [
    '--name=bench',
    '--ioengine=psync',
    '--group_reporting',
    '--fallocate=none',
    '--output-format=json',
  ];
  const result = await run('fio', [...common, ...args], { timeoutMs: FIO_TIMEOUT_MS });
  if (result.code !== 0) {
    throw new Error(`fio failed: ${result.stderr.slice(-300)} ${result.stdout.slice(-300)}`);
  }
  const report = JSON.parse(result.stdout.slice(result.stdout.indexOf('{'))) as {
    jobs: { error: number; read: FioSide; write: FioSide }[];
  };
  const job = report.jobs[0];
  if (job?.error !== 0) throw new Error(`fio reports error ${job?.error}`);
  return job;
}

const megabytesPerSecond = (side: FioSide): number => side.io_bytes / side.runtime / 1000;
const perSecond = (side: FioSide): number => (side.total_ios / side.runtime) * 1000;

/** Large requests in order: write with fsync, read cold, read warm. */
export async function sequentialRows(target: BenchTarget, sizes: BenchSizes, out: Recorder): Promise<void> {
  const args = (): string[] => [`--filename=${file(target)}`, `--size=${sizes.sequentialMib}M`, '--bs=1M'];
  await out.attempt('sequential write 1 MiB + fsync', async () => {
    const { write } = await fio([...args(), '--rw=write', '--end_fsync=1']);
    out.add('sequential write 1 MiB + fsync', megabytesPerSecond(write), 'MB/s');
  });
  await target.cold();
  for (const state of ['cold', 'warm']) {
    await out.attempt(`sequential read 1 MiB, ${state}`, async () => {
      const { read } = await fio([...args(), '--rw=read', '--invalidate=0']);
      out.add(`sequential read 1 MiB, ${state}`, megabytesPerSecond(read), 'MB/s');
    });
  }
  await rm(file(target), { force: true });
}

/** 4 KiB at random places of a file that exists: each job has a quarter of it to itself. */
export async function randomRows(target: BenchTarget, sizes: BenchSizes, out: Recorder): Promise<void> {
  const quarter = Math.floor(sizes.sequentialMib / RANDOM_JOBS);
  const random = (): string[] => [
    `--filename=${file(target)}`,
    `--size=${quarter}M`,
    `--offset_increment=${quarter}M`,
    `--numjobs=${RANDOM_JOBS}`,
    '--bs=4k',
    '--invalidate=0',
    `--runtime=${sizes.seconds}`,
  ];
  await fio([
    `--filename=${file(target)}`,
    `--size=${sizes.sequentialMib}M`,
    '--bs=1M',
    '--rw=write',
    '--end_fsync=1',
  ]);
  await target.cold();
  await out.attempt('random read 4 KiB, cold, 4 jobs', async () => {
    const { read } = await fio([...random(), '--rw=randread']);
    out.add('random read 4 KiB, cold, 4 jobs', perSecond(read), 'IOPS');
  });
  await out.attempt('random write 4 KiB, 4 jobs, fsync at end', async () => {
    const { write } = await fio([...random(), '--rw=randwrite', '--end_fsync=1', '--time_based']);
    out.add('random write 4 KiB, 4 jobs, fsync at end', perSecond(write), 'IOPS');
  });
  await rm(file(target), { force: true });
}

function file(target: BenchTarget): string {
  return join(target.dir(), 'fio.dat');
}
