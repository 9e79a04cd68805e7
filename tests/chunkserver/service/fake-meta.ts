import { type Deferred, deferred } from '../../../common/deferred.js';
import { silentLogger } from '../../../common/logger.js';
import { applyMapCommand, createMap, type MapCommand } from '../../../metaserver/cluster/map-commands.js';
import { primaryOf } from '../../../metaserver/cluster/pg-change.js';
import { type ErrorName, errorCode } from '../../../proto/errors.js';
import {
  type ChunkServerEnvelope,
  type ClusterMap,
  ClusterServiceDefinition,
  type Fence,
  type MetaToChunkServer,
  type Pg,
  type PgStatus,
  type PgTask,
  type PgTaskDone,
  type Purge,
  type PurgeDone,
  ReplicaState,
} from '../../../proto/gen/cluster.js';
import { RpcServer, type RpcStream } from '../../../proto/rpc.js';
import { LEASE_MS } from '../../../proto/types.js';
import { takePorts } from '../../ports.js';

type Stream = RpcStream<MetaToChunkServer, ChunkServerEnvelope>;
type Body = NonNullable<MetaToChunkServer['body']>;

/** One metaserver in memory: the map by the real rules, leases, no consensus. The end of a stream is the end of a server. */
export class FakeMeta {
  #server = new RpcServer(silentLogger);
  readonly #tasks = new Map<number, Deferred<PgTaskDone>>();
  #lastTask = 0;
  readonly #streams = new Map<number, Stream>();
  readonly #watchers = new Set<() => void>();
  readonly #pgCount: number;
  readonly #servers: number;
  map: ClusterMap;
  address = '';
  /** False: registrations are refused as by a follower. */
  leads = true;
  /** How registrations are refused otherwise. */
  refusal: ErrorName | undefined;
  /** What is pushed in the same bytes as the answer to a registration. */
  behind: Body[] = [];
  readonly purged: PurgeDone[] = [];
  /** Which sessions servers that register are told to refuse. */
  fence: Fence | undefined;
  /** The newest fence that each server says it keeps. */
  readonly fenced = new Map<number, number>();
  readonly failures: { pg: number; server: number; reason: string }[] = [];
  readonly progress = new Map<number, PgStatus[]>();

  constructor(servers: number, pgCount: number, minInSync: number) {
    this.#servers = servers;
    this.#pgCount = pgCount;
    const settings = { clusterId: 'test-cluster', chunkSize: 4 * 1024 * 1024, pgCount, minInSync };
    const roots = { rootUid: 0, rootGid: 0, chunkservers: servers };
    this.map = createMap({ ...settings, ...roots, replicas: servers });
  }

  async start(port = takePorts(1)): Promise<void> {
    const { fullName, methods } = ClusterServiceDefinition;
    this.#server = new RpcServer(silentLogger);
    this.#server.addStream(fullName, methods.heartbeat, (stream) => this.#accept(stream));
    const bound = await this.#server.listen('127.0.0.1', port);
    this.address = `127.0.0.1:${bound}`;
  }

  stop(): void {
    this.#streams.clear();
    this.#server.close();
  }

  pg(id: number): Pg {
    return this.map.pgs[id]!;
  }

  primary(id: number): number {
    return primaryOf(this.pg(id)) ?? 0;
  }

  state(pg: number, server: number): ReplicaState | undefined {
    return this.pg(pg).replicas.find((replica) => replica.server === server)?.state;
  }

  /** All replicas of all groups are in-sync. */
  get whole(): boolean {
    const { pgs } = this.map;
    const inSync = ReplicaState.REPLICA_IN_SYNC;
    return pgs.length > 0 && pgs.every(({ replicas }) => replicas.every(({ state }) => state === inSync));
  }

  /** Resolves when the condition holds; looked at whenever anything happens here. */
  when(condition: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (!condition()) return;
        this.#watchers.delete(look);
        resolve();
      };
      this.#watchers.add(look);
      look();
    });
  }

  purge(server: number, purge: Purge): void {
    this.#streams.get(server)?.send(pushOf({ $case: 'purge', value: purge }));
  }

  /** Has the server carry out a task. */
  task(server: number, pg: number, body: PgTask['body']): Promise<PgTaskDone> {
    const task = ++this.#lastTask;
    const done = deferred<PgTaskDone>();
    this.#tasks.set(task, done);
    this.#streams.get(server)?.send(pushOf({ $case: 'task', value: { task, pg, body } }));
    return done.promise;
  }

  /** Pushes a fence to all servers. */
  pushFence(fence: Fence): void {
    this.fence = fence;
    for (const stream of this.#streams.values()) stream.send(pushOf({ $case: 'fence', value: fence }));
  }

  apply(command: MapCommand): void {
    const map = applyMapCommand(this.map, command);
    if (map !== this.map) {
      this.map = map;
      for (const stream of this.#streams.values()) stream.send(pushOf({ $case: 'map', value: map }));
      this.#createGroups();
    }
    this.#changed();
  }

  /** Groups with all servers, beginning with another one each. */
  #createGroups(): void {
    const { servers, pgs } = this.map;
    if (pgs.length > 0 || servers.length < this.#servers) return;
    const groups = Array.from({ length: this.#pgCount }, (_, id) => ({
      id,
      epoch: 1,
      interval: 1,
      replicas: servers.map((_server, i) => ({
        server: servers[(id + i) % servers.length]!.id,
        state: ReplicaState.REPLICA_IN_SYNC,
      })),
    }));
    this.apply({ $case: 'createPgs', value: { pgs: groups } });
  }

  #changed(): void {
    for (const look of [...this.#watchers]) look();
  }

  #accept(stream: Stream): void {
    let server = 0;
    stream.onEnd(() => {
      if (this.#streams.get(server) !== stream) return;
      this.#streams.delete(server);
      this.apply({ $case: 'serverDown', value: { server } });
    });
    stream.onMessage(({ id, body }) => {
      if (body?.$case === 'register') {
        const { serverId, diskUuid, host, port, domain, boot } = body.value;
        const refusal = this.leads ? this.refusal : 'NOT_LEADER';
        if (refusal) {
          const error = errorCode(refusal);
          stream.send({ id, error, errorText: 'refused', leaderHint: '', body: undefined });
          return;
        }
        server = serverId;
        this.#streams.set(server, stream);
        const info = { id: server, diskUuid, host, port, domain, alive: true, boot };
        this.apply({ $case: 'putChunkServer', value: { server: info } });
        const { clusterId } = this.map;
        const value = { clusterId, map: this.map, heartbeatIntervalMs: 50, fence: this.fence };
        stream.send({ ...pushOf({ $case: 'registered', value }), id });
        for (const body of this.behind) stream.send(pushOf(body));
      } else if (body) stream.send({ ...pushOf(this.#answer(server, body)), id });
      this.#changed();
    });
  }

  #answer(server: number, body: NonNullable<ChunkServerEnvelope['body']>): Body {
    switch (body.$case) {
      case 'heartbeat': {
        this.progress.set(server, body.value.pgs);
        const { sequence } = body.value;
        return { $case: 'heartbeatAck', value: { sequence, leaseMs: LEASE_MS } };
      }
      case 'replicaFailed':
        this.failures.push(body.value);
        this.apply({ $case: 'replicaDrop', value: body.value });
        break;
      case 'replicaCaughtUp':
        this.apply({ $case: 'replicaInSync', value: body.value });
        break;
      case 'taskDone':
        this.#tasks.get(body.value.task)?.resolve(body.value);
        break;
      case 'fenced':
        this.fenced.set(server, body.value.version);
        break;
      case 'purgeDone':
        this.purged.push(body.value);
        break;
    }
    return { $case: 'ok', value: {} };
  }
}

function pushOf(body: Body): MetaToChunkServer {
  return { id: 0, error: 0, errorText: '', leaderHint: '', body };
}
