import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { delay, systemClock } from '../../common/clock.js';
import { run } from './child.js';
import type { WorkerResult } from './file-worker.js';
import type { BenchSizes, BenchTarget, Recorder } from './workloads.js';

const WORKER = fileURLToPath(new URL('./file-worker.js', import.meta.url));
const PHASE_TIMEOUT_MS = 300_000;
const CREATE_PROCESSES = 8;
/** They all run by then, and begin at once. */
const PROCESS_START_S = 3;
/** Group commit shows with many writers. */
const COMMIT_WRITERS = [1, 32];

/** Runs one phase of the file worker. @throws Error what the child complained of */
export async function worker(
  phase: string,
  dir: string,
  count: number,
  writers = 1,
  ...begin: number[]
): Promise<WorkerResult> {
  const args = [phase, dir, ...[count, writers, ...begin].map(String)];
  const result = await run(process.execPath, [WORKER, ...args], {
    timeoutMs: PHASE_TIMEOUT_MS,
    env: { UV_THREADPOOL_SIZE: String(Math.max(4, writers)) },
  });
  if (result.code !== 0) throw new Error(`${phase}: ${result.stderr.slice(-300)}`);
  return JSON.parse(result.stdout) as WorkerResult;
}

/** Creates by several processes in one directory at once, /s of all together. */
async function createRate(dir: string, files: number, processes: number, out: Recorder): Promise<number> {
  const each = Math.ceil(files / processes);
  const at = Number(process.hrtime.bigint()) / 1e9 + PROCESS_START_S;
  const workers = Array.from({ length: processes }, (_, i) => worker('create', dir, each, 1, i * each, at));
  await Promise.race([delay(systemClock, PROCESS_START_S * 1000), Promise.all(workers)]);
  out.begin();
  const all = await Promise.all(workers);
  const begun = Math.min(...all.map((one) => one.begun ?? at));
  const ended = Math.max(...all.map((one) => one.ended ?? at));
  return (each * processes) / (ended - begun);
}

const perSecond = ({ operations, seconds }: WorkerResult): number => operations / seconds;

/**
 * Create, stat, read, list, rename and unlink of small files; directories; creates by several writers at once. What needs no
 * cold mount, or names that it has looked up, comes before the first one: a client that was made anew is slow for a while.
 */
export async function fileRows(target: BenchTarget, sizes: BenchSizes, out: Recorder): Promise<void> {
  const files = (): string => join(target.dir(), 'files');
  const rate = (label: string, phase: string, dir = files): Promise<void> =>
    out.attempt(label, async () => {
      out.add(label, perSecond(await worker(phase, dir(), sizes.files)), '/s');
    });
  const listing = (label: string): Promise<void> =>
    out.attempt(label, async () => {
      out.add(label, (await worker('list', files(), 1)).seconds * 1000, 'ms', false);
    });
  await mkdir(files());
  await rate('create + write 4 KiB + close', 'create');
  const parallel = (): string => join(target.dir(), 'parallel');
  await mkdir(parallel());
  await out.attempt('create + write 4 KiB + close, 8 at once', async () => {
    const value = await createRate(parallel(), sizes.files, CREATE_PROCESSES, out);
    out.add('create + write 4 KiB + close, 8 at once', value, '/s');
  });
  const directories = (): string => join(target.dir(), 'directories');
  await mkdir(directories());
  await rate('mkdir', 'mkdir', directories);
  await rate('rmdir', 'rmdir', directories);
  await target.cold();
  await rate('stat, cold', 'stat');
  await rate('stat, warm', 'stat');
  await target.cold();
  await rate('open + read + close, cold', 'read');
  await rate('open + read + close, warm', 'read');
  await target.cold();
  await listing('ls -l of all, cold');
  await listing('ls -l of all, warm');
  await rate('rename', 'rename');
  await rate('unlink', 'unlink');
  for (const dir of [files(), parallel(), directories()]) await rm(dir, { recursive: true, force: true });
}

/** Small writes and creates that are synced each: latency with one writer, throughput with many. */
export async function commitRows(target: BenchTarget, sizes: BenchSizes, out: Recorder): Promise<void> {
  const phases = [
    { phase: 'commit', label: 'write 4 KiB + fsync' },
    { phase: 'commit-create', label: 'create + write + fsync of file and directory' },
  ];
  for (const { phase, label } of phases) {
    for (const writers of COMMIT_WRITERS) {
      const name = `${label}, ${writers} writer${writers > 1 ? 's' : ''}`;
      await out.attempt(name, async () => {
        const dir = join(target.dir(), phase);
        await mkdir(dir);
        const result = await worker(phase, dir, sizes.seconds, writers);
        out.add(name, perSecond(result), '/s');
        if (writers === 1) out.add(`${name}, p50`, result.p50 ?? 0, 'us', false);
        await rm(dir, { recursive: true, force: true });
      });
    }
  }
}
