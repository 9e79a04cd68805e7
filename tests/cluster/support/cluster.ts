import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type CommandResult,
  type RunOptions,
  run as runChild,
  sh as runShell,
} from '../../../cli/bench/child.js';
import type { ClusterStatus } from '../../../cli/cluster-status.js';
import { systemClock } from '../../../common/clock.js';
import { AdminServiceDefinition } from '../../../proto/gen/admin.js';
import { RpcClient } from '../../../proto/rpc.js';
import { takePorts } from '../../ports.js';

/** A real cluster in real processes, and child processes that use its mount. */

export type { CommandResult };

/** Built to dist/tests/cluster/support/. */
export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', '..');
const MAIN = join(ROOT, 'dist', 'cli', 'main.js');
const START_TIMEOUT_MS = 90_000;
const STOP_TIMEOUT_MS = 60_000;
const COMMAND_TIMEOUT_MS = 280_000;
const CALL_TIMEOUT_MS = 10_000;
const POLL_MS = 50;

type ChildOptions = Partial<RunOptions>;

const withDefaults = (options: ChildOptions): RunOptions => ({
  cwd: ROOT,
  timeoutMs: COMMAND_TIMEOUT_MS,
  ...options,
  env: { UV_THREADPOOL_SIZE: '16', ...options.env },
});

/** Runs a command; never throws for its exit code. A command that outlives the time is killed and reported as such. */
export function run(command: string, args: string[], options: ChildOptions = {}): Promise<CommandResult> {
  return runChild(command, args, withDefaults(options));
}

/** Runs a shell script with `set -e`. @throws Error with its output when it fails */
export function sh(script: string, options: ChildOptions = {}): Promise<string> {
  return runShell(script, withDefaults(options));
}

/** Runs JavaScript in a child process: `fs` and `path` are there, `args` are its arguments. */
export async function nodeScript(
  code: string,
  args: string[] = [],
  timeoutMs = COMMAND_TIMEOUT_MS,
): Promise<string> {
  const prelude =
    "const fs = require('node:fs'); const path = require('node:path'); const args = process.argv.slice(1);\n";
  const result = await run(
    process.execPath,
    [
      '-e',
      `${prelude}(async () => {${code}\n})().catch((e) => { console.error(e); process.exit(1); });`,
      ...args,
    ],
    { timeoutMs, cwd: '/' },
  );
  if (result.code !== 0) throw new Error(`node script failed: ${result.stderr.slice(-2000)}`);
  return result.stdout;
}

/** The holdfast command. */
export function holdfast(
  args: string[],
  options: { cwd?: string; timeoutMs?: number } = {},
): Promise<CommandResult> {
  return run(process.execPath, [MAIN, ...args], options);
}

/** Polls until `done` gives something true. @throws Error naming what was waited for */
export async function eventually<T>(
  what: string,
  done: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 60_000,
): Promise<T> {
  const end = systemClock.now() + timeoutMs;
  for (;;) {
    const value = await done();
    if (value) return value;
    if (systemClock.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await new Promise<void>((resolve) => systemClock.after(POLL_MS, resolve));
  }
}

/** A temporary directory of the tests. */
export function temporaryDirectory(name: string): string {
  return mkdtempSync(join(tmpdir(), `holdfast-${name}-`));
}

const PORTS_OF_A_CLUSTER = 50;

/** A cluster started by `holdfast up`. */
export class TestCluster {
  readonly root: string;
  readonly dir: string;
  readonly data: string;
  readonly #flags: string[];
  readonly #main: string;
  #up: ChildProcess | undefined;
  #output = '';
  /** Pids of further mounts, by directory. */
  readonly #mounts = new Map<string, number>();

  /** @param main the command of another build, to compare with */
  constructor(name: string, flags: string[] = [], main = MAIN) {
    this.#main = main;
    this.root = temporaryDirectory(name);
    this.dir = join(this.root, 'mnt');
    this.data = join(this.root, 'data');
    this.#flags = flags;
    mkdirSync(this.dir);
  }

  #holdfast(args: string[], options: { timeoutMs?: number } = {}): Promise<CommandResult> {
    return run(process.execPath, [this.#main, ...args], options);
  }

  /** The first start says where: a cluster that is down for a moment must find its ports free again. */
  #ports(): string[] {
    if (this.#flags.includes('--port') || existsSync(join(this.data, 'cluster.json'))) return [];
    return ['--port', String(takePorts(PORTS_OF_A_CLUSTER))];
  }

  /** Everything `up` printed. */
  get output(): string {
    return this.#output;
  }

  /** Starts it and waits for `ready:`. */
  async up(extra: string[] = []): Promise<void> {
    this.#output = '';
    const child = spawn(
      process.execPath,
      [this.#main, 'up', this.dir, '--data', this.data, ...this.#ports(), ...this.#flags, ...extra],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, UV_THREADPOOL_SIZE: '16', LC_ALL: 'C.UTF-8' },
      },
    );
    this.#up = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk) => {
        this.#output += String(chunk);
      });
    }
    await eventually(
      '`holdfast up` says ready',
      () => {
        if (this.#output.includes(`ready: ${this.dir}`)) return true;
        if (child.exitCode !== null) throw new Error(`up ended with ${child.exitCode}: ${this.#output}`);
        return false;
      },
      START_TIMEOUT_MS,
    ).catch((error: Error) => {
      throw new Error(`${error.message}\n${this.#output}\n${this.logs()}`);
    });
  }

  /** SIGTERM; waits for its end. @returns the exit code */
  async down(): Promise<number | null> {
    const child = this.#up;
    if (!child) return 0;
    this.#up = undefined;
    child.kill('SIGTERM');
    await eventually(
      '`holdfast up` ends',
      () => child.exitCode !== null || child.signalCode !== null,
      STOP_TIMEOUT_MS,
    );
    return child.exitCode;
  }

  /** kill -9 of every process, the supervisor first, as when the machine's processes all die. */
  async crashAll(): Promise<void> {
    const child = this.#up;
    this.#up = undefined;
    const pids = this.pids();
    child?.kill('SIGKILL');
    for (const pid of pids.values()) kill(pid);
    await eventually(
      'all processes are gone',
      () => [...pids.values()].every((pid) => !existsSync(`/proc/${pid}`)),
      STOP_TIMEOUT_MS,
    );
    spawnSync('umount', ['-l', this.dir]);
  }

  /** Names of running servers and the mount, with their pids. */
  pids(): Map<string, number> {
    const run = join(this.data, 'run');
    const found = new Map<string, number>();
    if (!existsSync(run)) return found;
    for (const file of readdirSync(run)) {
      if (!file.endsWith('.pid') || file === 'up.pid') continue;
      found.set(file.slice(0, -4), Number(readFileSync(join(run, file), 'utf8')));
    }
    return found;
  }

  pid(name: string): number {
    const pid = this.pids().get(name);
    if (pid === undefined) throw new Error(`${name} does not run`);
    return pid;
  }

  async status(): Promise<ClusterStatus> {
    const result = await this.#holdfast(['status', '--data', this.data, '--json']);
    return JSON.parse(result.stdout) as ClusterStatus;
  }

  async waitHealthy(timeoutMs = 60_000): Promise<ClusterStatus> {
    return eventually(
      'the cluster is healthy',
      async () => {
        const status = await this.status().catch(() => undefined);
        return status?.healthy ? status : undefined;
      },
      timeoutMs,
    );
  }

  /** A further mount; gone with destroy(). @returns its directory */
  async mount(name: string, flags: string[] = []): Promise<string> {
    const dir = join(this.root, name);
    mkdirSync(dir, { recursive: true });
    const result = await this.#holdfast(['mount', dir, '--data', this.data, '--json', ...flags]);
    if (result.code !== 0) throw new Error(`mount failed: ${result.stderr}${result.stdout}`);
    this.#mounts.set(dir, (JSON.parse(result.stdout) as { pid: number }).pid);
    return dir;
  }

  async umount(dir: string): Promise<CommandResult> {
    this.#mounts.delete(dir);
    return this.#holdfast(['umount', dir]);
  }

  /** The process of a further mount. */
  mountPid(dir: string): number {
    const pid = this.#mounts.get(dir);
    if (pid === undefined) throw new Error(`${dir} is not mounted`);
    return pid;
  }

  /** kill -9 of a further mount; its directory is empty then, and can be mounted again. */
  async crashMount(dir: string): Promise<void> {
    const pid = this.mountPid(dir);
    kill(pid);
    await eventually('the mount is gone', () => !existsSync(`/proc/${pid}`), STOP_TIMEOUT_MS);
    spawnSync('umount', ['-l', dir]);
    this.#mounts.delete(dir);
  }

  /** Another metaserver leads from now on. */
  async handOver(): Promise<void> {
    const { leader } = await this.waitHealthy();
    const client = new RpcClient(leader?.address as string);
    try {
      const { fullName, methods } = AdminServiceDefinition;
      await client.unary(fullName, methods.transferLeader, { to: 0 }, CALL_TIMEOUT_MS);
    } finally {
      client.close();
    }
  }

  /** The last lines of every log, for a failure's message. */
  logs(lines = 15): string {
    return logTails(this.data, lines);
  }

  /** Stops and removes everything, whatever state it is in. */
  async destroy(): Promise<void> {
    for (const dir of [...this.#mounts.keys()]) await this.umount(dir).catch(() => undefined);
    await this.down().catch(() => undefined);
    for (const pid of this.pids().values()) if (isOurs(pid)) kill(pid);
    for (const mount of mountsBelow(this.root)) spawnSync('umount', ['-l', mount]);
    rmSync(this.root, { recursive: true, force: true });
  }
}

/** The last lines of every log below a cluster's data directory. */
export function logTails(data: string, lines: number): string {
  const dir = join(data, 'log');
  if (!existsSync(dir)) return '';
  const tail = (file: string): string =>
    readFileSync(join(dir, file), 'utf8').split('\n').slice(-lines).join('\n');
  return readdirSync(dir)
    .map((file) => `== ${file}\n${tail(file)}`)
    .join('\n');
}

function isOurs(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('cli/main.js');
  } catch {
    return false;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // gone already
  }
}

/** Mount points below a directory, deepest first. */
export function mountsBelow(root: string): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((mount) => mount === root || mount.startsWith(`${root}/`))
    .reverse();
}
