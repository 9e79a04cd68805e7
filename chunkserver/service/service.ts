import type { Clock, Timer } from '../../common/clock.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import type { Logger } from '../../common/logger.js';
import type { Prng } from '../../common/prng.js';
import type { Tracer } from '../../common/trace.js';
import { HoldfastError } from '../../proto/errors.js';
import { FrameType } from '../../proto/frame-header.js';
import {
  type Frame,
  type FrameConnection,
  type FrameHello,
  type FrameReply,
  FrameServer,
  type Sockets,
} from '../../proto/frames.js';
import type { ClusterMap, Registered } from '../../proto/gen/cluster.js';
import type { RpcDialer } from '../../proto/rpc.js';
import { tracedHandler } from '../../proto/trace.js';
import { PROTOCOL_VERSION } from '../../proto/types.js';
import { TICK_INTERVAL_MS } from '../pg/types.js';
import type { ChunkStore } from '../store/chunk-store.js';
import { ClientConnections } from './client-connections.js';
import { HeartbeatClient } from './heartbeat.js';
import type { PeerLink } from './links.js';
import { Peers } from './peers.js';
import { PgHost } from './pg-host.js';
import { RangeCopies } from './range-copy.js';
import { RecoveryMeter } from './recovery-meter.js';
import { routeFrame } from './route.js';
import { Scrubber, type ScrubberOptions } from './scrubber.js';
import { SessionFence } from './session-fence.js';
import { runTask } from './tasks.js';

export interface ChunkServiceOptions {
  id: number;
  /** Where it listens, and how others reach it. */
  host: string;
  port: number;
  /** Known beforehand; empty: the cluster's that registers this server first. */
  clusterId: string;
  /** host:port of all metaservers. */
  metaservers: string[];
  domain: string;
  recoveryMbps: number;
  /** Names the file system of the store; equal at servers that share it. Default: it is shared with nobody. */
  device?: string;
  /** Default: never. */
  scrub?: ScrubberOptions;
}

export interface ChunkServiceDeps {
  store: ChunkStore;
  clock: Clock;
  log: Logger;
  prng: Prng;
  /** How metaservers are reached; default gRPC. */
  dial?: RpcDialer;
  /** Default: TCP. */
  sockets?: Sockets;
  /** Notes where the time of each request goes; absent: nothing is noted. */
  tracer?: Tracer;
  /** Runs `fn` behind what else has arrived in this turn of the event loop; default: at once. */
  schedule?(fn: () => void): void;
}

const BYTES_PER_MB = 1_000_000;
/** What clients change contents with: the fence counts it until it is answered. */
const CHANGES: ReadonlySet<number> = new Set([
  FrameType.WRITE,
  FrameType.WRITE_EXTENTS,
  FrameType.TRUNCATE,
  FrameType.COPY,
]);
/** Requests of clients come over no link between servers. */
const NO_LINK: PeerLink = {
  ended: true,
  queuedBytes: 0,
  request: (_fields, _payload, _deadline, _crc, sink) =>
    sink(new HoldfastError('CONNECTION_LOST'), undefined),
  close: () => {},
};

/** A chunkserver over an open store: data frames, placement groups, and the stream to the metaservers. */
export class ChunkService {
  readonly #options: ChunkServiceOptions;
  readonly #deps: ChunkServiceDeps;
  readonly #fatal: Deferred<Error> = deferred();
  readonly #hello: FrameHello;
  readonly #server: FrameServer;
  readonly #peers: Peers;
  readonly #heartbeat: HeartbeatClient;
  readonly #scrubber: Scrubber;
  readonly #ticker: Timer;
  readonly #meter = new RecoveryMeter();
  readonly host: PgHost;
  readonly #fence: SessionFence;
  readonly #copies: RangeCopies;
  #port = 0;
  readonly #boot: string;
  #stopped = false;

  constructor(options: ChunkServiceOptions, deps: ChunkServiceDeps) {
    const { store, clock, log, prng, dial, sockets, tracer, schedule } = deps;
    this.#boot = `${prng.int(2 ** 32).toString(16)}-${prng.int(2 ** 32).toString(16)}`;
    this.#options = options;
    this.#deps = deps;
    const clusterId = store.clusterId || options.clusterId;
    this.#hello = { protocol: PROTOCOL_VERSION, clusterId, role: 'chunkserver', id: options.id };
    this.host = new PgHost({
      self: options.id,
      store,
      clock,
      log,
      recoveryBytesPerSecond: options.recoveryMbps * BYTES_PER_MB,
      reports: {
        replicaFailed: (pg, epoch, server, reason) =>
          this.#heartbeat.report({ $case: 'replicaFailed', value: { pg, epoch, server, reason } }),
        replicaCaughtUp: (pg, epoch, server) =>
          this.#heartbeat.report({ $case: 'replicaCaughtUp', value: { pg, epoch, server } }),
      },
      onFatal: (error) => this.fail(error),
      tracer,
      schedule,
    });
    this.#fence = new SessionFence((version) =>
      this.#heartbeat.push({ $case: 'fenced', value: { version } }),
    );
    this.#copies = new RangeCopies({
      self: options.id,
      map: () => this.host.map,
      link: (server) => this.host.links.any(server),
      route: (frame) => routeFrame(this.host, frame, NO_LINK, 0, clock.now()),
    });
    const handle = (frame: Frame, connection: FrameConnection) => this.#handle(frame, connection);
    const handler = tracer ? tracedHandler(handle, tracer) : handle;
    const shared = { clock, log, handler, hello: this.#hello, sockets };
    const clients = new ClientConnections();
    this.#server = new FrameServer(shared, (connection) => {
      clients.accept(connection);
      this.#peers.accept(connection);
    });
    this.#peers = new Peers({ self: options.id, host: this.host, tracer, ...shared });
    this.#heartbeat = new HeartbeatClient({
      addresses: options.metaservers,
      clock,
      log,
      prng,
      dial,
      registration: () => this.#registration(),
      status: () => this.#status(),
      onRegistered: (registered) => this.#registered(registered),
      onUp: () => this.host.setRegistered(true),
      onMap: (map) => this.#setMap(map),
      onLease: (until) => this.host.setLease(until),
      onReservedElsewhere: (bytes) => this.#deps.store.reservedElsewhere?.(bytes),
      onPurge: (purge) => {
        const { pg, ino, truncateSeq } = purge;
        this.host.purge(purge, () =>
          this.#heartbeat.push({ $case: 'purgeDone', value: { pg, ino, truncateSeq } }),
        );
      },
      onTask: (task) => {
        void runTask(this.host, task, clock.now()).then((value) =>
          this.#heartbeat.push({ $case: 'taskDone', value }),
        );
      },
      onFence: (fence) => this.#fence.set(fence),
      onStepDown: ({ pg, epoch }) => this.host.stepDown(pg, epoch),
      onDown: () => this.host.setRegistered(false),
      onRefused: (error) => this.fail(error),
    });
    this.#scrubber = new Scrubber(options.scrub ?? { intervalMs: 0, bytesPerSecond: 1 }, {
      ...{ clock, prng, log },
      repair: this.host.repair,
      led: () => this.host.led(),
      page: (pg, request) => this.host.audit.page(pg, request),
    });
    this.#ticker = clock.every(TICK_INTERVAL_MS, () => this.host.tick(), { weak: true });
  }

  /** Resolves with the reason when the server cannot go on; it has stopped serving then. */
  get fatal(): Promise<Error> {
    return this.#fatal.promise;
  }

  /** @returns the port. @throws Error with code EADDRINUSE */
  async start(): Promise<number> {
    this.#port = await this.#server.listen(this.#options.host, this.#options.port);
    this.#heartbeat.start();
    this.#scrubber.start();
    return this.#port;
  }

  /** Leaves the cluster's sight first, so that others take over at once. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#heartbeat.close();
    this.host.close();
    this.#ticker.cancel();
    this.#scrubber.close();
    this.#peers.close();
    this.#server.close();
  }

  /** Stops serving for good. */
  fail(error: Error): void {
    this.stop();
    this.#fatal.resolve(error);
  }

  #registration() {
    const { store } = this.#deps;
    const { id, host, domain } = this.#options;
    return {
      protocol: PROTOCOL_VERSION,
      clusterId: store.clusterId || this.#options.clusterId,
      serverId: id,
      diskUuid: store.diskUuid,
      host,
      port: this.#port,
      domain,
      boot: this.#boot,
    };
  }

  #status() {
    const { liveBytes, capacityBytes, freeBytes, diskFreeBytes, reservedBytes } = this.#deps.store.usage();
    const bytes = (value: number) => Math.max(0, Math.floor(value));
    const pgs = this.host.progress();
    const { doneBytes, leftBytes, bytesPerSecond } = this.#meter.sample(pgs, this.#deps.clock.now());
    return {
      capacityBytes: bytes(capacityBytes),
      usedBytes: bytes(liveBytes),
      freeBytes: bytes(freeBytes),
      pgs,
      recoveryDoneBytes: bytes(doneBytes),
      recoveryLeftBytes: bytes(leftBytes),
      recoveryBytesPerSecond: bytesPerSecond,
      mapVersion: this.host.map?.version ?? 0,
      scrub: this.#scrubber.status(),
      device: this.#options.device,
      deviceFreeBytes: diskFreeBytes === undefined ? undefined : bytes(diskFreeBytes),
      reservedBytes: bytes(reservedBytes),
    };
  }

  /** @throws HoldfastError WRONG_CLUSTER */
  async #registered({ clusterId, map }: Registered): Promise<void> {
    const { store } = this.#deps;
    if (store.clusterId !== clusterId) await store.adoptCluster(clusterId);
    this.#hello.clusterId = clusterId;
    if (map) this.#setMap(map);
  }

  #setMap(map: ClusterMap): void {
    // A push may have overtaken the registration's answer: the host keeps the newest.
    this.host.setMap(map);
    this.#peers.setMap(this.host.map ?? map);
  }

  #handle(frame: Frame, connection: FrameConnection): Promise<FrameReply> {
    if (this.#stopped) return Promise.reject(new HoldfastError('UNAVAILABLE', 'this server stops'));
    const { id = 0, role } = connection.peer ?? {};
    const now = this.#deps.clock.now();
    if (role !== 'client') return routeFrame(this.host, frame, connection, id, now);
    const { type } = frame.header;
    const shutOut = this.#fence.refusal(id);
    if (shutOut) return Promise.reject(shutOut);
    if (!CHANGES.has(type)) return routeFrame(this.host, frame, connection, id, now);
    this.#fence.begin(id);
    const done =
      type === FrameType.COPY ? this.#copies.serve(frame) : routeFrame(this.host, frame, connection, id, now);
    return done.finally(() => this.#fence.ended(id));
  }
}
