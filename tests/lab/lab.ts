import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type ClusterFile,
  clusterFilePath,
  newCluster,
  type ServerAddress,
  writeClusterFile,
} from '../../cli/cluster-file.js';
import type { ClusterStatus } from '../../cli/cluster-status.js';
import { processFlags } from '../../cli/process-flags.js';
import { serverSpecs } from '../../cli/up-plan.js';
import { systemClock, type Timer } from '../../common/clock.js';
import { logTails, untilHealthy } from './cluster-state.js';
import { type CommandResult, ENVIRONMENT, holdfast, MAIN, run } from './command.js';
import { abortMounts, detachMounts, mountsBelow, temporaryDirectory } from './directories.js';
import { eventually } from './eventually.js';
import { ImageDisk } from './image-disk.js';
import { LineChild } from './line-child.js';
import { monotonicMs } from './monotonic.js';
import { TestNetwork } from './network.js';
import { residentMemory } from './processes.js';

/**
 * A cluster in which every server and every client has a machine of its own: a network namespace with an address.
 * Nothing restarts by itself: who killed it starts it again.
 */

const HERE = dirname(fileURLToPath(import.meta.url));
const ADMIN = 'admin';
const START_TIMEOUT_MS = 90_000;
const END_TIMEOUT_MS = 30_000;
const UMOUNT_TIMEOUT_MS = 120_000;
const PORT = 7400;

export interface LabOptions {
  metaservers?: number;
  chunkservers?: number;
  clients?: number;
  /** Every server gets a disk of its own of this size, one that can lose its power. */
  diskMib?: number;
  /** Further flags of each chunkserver. */
  chunkserverFlags?: string[];
}

interface Process {
  child: ChildProcess;
  ended: boolean;
}

export class Lab {
  readonly root: string;
  readonly data: string;
  readonly network: TestNetwork;
  readonly metaservers: string[];
  readonly chunkservers: string[];
  readonly clients: string[];
  readonly #cluster: ClusterFile;
  readonly #options: LabOptions;
  readonly #processes = new Map<string, Process>();
  readonly #paused = new Set<string>();
  readonly #disks = new Map<string, ImageDisk>();
  #watch: LineChild | undefined;
  #status: { asked: number; status: ClusterStatus | undefined } | undefined;

  constructor(name: string, options: LabOptions = {}) {
    const names = (kind: string, count: number): string[] =>
      Array.from({ length: count }, (_, n) => `${kind}-${n + 1}`);
    this.#options = options;
    this.metaservers = names('metaserver', options.metaservers ?? 3);
    this.chunkservers = names('chunkserver', options.chunkservers ?? 3);
    this.clients = names('client', options.clients ?? 1);
    this.root = temporaryDirectory(name);
    this.data = join(this.root, 'data');
    this.network = new TestNetwork([...this.servers, ...this.clients, ADMIN]);
    const addresses = (servers: string[]): ServerAddress[] =>
      servers.map((server, n) => ({ id: n + 1, host: this.network.address(server), port: PORT }));
    this.#cluster = newCluster({
      metaservers: addresses(this.metaservers),
      chunkservers: addresses(this.chunkservers),
      replicas: Math.min(3, this.chunkservers.length),
    });
  }

  get servers(): string[] {
    return [...this.metaservers, ...this.chunkservers];
  }

  get clusterFile(): string {
    return clusterFilePath(this.data);
  }

  /** Makes network, servers and mounts; everything is healthy then. */
  async open(): Promise<void> {
    this.network.open();
    for (const dir of ['log', ...this.servers]) mkdirSync(join(this.data, dir), { recursive: true });
    if (this.#options.diskMib !== undefined) this.#makeDisks(this.#options.diskMib);
    await writeClusterFile(this.clusterFile, this.#cluster);
    this.#startWatch();
    this.startAll();
    await this.waitHealthy(START_TIMEOUT_MS);
    for (const client of this.clients) await this.mount(client);
  }

  /** The directory of a client's mount. */
  mountPoint(client: string): string {
    return join(this.root, client);
  }

  dataDir(server: string): string {
    return join(this.data, server);
  }

  /** Starts a server that does not run. */
  start(server: string): void {
    const spec = serverSpecs(this.#cluster, { dataDir: this.data }).find((one) => one.name === server);
    if (!spec) throw new Error(`no server ${server}`);
    const extra = server.startsWith('chunkserver') ? (this.#options.chunkserverFlags ?? []) : [];
    this.#spawn(server, server, [...spec.args, ...extra]);
  }

  /** Starts every server that does not run. */
  startAll(): void {
    for (const server of this.servers) if (!this.alive(server)) this.start(server);
  }

  /** kill -9 of all servers at once. */
  async killAll(): Promise<void> {
    await Promise.all(this.servers.filter((one) => this.alive(one)).map((server) => this.kill(server)));
  }

  /** Mounts on a client's host; returns when the mount stands. */
  async mount(client: string): Promise<string> {
    const dir = this.mountPoint(client);
    mkdirSync(dir, { recursive: true });
    this.#spawn(client, client, ['mount', dir, '--foreground', '--cluster', this.clusterFile]);
    await eventually(
      `${client} mounts`,
      () => {
        if (mountsBelow(dir).length > 0) return true;
        if (!this.alive(client)) throw new Error(`the mount ended\n${this.logs()}`);
        return false;
      },
      START_TIMEOUT_MS,
    );
    return dir;
  }

  /** Unmounts as a user would, and mounts again: every cache is cold. @throws Error when the unmount fails */
  async remount(client: string): Promise<string> {
    const result = await holdfast(['umount', this.mountPoint(client)], { timeoutMs: UMOUNT_TIMEOUT_MS });
    if (result.code !== 0) throw new Error(`umount of ${client}: ${result.stderr}${result.stdout}`);
    await this.#ended(client);
    return this.mount(client);
  }

  alive(name: string): boolean {
    return this.#processes.get(name)?.ended === false;
  }

  /** Names of all processes that run now. */
  running(): string[] {
    return [...this.#processes.keys()].filter((name) => this.alive(name));
  }

  pid(name: string): number {
    const pid = this.#processes.get(name)?.child.pid;
    if (pid === undefined || !this.alive(name)) throw new Error(`${name} does not run`);
    return pid;
  }

  /** kill -9; resolves when it is gone. */
  async kill(name: string): Promise<void> {
    process.kill(this.pid(name), 'SIGKILL');
    await this.#ended(name);
    if (this.clients.includes(name)) detachMounts(this.mountPoint(name));
  }

  /** SIGSTOP. */
  pause(name: string): void {
    process.kill(this.pid(name), 'SIGSTOP');
    this.#paused.add(name);
  }

  /** SIGCONT. */
  resume(name: string): void {
    if (this.#paused.delete(name) && this.alive(name)) process.kill(this.pid(name), 'SIGCONT');
  }

  /** SIGTERM; resolves when it has ended. */
  async stop(name: string): Promise<void> {
    process.kill(this.pid(name), 'SIGTERM');
    await this.#ended(name);
  }

  /** Lets a process run for a part of the time only, until the returned function is called. */
  stutter(name: string, runMs: number, pauseMs: number): () => void {
    let timer: Timer | undefined;
    const step = (pausing: boolean): void => {
      if (!this.alive(name)) return;
      if (pausing) this.pause(name);
      else this.resume(name);
      timer = systemClock.after(pausing ? pauseMs : runMs, () => step(!pausing));
    };
    step(true);
    return () => {
      timer?.cancel();
      this.resume(name);
    };
  }

  /** The disk of a server of its own, when the lab has such (`diskMib`). */
  disk(server: string): ImageDisk {
    const disk = this.#disks.get(server);
    if (!disk) throw new Error(`${server} has no disk of its own`);
    return disk;
  }

  /** Everything on a server's disk is gone; it must not run. */
  wipe(server: string): void {
    if (this.alive(server)) throw new Error(`${server} runs`);
    for (const entry of readdirSync(this.dataDir(server)))
      rmSync(join(this.dataDir(server), entry), { recursive: true, force: true });
  }

  /** What the metaservers said last, and no earlier than now. */
  async status(): Promise<ClusterStatus | undefined> {
    const from = monotonicMs();
    const found = await eventually('a status', () =>
      this.#status && this.#status.asked >= from ? this.#status : undefined,
    );
    return found.status;
  }

  /** The last status that was read, at once. */
  get lastStatus(): ClusterStatus | undefined {
    return this.#status?.status;
  }

  /** The server that leads the metaservers. */
  async leader(): Promise<string> {
    return eventually('a leader', async () => {
      const leader = (await this.status())?.leader;
      return leader ? `metaserver-${leader.id}` : undefined;
    });
  }

  /** @throws Error with the problems that are left, and the logs */
  waitHealthy(timeoutMs?: number): Promise<ClusterStatus> {
    return untilHealthy(() => this.status(), timeoutMs).catch((error: Error) => {
      throw new Error(`${error.message}\n${this.logs()}`);
    });
  }

  /** A holdfast command on the administrator's host. */
  holdfast(args: string[], timeoutMs?: number): Promise<CommandResult> {
    const [command, ...prefix] = this.network.enter(ADMIN) as [string, ...string[]];
    const argv = [...prefix, process.execPath, MAIN, ...args];
    return run(command, argv, timeoutMs === undefined ? {} : { timeoutMs });
  }

  /** Resident memory of every process that runs, bytes. */
  memory(): Map<string, number> {
    return residentMemory(new Map(this.running().map((name) => [name, this.pid(name)])));
  }

  /** The last lines of every log, for a failure's message. */
  logs(lines = 8): string {
    return logTails(this.data, lines);
  }

  /** Stops and removes everything, whatever state it is in. Never throws. */
  async close(): Promise<void> {
    for (const name of [...this.#paused]) this.resume(name);
    this.#watch?.kill();
    // Who waits for a disk cannot be killed.
    for (const disk of this.#disks.values()) disk.thaw();
    for (const client of this.clients) abortMounts(this.mountPoint(client));
    for (const name of this.running()) process.kill(this.pid(name), 'SIGKILL');
    for (const name of this.#processes.keys()) await this.#ended(name).catch(() => undefined);
    for (const disk of this.#disks.values()) disk.destroy();
    detachMounts(this.root);
    this.network.close();
    rmSync(this.root, { recursive: true, force: true });
  }

  #makeDisks(sizeMib: number): void {
    for (const server of this.servers) {
      const disk = new ImageDisk(this.dataDir(server));
      this.#disks.set(server, disk);
      disk.create(sizeMib);
    }
  }

  #spawn(name: string, host: string, args: string[]): void {
    if (this.alive(name)) throw new Error(`${name} runs already`);
    const log = openSync(join(this.data, 'log', `${name}.log`), 'a');
    const [command, ...prefix] = this.network.enter(host) as [string, ...string[]];
    const child = spawn(command, [...prefix, process.execPath, ...processFlags(args[0]), MAIN, ...args], {
      // The pipe ends when this process dies, however it died: the servers stop then.
      stdio: ['pipe', log, log],
      detached: true,
      env: { ...process.env, ...ENVIRONMENT, HOLDFAST_SUPERVISED: '1' },
    });
    closeSync(log);
    const entry = { child, ended: false };
    child.on('exit', () => {
      entry.ended = true;
    });
    child.on('error', () => {
      entry.ended = true;
    });
    this.#processes.set(name, entry);
  }

  #ended(name: string): Promise<boolean> {
    return eventually(`${name} ends`, () => !this.alive(name), END_TIMEOUT_MS);
  }

  #startWatch(): void {
    const [command, ...prefix] = this.network.enter(ADMIN) as [string, ...string[]];
    const argv = [...prefix, process.execPath, join(HERE, 'status-watch.js'), this.clusterFile];
    this.#watch = new LineChild(command, argv, (line) => {
      const { asked, status } = JSON.parse(line) as { asked: number; status: ClusterStatus | null };
      this.#status = { asked, status: status ?? undefined };
    });
  }
}
