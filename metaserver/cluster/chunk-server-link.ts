import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type {
  ChunkServerEnvelope,
  ChunkServerInfo,
  ClusterMap,
  Fence,
  Heartbeat,
  MetaToChunkServer,
  PgTask,
  PgTaskDone,
  Purge,
  PurgeDone,
  RegisterChunkServer,
  Registered,
  ReplicaCaughtUp,
  ReplicaFailed,
} from '../../proto/gen/cluster.js';
import type { RpcStream } from '../../proto/rpc.js';

/** Requests of one chunkserver that may wait for the log. */
export const LINK_REQUESTS_MAX = 4096;

/** What a link asks of the service that accepted it. */
export interface LinkHost {
  readonly map: ClusterMap | undefined;
  /** Which sessions a chunkserver is to refuse from now on. */
  fence(): Fence;
  /** The chunkserver keeps the fence of this version. */
  fenced(link: ChunkServerLink, version: number): void;
  /** Binds the identity to the link. The link adds the map. @throws HoldfastError the refusal; the stream is ended behind it */
  register(link: ChunkServerLink, request: RegisterChunkServer): Promise<Registered>;
  /** The registration was answered. */
  registered(link: ChunkServerLink): void;
  /** @returns the lease in ms, from the sending of the heartbeat; 0: none. Never rejects */
  heartbeat(link: ChunkServerLink, heartbeat: Heartbeat): number | Promise<number>;
  /** Bytes that other servers on the file system of this one have promised. */
  reservedElsewhere(link: ChunkServerLink): number;
  replicaFailed(link: ChunkServerLink, report: ReplicaFailed): Promise<void>;
  replicaCaughtUp(link: ChunkServerLink, report: ReplicaCaughtUp): Promise<void>;
  purgeDone(link: ChunkServerLink, done: PurgeDone): void;
  taskDone(link: ChunkServerLink, done: PgTaskDone): void;
  ended(link: ChunkServerLink, reason: string): void;
}

/** One chunkserver's stream: registration first, then heartbeats and reports. */
export class ChunkServerLink {
  readonly #rpc: RpcStream<MetaToChunkServer, ChunkServerEnvelope>;
  readonly #host: LinkHost;
  /** Who registered on it; undefined before that. */
  info: ChunkServerInfo | undefined;
  #asked = false;
  #registered = false;
  #closed = false;
  #inFlight = 0;

  constructor(rpc: RpcStream<MetaToChunkServer, ChunkServerEnvelope>, host: LinkHost) {
    this.#rpc = rpc;
    this.#host = host;
    rpc.onEnd((reason) => {
      this.#closed = true;
      host.ended(this, reason);
    });
    rpc.onMessage((envelope) => this.#receive(envelope));
  }

  get ended(): boolean {
    return this.#closed;
  }

  /** The registration was answered: pushes are understood from here on. */
  get registered(): boolean {
    return this.#registered && !this.#closed;
  }

  /** Refuses a stream on which nobody has registered by now. */
  expectRegistration(): void {
    if (!this.#asked) this.refuse(0, new HoldfastError('PROTOCOL', 'no registration came'));
  }

  pushMap(map: ClusterMap): void {
    if (this.registered) this.#answer(0, { $case: 'map', value: map });
  }

  pushFence(fence: Fence): void {
    if (this.registered) this.#answer(0, { $case: 'fence', value: fence });
  }

  pushPurge(purge: Purge): void {
    if (this.registered) this.#answer(0, { $case: 'purge', value: purge });
  }

  pushTask(task: PgTask): void {
    if (this.registered) this.#answer(0, { $case: 'task', value: task });
  }

  pushStepDown(pg: number, epoch: number): void {
    if (this.registered) this.#answer(0, { $case: 'stepDown', value: { pg, epoch } });
  }

  refuse(id: number, error: HoldfastError): void {
    if (this.#closed) return;
    this.#fail(id, error);
    this.#closed = true;
    this.#rpc.end();
  }

  end(reason: string): void {
    this.#rpc.destroy(reason);
  }

  #receive({ id, body }: ChunkServerEnvelope): void {
    if (this.#closed) return;
    if (!this.#asked) {
      this.#asked = true;
      if (body?.$case === 'register') void this.#register(id, body.value);
      else this.refuse(id, new HoldfastError('PROTOCOL', 'the first message must be the registration'));
      return;
    }
    if (!this.#registered || !body) {
      this.#fail(id, new HoldfastError('PROTOCOL', body ? 'not registered yet' : 'empty message'));
      return;
    }
    switch (body.$case) {
      case 'heartbeat': {
        const { sequence } = body.value;
        const lease = this.#host.heartbeat(this, body.value);
        const reservedElsewhere = this.#host.reservedElsewhere(this);
        const answer = (leaseMs: number): void =>
          this.#answer(id, { $case: 'heartbeatAck', value: { sequence, leaseMs, reservedElsewhere } });
        if (typeof lease === 'number') answer(lease);
        else void lease.then(answer);
        break;
      }
      case 'replicaFailed':
        void this.#request(id, () => this.#host.replicaFailed(this, body.value));
        break;
      case 'replicaCaughtUp':
        void this.#request(id, () => this.#host.replicaCaughtUp(this, body.value));
        break;
      case 'purgeDone':
        this.#host.purgeDone(this, body.value);
        this.#answer(id, { $case: 'ok', value: {} });
        break;
      case 'taskDone':
        this.#host.taskDone(this, body.value);
        this.#answer(id, { $case: 'ok', value: {} });
        break;
      case 'fenced':
        this.#host.fenced(this, body.value.version);
        break;
      case 'register':
        this.#fail(id, new HoldfastError('PROTOCOL', 'a second registration'));
        break;
    }
  }

  async #register(id: number, request: RegisterChunkServer): Promise<void> {
    try {
      const registered = await this.#host.register(this, request);
      this.#registered = true;
      // The map and the fence of this very moment: every later one is pushed.
      const { map } = this.#host;
      const fence = this.#host.fence();
      this.#answer(id, { $case: 'registered', value: { ...registered, map, fence } });
      this.#host.registered(this);
    } catch (error) {
      this.refuse(id, toHoldfastError(error));
    }
  }

  async #request(id: number, run: () => Promise<void>): Promise<void> {
    if (this.#inFlight >= LINK_REQUESTS_MAX) {
      this.#fail(id, new HoldfastError('OVERLOADED'));
      return;
    }
    this.#inFlight++;
    try {
      await run();
      this.#answer(id, { $case: 'ok', value: {} });
    } catch (error) {
      this.#fail(id, toHoldfastError(error));
    } finally {
      this.#inFlight--;
    }
  }

  /** A one-way message (id 0) is not answered; pushes have id 0 and are sent as they are. */
  #answer(id: number, body: NonNullable<MetaToChunkServer['body']>): void {
    if (this.#closed || (id === 0 && body.$case === 'ok')) return;
    this.#rpc.send({ id, error: 0, errorText: '', leaderHint: '', body });
  }

  #fail(id: number, error: HoldfastError): void {
    if (this.#closed) return;
    const { code, message, leaderHint = '' } = error;
    this.#rpc.send({ id, error: code, errorText: message, leaderHint, body: undefined });
  }
}
