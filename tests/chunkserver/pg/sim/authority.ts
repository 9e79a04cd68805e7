import { Blame } from '../../../../metaserver/cluster/blame.js';
import { applyMapCommand, createMap, type MapCommand } from '../../../../metaserver/cluster/map-commands.js';
import { primaryOf } from '../../../../metaserver/cluster/pg-change.js';
import { Rebalancer } from '../../../../metaserver/cluster/rebalance.js';
import { type ClusterMap, type Replica, ReplicaState } from '../../../../proto/gen/cluster.js';
import { LEASE_MS } from '../../../../proto/types.js';
import type { SimServer } from './server.js';
import type { VirtualClock } from './virtual-clock.js';

/** A stream between a server and the authority; messages of each direction keep their order. */
export interface SimStream {
  server: SimServer;
  open: boolean;
  /** To the server. */
  down(deliver: () => void): void;
}

const LEASE_MARGIN_MS = 50;

/** The metaservers as one: the map, who is alive, leases. It changes the map by the very rules of the real ones. */
export class Authority {
  readonly #clock: VirtualClock;
  readonly #onMap: (map: ClusterMap) => void;
  readonly #streams = new Map<number, SimStream>();
  readonly #leaseEnds = new Map<number, number>();
  readonly #rebalancer = new Rebalancer();
  readonly #blame = new Blame();
  /** Version of the map by which each server acts, as its heartbeats say. */
  readonly #acts = new Map<number, number>();
  /** Replicas that were added and taken away by moves. */
  moves = 0;
  map: ClusterMap;

  constructor(
    clock: VirtualClock,
    servers: number[],
    replicas: number,
    minInSync: number,
    onMap: (map: ClusterMap) => void,
  ) {
    this.#clock = clock;
    this.#onMap = onMap;
    const init = {
      clusterId: 'sim',
      replicas,
      minInSync,
      chunkSize: 8,
      pgCount: 1,
      chunkservers: servers.length,
      rootUid: 0,
      rootGid: 0,
    };
    this.map = createMap(init);
    for (const id of servers) this.#apply(putServer(id, `disk-${id}-0`));
    const pg = {
      id: 0,
      epoch: 1,
      interval: 1,
      replicas: servers.slice(0, replicas).map((server) => ({ server, state: 2 })),
    };
    this.#apply({ $case: 'createPgs', value: { pgs: [pg] } });
    for (const id of servers) this.#leaseEnds.set(id, this.#clock.now() + LEASE_MS);
    clock.every(100, () => this.#tick());
  }

  /** Has the group leave the server, if there are enough others, or lets it hold the group again. */
  drain(server: number, draining: boolean): void {
    const others = this.map.servers.filter((info) => info.id !== server && !info.draining);
    if (draining && others.length < this.map.replicas) return;
    this.#apply({ $case: 'drainChunkServer', value: { server, draining } });
  }

  /**
   * Whether the disk of a server may be lost now: another in-sync replica is on the disk that the map believes it on.
   * @param disk the one in the server
   * @param backwards a replica will do that holds all that was acknowledged, but not all that was read
   */
  spares(server: number, disk: (server: number) => string, backwards: boolean): boolean {
    const { replicas } = this.map.pgs[0]!;
    const uuid = (id: number) => this.map.servers.find((info) => info.id === id)?.diskUuid;
    if (disk(server) !== uuid(server)) return false;
    const holdsAll = (other: Replica): boolean =>
      other.state === ReplicaState.REPLICA_IN_SYNC ||
      (backwards && other.wholeDisk !== undefined && other.wholeDisk === disk(other.server));
    return replicas.some(
      (other) => other.server !== server && holdsAll(other) && disk(other.server) === uuid(other.server),
    );
  }

  get primary(): number {
    return primaryOf(this.map.pgs[0]!) ?? 0;
  }

  #apply(command: MapCommand): void {
    const map = applyMapCommand(this.map, command);
    if (map === this.map) return;
    this.map = map;
    this.#onMap(map);
    for (const stream of this.#streams.values()) this.#push(stream, map);
  }

  #push(stream: SimStream, map: ClusterMap): void {
    stream.down(() => stream.server.host?.setMap(map));
  }

  register(stream: SimStream, diskUuid: string, boot: string): void {
    const { id } = stream.server;
    const former = this.#streams.get(id);
    if (former) this.#end(former, 'registered anew');
    this.#streams.set(id, stream);
    this.#blame.forget(id);
    this.#leaseEnds.set(id, this.#clock.now() + LEASE_MS + LEASE_MARGIN_MS);
    this.#apply(putServer(id, diskUuid, boot));
    const { map } = this;
    stream.down(() => stream.server.registered(stream, map));
  }

  heartbeat(stream: SimStream, sentAt: number, mapVersion: number): void {
    const { id } = stream.server;
    if (this.#streams.get(id) !== stream) return;
    this.#acts.set(id, mapVersion);
    this.#leaseEnds.set(id, this.#clock.now() + LEASE_MS + LEASE_MARGIN_MS);
    if (!this.map.servers.some((server) => server.id === id && server.alive)) return;
    stream.down(() => stream.server.lease(sentAt + LEASE_MS));
  }

  replicaFailed(stream: SimStream, epoch: number, server: number): void {
    if (this.#streams.get(stream.server.id) !== stream || this.primary !== stream.server.id) return;
    const pg = this.map.pgs[0]!;
    const [reporter, now] = [stream.server.id, this.#clock.now()];
    const healthy = (id: number): boolean => this.#streams.has(id);
    if (pg.epoch === epoch && server !== reporter) {
      this.#blame.report(reporter, server, now);
      if (this.#blame.isReporters(pg, { reporter, server }, this.map.minInSync, healthy, now)) {
        stream.down(() => stream.server.host?.stepDown(0, epoch));
        return;
      }
      if (healthy(server)) this.#blame.healthyDropped(reporter, server, now);
    }
    this.#apply({ $case: 'replicaDrop', value: { pg: 0, epoch, server } });
    this.#rejoin();
  }

  replicaCaughtUp(stream: SimStream, epoch: number, server: number): void {
    if (this.#streams.get(stream.server.id) !== stream || this.primary !== stream.server.id) return;
    this.#apply({ $case: 'replicaInSync', value: { pg: 0, epoch, server } });
  }

  /** The server's side has ended. */
  ended(stream: SimStream): void {
    const { id } = stream.server;
    if (this.#streams.get(id) !== stream) return;
    this.#streams.delete(id);
    this.#apply({ $case: 'serverDown', value: { server: id } });
  }

  /** The leadership moves: all streams end, nobody is declared down for that. */
  fail(): void {
    for (const [id, stream] of [...this.#streams]) {
      this.#streams.delete(id);
      this.#leaseEnds.set(id, this.#clock.now() + LEASE_MS + 1500);
      this.#end(stream, 'the leader died');
    }
  }

  #end(stream: SimStream, reason: string): void {
    stream.down(() => stream.server.streamEnded(stream, reason));
  }

  #tick(): void {
    const now = this.#clock.now();
    for (const { id, alive } of this.map.servers) {
      if (!alive || now < (this.#leaseEnds.get(id) ?? 0)) continue;
      const stream = this.#streams.get(id);
      this.#streams.delete(id);
      if (stream) this.#end(stream, 'silent');
      this.#apply({ $case: 'serverDown', value: { server: id } });
    }
    this.#rejoin();
    const actsBy = (id: number): number => {
      const leased = this.#streams.has(id) || now < (this.#leaseEnds.get(id) ?? 0);
      return leased ? (this.#acts.get(id) ?? 0) : Number.POSITIVE_INFINITY;
    };
    for (const command of this.#rebalancer.next(this.map, actsBy, now)) {
      this.moves++;
      this.#apply(command);
    }
  }

  /** Servers that are connected, but out of the group. */
  #rejoin(): void {
    for (const { server, state } of this.map.pgs[0]!.replicas) {
      const info = this.map.servers.find(({ id }) => id === server);
      if (state === 0 && info && this.#streams.has(server))
        this.#apply(putServer(server, info.diskUuid, info.boot));
    }
  }
}

function putServer(id: number, diskUuid: string, boot?: string): MapCommand {
  const server = { id, diskUuid, host: 'sim', port: id, alive: true, domain: `d${id}`, boot };
  return { $case: 'putChunkServer', value: { server } };
}
