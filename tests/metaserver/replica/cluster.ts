import { systemClock } from '../../../common/clock.js';
import type { Disk } from '../../../common/disk.js';
import { createLogger, type LogLevel, silentLogger } from '../../../common/logger.js';
import { MemoryDisk } from '../../../common/memory-disk.js';
import { createPrng } from '../../../common/prng.js';
import { writeFormat } from '../../../metaserver/replica/format.js';
import type { Peer } from '../../../metaserver/replica/peers.js';
import { Replica, type ReplicaOptions } from '../../../metaserver/replica/replica.js';
import { HoldfastError } from '../../../proto/errors.js';
import { RpcServer } from '../../../proto/rpc.js';
import { eventually } from '../../lab/eventually.js';
import { takePorts } from '../../ports.js';
import { Link } from './link.js';
import { TestMachine } from './test-machine.js';

export const CLUSTER_ID = '4e1c4b8e-0000-4000-8000-000000000001';
const POLL_MS = 5;
const WAIT_MAX_MS = 20_000;

/** Resolves when `condition` holds; tests assert order and content, this only waits for what must come. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  await eventually(what, condition, WAIT_MAX_MS, POLL_MS);
}

export interface ClusterSettings {
  servers?: number;
  /** The disk of all, or of each; default: one in memory. */
  disk?: Disk;
  diskOf?: (id: number) => Disk;
  /** Overrides for each replica. */
  options?: (id: number) => Partial<ReplicaOptions<number>>;
  /** The disks (of these servers) belong to no cluster yet. */
  unfounded?: boolean | number[];
  /** Whether they may found one; default true. */
  mayFound?: boolean;
  /** Servers that are not started. */
  down?: number[];
  /** Connections go through links that can be silenced. */
  links?: boolean;
}

interface Member {
  replica: Replica<number> | undefined;
  server: RpcServer | undefined;
  machine: TestMachine;
  port: number;
  fatal: unknown[];
  /** How often its disk was formatted. */
  life: number;
}

/** Uuid of the disk that a server has in its n-th life, from 1; the first one's member id is the server's number. */
function diskUuid(id: number, life = 1): string {
  return `${((life - 1) * 16 + id).toString(16).padStart(8, '0')}-d15c-4000-8000-000000000000`;
}

/** Replicas of one process, over real gRPC on the loopback interface. */
export class Cluster {
  readonly members = new Map<number, Member>();
  readonly disk: Disk;
  readonly #root: string;
  readonly #settings: ClusterSettings;
  readonly #links = new Map<string, Link>();
  #seed = 1;

  private constructor(root: string, settings: ClusterSettings) {
    this.#root = root;
    this.disk = settings.disk ?? new MemoryDisk();
    this.#settings = settings;
  }

  /** Formats and starts all servers. */
  static async start(root: string, settings: ClusterSettings = {}): Promise<Cluster> {
    const cluster = new Cluster(root, settings);
    const ids = Array.from({ length: settings.servers ?? 3 }, (_, i) => i + 1);
    for (const id of ids) {
      cluster.#prepare(id);
      const identity = { clusterId: CLUSTER_ID, serverId: id, diskUuid: diskUuid(id) };
      const roster = ids.map((server) => ({ id: server, server, diskUuid: diskUuid(server), address: '' }));
      const { unfounded } = settings;
      const isNew = Array.isArray(unfounded) ? unfounded.includes(id) : unfounded === true;
      const conf = isNew ? null : { voters: ids, votersOutgoing: [], learners: [], roster };
      await writeFormat(cluster.#disk(id), cluster.dir(id), {
        ...identity,
        conf,
        mayFound: settings.mayFound ?? true,
        begun: false,
      });
    }
    for (const from of settings.links ? ids : []) {
      for (const to of ids) cluster.#links.set(`${from}-${to}`, await Link.open(cluster.member(to).port));
    }
    // The first one campaigns as soon as it sees the others.
    for (const id of ids.toReversed()) if (!settings.down?.includes(id)) await cluster.up(id);
    return cluster;
  }

  #prepare(id: number): void {
    const machine = new TestMachine(this.#disk(id));
    const port = this.members.get(id)?.port ?? takePorts(1);
    const life = (this.members.get(id)?.life ?? 0) + 1;
    this.members.set(id, { replica: undefined, server: undefined, machine, port, fatal: [], life });
  }

  /** A new, empty disk for a server that is down, or for one more server. */
  async wipe(id: number, mayFound = true): Promise<void> {
    this.#prepare(id);
    const uuid = diskUuid(id, this.member(id).life);
    const format = {
      clusterId: CLUSTER_ID,
      serverId: id,
      diskUuid: uuid,
      conf: null,
      mayFound,
      begun: false,
    };
    await writeFormat(this.#disk(id), this.dir(id), format);
  }

  dir(id: number): string {
    const life = this.members.get(id)?.life ?? 1;
    return `${this.#root}/metaserver-${id}${life > 1 ? `-${life}` : ''}`;
  }

  diskUuid(id: number): string {
    return diskUuid(id, this.member(id).life);
  }

  get ids(): number[] {
    return [...this.members.keys()];
  }

  member(id: number): Member {
    const member = this.members.get(id);
    if (!member) throw new Error(`no server ${id}`);
    return member;
  }

  replica(id: number): Replica<number> {
    const { replica } = this.member(id);
    if (!replica) throw new Error(`server ${id} is down`);
    return replica;
  }

  machine(id: number): TestMachine {
    return this.member(id).machine;
  }

  get running(): number[] {
    return this.ids.filter((id) => this.member(id).replica !== undefined);
  }

  /** The members' addresses as `from` is to use them. */
  peers(from: number): Peer[] {
    return this.ids.map((id) => {
      const port = this.#links.get(`${from}-${id}`)?.port ?? this.member(id).port;
      return { id, address: `127.0.0.1:${port}` };
    });
  }

  /** Cuts a server off from all others, silently, in both directions. */
  isolate(id: number): void {
    for (const [name, link] of this.#links) if (name.split('-').includes(String(id))) link.silence();
  }

  heal(): void {
    for (const link of this.#links.values()) link.heal();
  }

  /** The disk as the server's next life sees it. */
  #disk(id: number): Disk {
    const disk = this.#settings.diskOf?.(id) ?? this.disk;
    return disk instanceof MemoryDisk ? disk.mounted() : disk;
  }

  /** Opens a replica on what the server's disk holds. */
  open(id: number, options: Partial<ReplicaOptions<number>> = {}): Promise<Replica<number>> {
    const member = this.member(id);
    const level = (process.env.TEST_LOG_LEVEL ?? 'silent') as LogLevel;
    return Replica.open<number>({
      disk: this.#disk(id),
      dir: this.dir(id),
      clusterId: CLUSTER_ID,
      serverId: id,
      peers: this.peers(id),
      stateMachine: member.machine,
      clock: systemClock,
      prng: createPrng(this.#seed++),
      log: createLogger({ id }, level),
      onFatal: (error) => member.fatal.push(error),
      electionMs: 400,
      heartbeatMs: 50,
      ...this.#settings.options?.(id),
      ...options,
    });
  }

  /** Starts a server. */
  async up(id: number): Promise<void> {
    const member = this.member(id);
    const replica = await this.open(id);
    const server = new RpcServer(silentLogger);
    replica.attach(server);
    await server.listen('127.0.0.1', member.port);
    replica.start();
    member.replica = replica;
    member.server = server;
  }

  /** Ends a server; its state machine falls back to what was flushed. */
  async down(id: number): Promise<void> {
    const member = this.member(id);
    member.server?.close();
    await member.replica?.close();
    member.replica = undefined;
    member.server = undefined;
    member.machine = member.machine.crashed(this.#disk(id));
  }

  async close(): Promise<void> {
    for (const id of this.running) await this.down(id);
    for (const link of this.#links.values()) link.close();
  }

  /** The one that serves as leader, once there is one (of those named, if any are). */
  leader(among: readonly number[] = this.ids): Promise<number> {
    const find = () =>
      among.find((id) => this.member(id).replica?.status().serving && this.replica(id).canReadNow());
    // What was found: a moment later its lease may have lapsed.
    return eventually('a leader', find, WAIT_MAX_MS, POLL_MS);
  }

  /** Proposes, again with the next leader while there is none; like a client, it does not know whether a lost try counted. */
  async propose(command: string): Promise<number> {
    for (;;) {
      const leader = await this.leader();
      try {
        return await this.replica(leader).propose(Buffer.from(command));
      } catch (error) {
        if (!(error instanceof HoldfastError && error.retriable)) throw error;
      }
    }
  }

  /** Waits until all running servers have applied the same. */
  settle(): Promise<void> {
    return this.settleAmong(this.running);
  }

  async settleAmong(ids: readonly number[]): Promise<void> {
    await until(() => {
      const first = this.machine(ids[0] as number).state;
      const commit = Math.max(...ids.map((id) => this.replica(id).status().commit));
      return ids.every(
        (id) =>
          this.replica(id).status().applied === commit && this.machine(id).state.applied === first.applied,
      );
    }, 'all servers have applied the same');
  }
}
