import { existsSync, mkdirSync } from 'node:fs';
import type { Server } from 'node:net';
import { hostname } from 'node:os';
import type { BindingChoice } from '../client/fuse/choose.js';
import { checkMountPoint, clearStaleMount, findMount } from '../client/fuse/mount-point.js';
import { delay, systemClock } from '../common/clock.js';
import { type ClusterFile, clusterFilePath, metaAddresses, writeClusterFile } from './cluster-file.js';
import { type ClusterStatus, StatusReader } from './cluster-status.js';
import { type ControlRequest, listenForControl } from './control.js';
import { endFurtherMounts } from './further-mounts.js';
import { CliError, EXIT_FAILED, EXIT_USAGE } from './output.js';
import { pidFile, readLivePid, removePid, writePid } from './run-files.js';
import { explainRestore } from './snapshot.js';
import { restoreSnapshot } from './snapshot-transfer.js';
import { type ProcessSpec, Supervisor } from './supervisor.js';
import {
  addServer,
  planCluster,
  type ServerKind,
  serverSpecs,
  traceFlags,
  type UpRequest,
} from './up-plan.js';
import { Screen } from './up-screen.js';

export interface UpOptions extends UpRequest {
  mountPoint: string;
  /** The mount point is the default one: made when missing. */
  makeMountPoint: boolean;
  binding: BindingChoice;
  restart: boolean;
  json: boolean;
}

const MOUNT = 'mount';
const POLL_MS = 100;
const STATUS_TIMEOUT_MS = 2_000;
const STATUS_LINE_INTERVAL_MS = 1_000;
/** The servers must be able to serve within this time. */
const START_TIMEOUT_MS = 60_000;
/** After this time a cluster that can serve is mounted although a server is still missing. */
const FULL_START_GRACE_MS = 15_000;

/** Runs a cluster until it is told to stop. @returns the exit code. @throws CliError on bad input, before anything runs */
export async function runUp(options: UpOptions): Promise<number> {
  refuseSecondUp(options.dataDir);
  await prepareMountPoint(options);
  const cluster = await planCluster(options);
  const upPid = pidFile(options.dataDir, 'up');
  writePid(upPid, process.pid);
  try {
    return await new Up(options, cluster).run();
  } finally {
    removePid(upPid);
  }
}

/** A dead mount that an `up` before us left when it was killed is cleared; anything else that is wrong is refused. */
async function prepareMountPoint({ mountPoint, makeMountPoint }: UpOptions): Promise<void> {
  if (makeMountPoint && !existsSync(mountPoint)) mkdirSync(mountPoint, { recursive: true });
  await clearStaleMount(mountPoint);
  await checkMountPoint(mountPoint);
}

function refuseSecondUp(dataDir: string): void {
  const pid = readLivePid(pidFile(dataDir, 'up'));
  if (pid !== undefined && pid !== process.pid) {
    throw new CliError(
      `a \`holdfast up\` (pid ${pid}) already runs on ${dataDir}: stop it first, or use another --data`,
    );
  }
}

class Up {
  readonly #options: UpOptions;
  readonly #cluster: ClusterFile;
  readonly #supervisor: Supervisor;
  readonly #status: StatusReader;
  readonly #screen: Screen;
  #control: Server | undefined;
  readonly #addresses: string[];
  #stopping = false;
  #killing = false;

  constructor(options: UpOptions, cluster: ClusterFile) {
    this.#options = options;
    this.#cluster = cluster;
    this.#screen = new Screen(options.json);
    this.#addresses = metaAddresses(cluster);
    this.#status = new StatusReader(this.#addresses, cluster.chunkservers.length);
    this.#supervisor = new Supervisor({
      dataDir: options.dataDir,
      clock: systemClock,
      restart: options.restart,
      events: { event: (name, line) => this.#screen.event(name, line) },
    });
    for (const spec of serverSpecs(cluster, options)) this.#supervisor.add(spec);
    this.#supervisor.add({
      name: MOUNT,
      args: [
        ...['mount', options.mountPoint, '--foreground', '--binding', options.binding],
        ...['--cluster', clusterFilePath(options.dataDir)],
        ...traceFlags(options.dataDir, options.trace),
      ],
      prepare: () => clearStaleMount(options.mountPoint),
    });
  }

  async run(): Promise<number> {
    const stop = this.#stopSignal();
    try {
      this.#control = await listenForControl(this.#options.dataDir, (request) => this.#command(request));
      const failure = await Promise.race([stop, this.#bringUp()]);
      if (failure === undefined) {
        await this.#formed();
        this.#screen.ready(this.#options.mountPoint);
        await this.#watch(stop);
      } else if (failure instanceof Error) {
        throw failure;
      }
      return 0;
    } finally {
      this.#stopping = true;
      await this.#shutDown();
    }
  }

  /** From now on metaservers that have lost their disks are not to found a new cluster. */
  async #formed(): Promise<void> {
    if (this.#cluster.formed) return;
    this.#cluster.formed = true;
    await this.#saveCluster();
  }

  /** Resolves with the signal's name; a second signal kills everything. */
  #stopSignal(): Promise<string> {
    return new Promise((resolve) => {
      let seen = false;
      const onSignal = (signal: string): void => {
        if (seen) {
          this.#screen.event('up', `${signal} again: killing everything`);
          this.#killing = true;
          this.#supervisor.killAll();
          return;
        }
        seen = true;
        this.#stopping = true;
        this.#screen.event('up', `${signal}: stopping`);
        resolve(signal);
      };
      process.on('SIGINT', onSignal);
      process.on('SIGTERM', onSignal);
      process.on('SIGHUP', onSignal);
    });
  }

  /** @returns undefined when all is up, or why it is not */
  async #bringUp(): Promise<Error | undefined> {
    for (const name of this.#supervisor.names()) if (name !== MOUNT) await this.#supervisor.start(name);
    const restored = await this.#restore();
    if (restored) return restored;
    const servers = await this.#waitUntil('the servers', async (elapsedMs) => {
      const status = await this.#status.read(STATUS_TIMEOUT_MS);
      this.#screen.status(status, 'starting');
      return status !== undefined && canServe(status, elapsedMs);
    });
    if (servers) return servers;
    if (this.#stopping) return undefined;
    await this.#supervisor.start(MOUNT);
    return this.#waitUntil('the mount', () => isMounted(this.#options.mountPoint));
  }

  /** @returns why the snapshot that was asked for is not restored */
  async #restore(): Promise<Error | undefined> {
    const { restore } = this.#options;
    if (restore === undefined) return undefined;
    try {
      const { inodes } = await restoreSnapshot(this.#addresses, restore, () => {});
      this.#screen.event('up', `restored ${inodes} inodes from ${restore}`);
      return undefined;
    } catch (error) {
      try {
        return explainRestore(error);
      } catch (explained) {
        return explained as Error;
      }
    }
  }

  async #waitUntil(what: string, done: (elapsedMs: number) => Promise<boolean>): Promise<Error | undefined> {
    const start = systemClock.now();
    while (!this.#stopping) {
      const elapsed = systemClock.now() - start;
      if (await done(elapsed)) return undefined;
      const failed = this.#supervisor.names().find((name) => this.#supervisor.state(name) === 'failed');
      if (failed) {
        return new CliError(`${failed} did not start: ${this.#supervisor.lastLogLine(failed)}`, EXIT_USAGE);
      }
      if (elapsed > START_TIMEOUT_MS) {
        const problems =
          (await this.#status.read(STATUS_TIMEOUT_MS))?.problems.join('; ') ?? 'no metaserver answers';
        return new CliError(
          `${what} did not come up (${problems}); see ${this.#options.dataDir}/log`,
          EXIT_FAILED,
        );
      }
      await delay(systemClock, POLL_MS);
    }
    return undefined;
  }

  /** Shows the state until a signal comes. */
  async #watch(stop: Promise<string>): Promise<void> {
    let last = '';
    const timer = systemClock.every(STATUS_LINE_INTERVAL_MS, () => {
      void this.#status.read(STATUS_TIMEOUT_MS).then((status) => {
        if (this.#stopping) return;
        this.#screen.status(status, this.#options.mountPoint);
        const health = status?.healthy ? 'healthy' : (status?.problems.join('; ') ?? 'no metaserver answers');
        if (health !== last) this.#screen.event('cluster', health);
        last = health;
      });
    });
    await stop;
    timer.cancel();
  }

  /** @returns the name of the server that was meant */
  async #command({ command, name, kill }: ControlRequest): Promise<string> {
    if (command === 'add') return this.#add(name as ServerKind);
    if (command === 'remove') await this.#remove(name);
    else if (command === 'start') await this.#supervisor.start(name);
    else await this.#supervisor.stop(name, kill);
    return name;
  }

  async #add(kind: ServerKind): Promise<string> {
    const { dataDir } = this.#options;
    const { id } = await addServer(this.#cluster, kind, dataDir);
    const name = `${kind}-${id}`;
    await this.#saveCluster();
    const spec = serverSpecs(this.#cluster, this.#options).find((one) => one.name === name);
    this.#supervisor.add(spec as ProcessSpec);
    await this.#supervisor.start(name);
    this.#screen.event(name, 'added');
    return name;
  }

  async #remove(name: string): Promise<void> {
    const [kind, number] = name.split('-');
    const servers = kind === 'chunkserver' ? this.#cluster.chunkservers : this.#cluster.metaservers;
    const index = servers.findIndex(({ id }) => String(id) === number);
    if (index < 0) throw new Error(`no server ${name}`);
    servers.splice(index, 1);
    await this.#saveCluster();
    await this.#supervisor.remove(name);
    this.#screen.event(name, 'removed');
  }

  /** Servers that run go on as they are; at their next start they get what the file says now. */
  async #saveCluster(): Promise<void> {
    await writeClusterFile(clusterFilePath(this.#options.dataDir), this.#cluster);
    for (const spec of serverSpecs(this.#cluster, this.#options)) this.#supervisor.respecify(spec);
    this.#status.expect(metaAddresses(this.#cluster), this.#cluster.chunkservers.length);
  }

  /** The mounts first, so that what they hold still reaches the servers; then those who store, then those who decide. */
  async #shutDown(): Promise<void> {
    this.#control?.close();
    const names = this.#supervisor.names();
    await this.#endFurtherMounts();
    await this.#supervisor.stop(MOUNT);
    await clearStaleMount(this.#options.mountPoint);
    const group = (prefix: string): string[] => names.filter((name) => name.startsWith(prefix));
    await Promise.all(group('chunkserver-').map((name) => this.#supervisor.stop(name)));
    await Promise.all(group('metaserver-').map((name) => this.#supervisor.stop(name)));
    this.#status.close();
    this.#screen.event('up', 'everything has stopped');
    this.#screen.close();
  }

  /** Those that cannot be unmounted from here, of other machines and users, are named: they wait for the servers. */
  async #endFurtherMounts(): Promise<void> {
    const { mountPoint } = this.#options;
    const hurry = (): boolean => this.#killing;
    const ended = await endFurtherMounts(this.#cluster.clusterId, mountPoint, { clock: systemClock, hurry });
    for (const line of ended) this.#screen.event('up', line);
    const status = this.#killing ? undefined : await this.#status.read(STATUS_TIMEOUT_MS);
    for (const one of status?.mounts ?? [])
      if (one.connected && !(one.hostname === hostname() && one.mountPoint === mountPoint))
        this.#screen.event(
          'up',
          `${one.hostname}:${one.mountPoint} stays mounted, and waits for the servers`,
        );
  }
}

function canServe(status: ClusterStatus, elapsedMs: number): boolean {
  if (!status.leader || status.pgs.total === 0 || status.pgs.unavailable > 0) return false;
  return status.chunkservers.every((one) => one.alive) || elapsedMs > FULL_START_GRACE_MS;
}

async function isMounted(mountPoint: string): Promise<boolean> {
  return (await findMount(mountPoint))?.type.startsWith('fuse') === true;
}
