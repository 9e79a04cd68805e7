import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

/**
 * The child process that makes system calls for `holdfast bench`, so that a hanging mount can be given up. Arguments:
 * phase, directory, count (files, or seconds of a commit phase), writers, number of the first file, and when to begin
 * (seconds of the machine's monotonic clock). Prints one JSON line, a WorkerResult. With one writer the calls are
 * synchronous; more are as many loops over the thread pool (UV_THREADPOOL_SIZE).
 */
export interface WorkerResult {
  operations: number;
  seconds: number;
  /** Of one operation, microseconds; only commit phases. */
  p50?: number;
  p99?: number;
  /** When the first operation began and the last ended, seconds of the machine's monotonic clock; only synchronous phases. */
  begun?: number;
  ended?: number;
}

const FILE_BYTES = 4096;
const COMMIT_FILE_BYTES = 16 * 1024 * 1024;
const data = Buffer.alloc(FILE_BYTES, 'holdfast');
const buffer = Buffer.alloc(FILE_BYTES);

const open = promisify(fs.open);
const write = promisify(fs.write) as (
  fd: number,
  bytes: Buffer,
  at: number,
  length: number,
  position: number,
) => Promise<unknown>;
const fsync = promisify(fs.fsync);
const close = promisify(fs.close);

/** Of CLOCK_MONOTONIC: the same in all processes of the machine. */
const now = (): number => Number(process.hrtime.bigint()) / 1e9;

const PHASES: Record<string, (dir: string, i: number) => void> = {
  create(dir, i) {
    const fd = fs.openSync(join(dir, `f${i}`), 'wx');
    fs.writeSync(fd, data);
    fs.closeSync(fd);
  },
  read(dir, i) {
    const fd = fs.openSync(join(dir, `f${i}`), 'r');
    if (fs.readSync(fd, buffer) !== FILE_BYTES) throw new Error(`f${i} is short`);
    fs.closeSync(fd);
  },
  rename: (dir, i) => fs.renameSync(join(dir, `f${i}`), join(dir, `g${i}`)),
  unlink: (dir, i) => fs.unlinkSync(join(dir, `g${i}`)),
  mkdir: (dir, i) => fs.mkdirSync(join(dir, `d${i}`)),
  rmdir: (dir, i) => fs.rmdirSync(join(dir, `d${i}`)),
};

/** Names that one stat is given: their bytes stay far below what a command line may have. */
const NAMES_MAX = 10_000;

/**
 * Attributes are asked for by the tools that people use: Node asks for the birth time with every stat, which FUSE carries
 * in a request of its own, and which ls, find, git and most programs never ask for. The tool's start counts.
 */
const TOOLS: Record<string, (dir: string, count: number) => void> = {
  stat(dir, count) {
    for (let first = 0; first < count; first += NAMES_MAX) {
      const length = Math.min(NAMES_MAX, count - first);
      const names = Array.from({ length }, (_, i) => `f${first + i}`);
      runTool(dir, 'stat', '-c', '%s', ...names);
    }
  },
  list: (dir) => runTool(dir, 'ls', '-l'),
};

function runTool(cwd: string, command: string, ...args: string[]): void {
  execFileSync(command, args, { cwd, stdio: ['ignore', 'ignore', 'inherit'] });
}

/** Operations that several writers make at once. */
const PARALLEL: Record<string, (dir: string, i: number) => Promise<void>> = {
  /** A durable create: file and directory are synced. */
  async 'commit-create'(dir, i) {
    const fd = await open(join(dir, `c${i}`), 'wx');
    await write(fd, data, 0, FILE_BYTES, 0);
    await fsync(fd);
    await close(fd);
    const parent = await open(dir, 'r');
    await fsync(parent);
    await close(parent);
  },
};

/** For so long: each writer repeats one operation and notes how long it took. */
async function timed(phase: string, dir: string, seconds: number, writers: number): Promise<WorkerResult> {
  const latencies: number[] = [];
  const start = now();
  let serial = 0;
  const loop = async (writer: number): Promise<void> => {
    const fd = phase === 'commit' ? await open(join(dir, `commit-${writer}`), 'w') : -1;
    const blocks = COMMIT_FILE_BYTES / FILE_BYTES;
    for (let i = 0; now() - start < seconds; i++) {
      const begun = now();
      if (fd >= 0) {
        await write(fd, data, 0, FILE_BYTES, ((i * 7919) % blocks) * FILE_BYTES);
        await fsync(fd);
      } else await PARALLEL['commit-create']?.(dir, serial++);
      latencies.push(now() - begun);
    }
    if (fd >= 0) await close(fd);
  };
  await Promise.all(Array.from({ length: writers }, (_, writer) => loop(writer)));
  const elapsed = now() - start;
  latencies.sort((a, b) => a - b);
  const at = (part: number): number => (latencies[Math.floor(latencies.length * part)] ?? 0) * 1e6;
  return { operations: latencies.length, seconds: elapsed, p50: at(0.5), p99: at(0.99) };
}

async function main(): Promise<WorkerResult> {
  const [phase = '', dir = '', count = '0', writers = '1', first = '0', at = '0'] = process.argv.slice(2);
  if (phase === 'commit' || phase === 'commit-create')
    return timed(phase, dir, Number(count), Number(writers));
  const operation = PHASES[phase];
  const tool = TOOLS[phase];
  if (!operation && !tool) throw new Error(`unknown phase ${phase}`);
  const wait = (Number(at) - now()) * 1000;
  if (wait > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, wait);
  const begun = now();
  tool?.(dir, Number(count));
  if (operation) for (let i = 0; i < Number(count); i++) operation(dir, Number(first) + i);
  const ended = now();
  return { operations: Number(count), seconds: ended - begun, begun, ended };
}

main().then(
  (result) => console.log(JSON.stringify(result)),
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  },
);
