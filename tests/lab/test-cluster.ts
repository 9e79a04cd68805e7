import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { clusterFilePath, metaAddresses, readClusterFile } from '../../cli/cluster-file.js';
import { type ClusterStatus, StatusReader, UNANSWERED } from '../../cli/cluster-status.js';
import { isHoldfast } from '../../cli/run-files.js';
import { AdminServiceDefinition } from '../../proto/gen/admin.js';
import { RpcClient } from '../../proto/rpc.js';
import { takePorts } from '../ports.js';
import { logTails, untilHealthy } from './cluster-state.js';
import { type CommandResult, ENVIRONMENT, MAIN, run } from './command.js';
import { detachMounts, temporaryDirectory } from './directories.js';
import { eventually } from './eventually.js';
import { isAlive, kill } from './processes.js';

const START_TIMEOUT_MS = 90_000;
const STOP_TIMEOUT_MS = 60_000;
const CALL_TIMEOUT_MS = 10_000;
/** As `holdfast status` waits for each metaserver. */
const STATUS_TIMEOUT_MS = 2_000;
const PORTS_OF_A_CLUSTER = 50;

/** For tests of what a mount answers, on which the number of servers has no bearing: half the processes to start and to feed. */
export const ONE_OF_EACH: readonly string[] = [
  ...['--metaservers', '1'],
  ...['--chunkservers', '1'],
  ...['--replicas', '1'],
];

/** A cluster started by `holdfast up`. */
export class TestCluster {
  readonly root: string;
  readonly dir: string;
  readonly data: string;
  readonly #flags: readonly string[];
  readonly #main: string;
  #up: ChildProcess | undefined;
  #output = '';
  /** Pids of further mounts, by directory. */
  readonly #mounts = new Map<string, number>();

  /** @param main the command of another build, to compare with */
  constructor(name: string, flags: readonly string[] = [], main = MAIN) {
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
        env: { ...process.env, ...ENVIRONMENT },
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
    await eventually('all processes are gone', () => ![...pids.values()].some(isAlive), STOP_TIMEOUT_MS);
    detachMounts(this.dir);
  }

  /** Names of running servers and the mount, with their pids. */
  pids(): Map<string, number> {
    const run = join(this.data, 'run');
    const found = new Map<string, number>();
    if (!existsSync(run)) return found;
    for (const file of readdirSync(run)) {
      if (!file.endsWith('.pid') || file === 'up.pid') continue;
      try {
        found.set(file.slice(0, -4), Number(readFileSync(join(run, file), 'utf8')));
      } catch (error) {
        // A server that was killed just before is on its way out of the list.
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      }
    }
    return found;
  }

  pid(name: string): number {
    const pid = this.pids().get(name);
    if (pid === undefined) throw new Error(`${name} does not run`);
    return pid;
  }

  /**
   * What `holdfast status --json` prints, asked from this process: a process for each question would keep a core busy
   * all the time that a test waits for a cluster. Of one that does not answer only `UNANSWERED` is known.
   */
  async status(): Promise<ClusterStatus> {
    const cluster = await readClusterFile(clusterFilePath(this.data));
    if (!cluster) throw new Error(`no cluster in ${this.data}`);
    const reader = new StatusReader(metaAddresses(cluster), cluster.chunkservers.length);
    try {
      return (await reader.read(STATUS_TIMEOUT_MS)) ?? (UNANSWERED as ClusterStatus);
    } finally {
      reader.close();
    }
  }

  /** @throws Error with the problems that are left, and the logs */
  waitHealthy(timeoutMs?: number): Promise<ClusterStatus> {
    return untilHealthy(() => this.status().catch(() => undefined), timeoutMs).catch((error: Error) => {
      throw new Error(`${error.message}\n${this.logs()}`);
    });
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
    await eventually('the mount is gone', () => !isAlive(pid), STOP_TIMEOUT_MS);
    detachMounts(dir);
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
    for (const pid of this.pids().values()) if (isHoldfast(pid)) kill(pid);
    detachMounts(this.root);
    rmSync(this.root, { recursive: true, force: true });
  }
}
