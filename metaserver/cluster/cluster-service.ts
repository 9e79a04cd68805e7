import type { Clock, Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { errorFromCode, HoldfastError, toHoldfastError } from '../../proto/errors.js';
import {
  type ChunkServerInfo,
  type ClusterMap,
  ClusterServiceDefinition,
  type Fence,
  type Heartbeat,
  type Pg,
  type PgTask,
  type PgTaskDone,
  type Purge,
  type PurgeDone,
  type RegisterChunkServer,
  type Registered,
  type ReplicaCaughtUp,
  type ReplicaFailed,
  ReplicaState,
} from '../../proto/gen/cluster.js';
import type { RpcServices } from '../../proto/rpc.js';
import { HEARTBEAT_INTERVAL_MS, LEASE_MS } from '../../proto/types.js';
import type { LeaderDuty, Leadership } from '../service/leadership.js';
import { GREETING_TIMEOUT_MS, type MetaReplica, type MetaState } from '../service/ports.js';
import type { CommandBody, Proposer } from '../service/proposer.js';
import { Blame } from './blame.js';
import { ChunkServerLink, type LinkHost } from './chunk-server-link.js';
import type { ChunkServerRegistry } from './chunk-server-registry.js';
import { Fencing } from './fencing.js';
import { LIVENESS_TICK_MS, Liveness, type LivenessEvent } from './liveness.js';
import { Mover } from './mover.js';
import { primaryOf } from './pg-change.js';
import { placePgs } from './placement.js';
import { checkCluster, checkRemoved, checkRequest, checkStranger } from './registration.js';
import { Rejoin } from './rejoin.js';

/** Streams of chunkservers at one time, registered or not. */
export const CHUNK_SERVER_STREAMS_MAX = 1024;

export interface ClusterServiceOptions {
  replica: MetaReplica;
  state: MetaState;
  proposer: Proposer;
  leadership: Leadership;
  registry: ChunkServerRegistry;
  clock: Clock;
  log: Logger;
  onPurgeDone(server: number, done: PurgeDone): void;
  onTaskDone(server: number, done: PgTaskDone): void;
  /** A server can be sent purges from now on. */
  onRegistered(server: number): void;
}

/** ClusterService: registration of chunkservers, their leases, and the map changes that follow from what they report. */
export class ClusterService implements LeaderDuty, LinkHost {
  readonly #options: ClusterServiceOptions;
  readonly #streams = new Set<ChunkServerLink>();
  /** The one link of each registered server. */
  readonly #links = new Map<number, ChunkServerLink>();
  readonly #liveness = new Liveness();
  readonly #rejoin = new Rejoin();
  readonly #blame = new Blame();
  readonly #mover: Mover;
  readonly #fencing: Fencing;
  /** Servers whose ServerDown is in the log: no lease, and a registration has to follow it in the log. */
  readonly #downs = new Set<number>();
  /** ReplicaDrops in the log, by PG, epoch and server: many writers report one failure. */
  readonly #drops = new Map<string, Promise<void>>();
  #creatingPgs = false;
  #timer: Timer | undefined;
  #map: ClusterMap | undefined;
  #alive = new Set<number>();

  constructor(options: ClusterServiceOptions) {
    this.#options = options;
    this.#mover = new Mover({
      log: options.log,
      propose: (body) => this.#propose(body),
      actsBy: (server) => this.#actsBy(server),
    });
    this.#fencing = new Fencing({
      fence: () => this.fence(),
      alive: () => aliveIn(options.state.map()),
      push: (fence) => {
        for (const link of this.#links.values()) link.pushFence(fence);
      },
    });
  }

  attach(server: RpcServices): void {
    const { fullName, methods } = ClusterServiceDefinition;
    server.addStream(fullName, methods.heartbeat, (rpc) => {
      const link = new ChunkServerLink(rpc, this);
      if (link.ended) return;
      this.#streams.add(link);
      this.#options.clock.after(GREETING_TIMEOUT_MS, () => link.expectRegistration(), { weak: true });
      if (this.#streams.size <= CHUNK_SERVER_STREAMS_MAX) return;
      link.refuse(
        0,
        new HoldfastError('OVERLOADED', `more than ${CHUNK_SERVER_STREAMS_MAX} chunkserver streams`),
      );
    });
  }

  begin(): void {
    const { clock, state } = this.#options;
    this.#takeMap(state.map());
    this.#step({ kind: 'led', alive: [...this.#alive] });
    this.#timer = clock.every(LIVENESS_TICK_MS, () => this.#tick());
    this.#createPgsIfDue();
  }

  end(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#map = undefined;
    this.#links.clear();
    this.#downs.clear();
    this.#drops.clear();
    this.#rejoin.clear();
    this.#blame.clear();
    this.#mover.clear();
    this.#options.registry.clear();
    const error = this.#options.leadership.notLeader();
    this.#fencing.end(error);
    for (const link of [...this.#streams]) link.refuse(0, error);
  }

  /** The state machine's map is another one: to be called once for each change, while this server leads. */
  mapChanged(): void {
    if (!this.#map) return;
    const map = this.#options.state.map();
    this.#takeMap(map);
    this.#step({ kind: 'map', alive: [...this.#alive] });
    for (const link of this.#links.values()) link.pushMap(map);
    this.#endRemoved(map);
    this.#fencing.check();
    this.#createPgsIfDue();
  }

  #endRemoved(map: ClusterMap): void {
    if (!map.removed) return;
    for (const link of [...this.#links.values()]) {
      try {
        checkRemoved(link.info?.diskUuid ?? '', map);
      } catch (error) {
        link.refuse(0, toHoldfastError(error));
      }
    }
  }

  #actsBy(server: number): number {
    const { registry, clock } = this.#options;
    if (this.#alive.has(server) || !this.#liveness.leaseOver(server, clock.now()))
      return registry.mapVersion(server);
    return Number.POSITIVE_INFINITY;
  }

  /** Resolves when every chunkserver refuses the sessions that are over now. @throws HoldfastError NOT_LEADER */
  shutOut(): Promise<void> {
    return this.#fencing.shutOut();
  }

  fence(): Fence {
    return this.#options.state.fence();
  }

  fenced(link: ChunkServerLink, version: number): void {
    const id = link.info?.id;
    if (id !== undefined && this.#links.get(id) === link) this.#fencing.kept(id, version);
  }

  /** @returns false when the server is not connected */
  pushPurge(server: number, purge: Purge): boolean {
    const link = this.#links.get(server);
    if (!link?.registered) return false;
    link.pushPurge(purge);
    return true;
  }

  /** @returns false when the server is not connected */
  pushTask(server: number, task: PgTask): boolean {
    const link = this.#links.get(server);
    if (!link?.registered) return false;
    link.pushTask(task);
    return true;
  }

  connected(server: number): boolean {
    return this.#links.get(server)?.registered ?? false;
  }

  /** Undefined while this server does not lead. */
  get map(): ClusterMap | undefined {
    return this.#map;
  }

  async register(link: ChunkServerLink, request: RegisterChunkServer): Promise<Registered> {
    const { leadership, replica, state, log } = this.#options;
    const info = checkRequest(request);
    await leadership.whenReady();
    await replica.readBarrier();
    checkCluster(request, state.cluster()?.clusterId);
    const former = this.#links.get(info.id);
    const now = this.#options.clock.now();
    checkRemoved(info.diskUuid, state.map());
    checkStranger(info, former?.info, state.map(), this.#liveness.leaseOver(info.id, now));
    if (link.ended || !leadership.ready) throw leadership.notLeader();
    // The same server on a new stream: with the former one its lease is over, and it may have been restarted.
    former?.end('the server registered on another stream');
    this.#links.set(info.id, link);
    link.info = info;
    this.#rejoin.forget(info.id);
    this.#blame.forget(info.id);
    this.#step({ kind: 'connected', server: info.id });
    if (this.#downs.has(info.id) || !isInMap(info, state.map())) {
      await this.#propose({ $case: 'putChunkServer', value: { server: info } });
    }
    if (this.#links.get(info.id) !== link) throw leadership.notLeader();
    const { host, port, diskUuid } = info;
    log.info({ server: info.id, address: `${host}:${port}`, diskUuid }, 'chunkserver registered');
    const { clusterId } = state.map();
    return { clusterId, map: undefined, heartbeatIntervalMs: HEARTBEAT_INTERVAL_MS, fence: undefined };
  }

  registered(link: ChunkServerLink): void {
    if (link.info) this.#options.onRegistered(link.info.id);
  }

  heartbeat(link: ChunkServerLink, heartbeat: Heartbeat): number | Promise<number> {
    const { replica, registry } = this.#options;
    const id = link.info?.id;
    if (id === undefined || this.#links.get(id) !== link) return 0;
    registry.heartbeat(id, heartbeat);
    this.#step({ kind: 'heartbeat', server: id });
    const lease = (): number =>
      this.#links.get(id) === link && this.#alive.has(id) && !this.#downs.has(id) ? LEASE_MS : 0;
    if (lease() === 0 || replica.canReadNow()) return lease();
    // After a hand-over that failed this leader has no lease of its own until its term ends: then a majority tells, behind the
    // heartbeat, that nobody else led when it was sent.
    return replica.readBarrier().then(lease, () => 0);
  }

  reservedElsewhere({ info }: ChunkServerLink): number {
    return info ? this.#options.registry.reservedElsewhere(info.id) : 0;
  }

  /**
   * Drops the failed server from all PGs which the reporter leads, for none of them can acknowledge a write; from the one
   * PG alone when the reporter means itself: it cannot lead that one any more, and does not try to.
   */
  async replicaFailed(link: ChunkServerLink, report: ReplicaFailed): Promise<void> {
    const reporter = link.info?.id;
    const pg = this.#map?.pgs[report.pg];
    // A report about an older state of the PG: the reporter has, or gets, the newer map.
    if (!pg || pg.epoch !== report.epoch) return;
    if (primaryOf(pg) !== reporter) {
      // Only the primary knows who does not follow it. That it fails itself shows in its own stream.
      throw new HoldfastError('NOT_PRIMARY', `chunkserver ${reporter} does not lead PG ${report.pg}`);
    }
    const { server, reason } = report;
    const led =
      server === reporter ? [pg] : (this.#map?.pgs ?? []).filter((other) => primaryOf(other) === reporter);
    const affected = led.filter((other) => receivesWrites(other, server));
    const fresh = affected.filter((other) => !this.#drops.has(dropKey(other, server)));
    if (fresh.length > 0) {
      this.#options.log.warn({ server, reporter, pgs: fresh.length, reason }, 'replica failed');
    }
    await Promise.all(this.#notOwn(link, report, affected).map((other) => this.#drop(other, server)));
  }

  /** Tells the reporter to give up the PGs where it is the one that is cut off. @returns the others */
  #notOwn(link: ChunkServerLink, { server }: ReplicaFailed, pgs: readonly Pg[]): Pg[] {
    const reporter = link.info?.id ?? 0;
    if (server === reporter) return [...pgs];
    const now = this.#options.clock.now();
    this.#blame.report(reporter, server, now);
    const healthy = (id: number): boolean => this.connected(id) && this.#alive.has(id);
    const minInSync = this.#map?.minInSync ?? 1;
    const isOwn = (pg: Pg): boolean =>
      this.#blame.isReporters(pg, { reporter, server }, minInSync, healthy, now);
    const own = pgs.filter(isOwn);
    for (const pg of own) {
      this.#options.log.warn({ server: reporter, pg: pg.id, reached: server }, 'primary is cut off');
      link.pushStepDown(pg.id, pg.epoch);
    }
    const others = pgs.filter((pg) => !own.includes(pg));
    // A server that was killed is reported for each PG, and before its own stream is seen to end: that is one failure.
    if (healthy(server) && others.some((pg) => !this.#drops.has(dropKey(pg, server))))
      this.#blame.healthyDropped(reporter, server, now);
    return others;
  }

  async replicaCaughtUp(link: ChunkServerLink, report: ReplicaCaughtUp): Promise<void> {
    const pg = this.#map?.pgs[report.pg];
    if (!pg || pg.epoch !== report.epoch) return;
    if (primaryOf(pg) !== link.info?.id) throw new HoldfastError('NOT_PRIMARY');
    await this.#propose({ $case: 'replicaInSync', value: report });
  }

  purgeDone(link: ChunkServerLink, done: PurgeDone): void {
    const id = link.info?.id;
    if (id !== undefined && this.#links.get(id) === link) this.#options.onPurgeDone(id, done);
  }

  taskDone(link: ChunkServerLink, done: PgTaskDone): void {
    const id = link.info?.id;
    if (id !== undefined && this.#links.get(id) === link) this.#options.onTaskDone(id, done);
  }

  ended(link: ChunkServerLink, reason: string): void {
    this.#streams.delete(link);
    const id = link.info?.id;
    if (id === undefined || this.#links.get(id) !== link) return;
    this.#links.delete(id);
    this.#rejoin.forget(id);
    this.#options.log.warn({ server: id, reason }, 'chunkserver disconnected');
    this.#step({ kind: 'disconnected', server: id });
  }

  #takeMap(map: ClusterMap): void {
    this.#map = map;
    this.#alive = aliveIn(map);
  }

  #step(event: LivenessEvent): void {
    for (const effect of this.#liveness.step(event, this.#options.clock.now())) {
      if (effect.kind === 'down') void this.#declareDown(effect.server, effect.reason);
      else {
        const link = this.#links.get(effect.server);
        this.#links.delete(effect.server);
        link?.end(effect.reason);
      }
    }
  }

  #tick(): void {
    this.#step({ kind: 'tick' });
    this.#createPgsIfDue();
    const map = this.#map;
    if (!map) return;
    this.#mover.tick(map, this.#options.clock.now());
    const connected = [...this.#links].filter(([, link]) => link.registered).map(([id]) => id);
    for (const id of this.#rejoin.due(map, connected, this.#options.clock.now())) {
      const server = this.#links.get(id)?.info;
      if (server) void this.#attempt('rejoin', id, { $case: 'putChunkServer', value: { server } });
    }
  }

  async #declareDown(server: number, reason: string): Promise<void> {
    this.#options.log.warn({ server, reason }, 'chunkserver down');
    this.#downs.add(server);
    await this.#attempt('down', server, { $case: 'serverDown', value: { server } });
    this.#downs.delete(server);
  }

  #drop(pg: Pg, server: number): Promise<void> {
    const key = dropKey(pg, server);
    const pending = this.#drops.get(key);
    if (pending) return pending;
    const body: CommandBody = { $case: 'replicaDrop', value: { pg: pg.id, epoch: pg.epoch, server } };
    const drop = this.#propose(body).finally(() => this.#drops.delete(key));
    this.#drops.set(key, drop);
    return drop;
  }

  #createPgsIfDue(): void {
    const { state, log } = this.#options;
    const map = this.#map;
    if (!map || map.pgs.length > 0 || this.#creatingPgs) return;
    const cluster = state.cluster();
    if (!cluster) return;
    const servers = map.servers.filter((server) => server.alive && !server.draining);
    if (servers.length === 0 || servers.length < cluster.chunkservers) return;
    const pgs = placePgs(servers, cluster.pgCount, cluster.replicas);
    this.#creatingPgs = true;
    log.info({ pgs: pgs.length, servers: servers.length, replicas: cluster.replicas }, 'placing PGs');
    void this.#attempt('create PGs', 0, { $case: 'createPgs', value: { pgs } }).then(() => {
      this.#creatingPgs = false;
    });
  }

  /** Proposes what is asked for again anyway when it fails. */
  async #attempt(what: string, server: number, body: CommandBody): Promise<boolean> {
    try {
      await this.#propose(body);
      return true;
    } catch (error) {
      this.#options.log.warn({ what, server, error: toHoldfastError(error).message }, 'map change failed');
      return false;
    }
  }

  /** @throws HoldfastError also when the state machine refuses */
  async #propose(body: CommandBody): Promise<void> {
    const result = await this.#options.proposer.propose(body);
    if (result.error !== 0) throw errorFromCode(result.error, result.errorText);
  }
}

function aliveIn(map: ClusterMap): Set<number> {
  return new Set(map.servers.filter((server) => server.alive).map((server) => server.id));
}

function isInMap(info: ChunkServerInfo, map: ClusterMap): boolean {
  const known = map.servers.find((server) => server.id === info.id);
  return (
    known?.alive === true &&
    known.diskUuid === info.diskUuid &&
    known.host === info.host &&
    known.port === info.port &&
    known.domain === info.domain &&
    known.boot === info.boot
  );
}

function dropKey(pg: Pg, server: number): string {
  return `${pg.id}/${pg.epoch}/${server}`;
}

function receivesWrites(pg: Pg, server: number): boolean {
  return pg.replicas.some(
    (replica) => replica.server === server && replica.state !== ReplicaState.REPLICA_OUT,
  );
}
