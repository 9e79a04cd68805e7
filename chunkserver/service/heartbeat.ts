import { leaderRetryMs } from '../../common/backoff.js';
import type { Clock, Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { Prng } from '../../common/prng.js';
import { EarlyPushes } from '../../proto/early-pushes.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import {
  type ChunkServerEnvelope,
  type ClusterMap,
  ClusterServiceDefinition,
  type Fence,
  type Heartbeat,
  type MetaToChunkServer,
  type PgTask,
  type Purge,
  type RegisterChunkServer,
  type Registered,
  type StepDown,
} from '../../proto/gen/cluster.js';
import { CallStream, type RpcChannel, type RpcDialer, tcpChannel } from '../../proto/rpc.js';
import { HEARTBEAT_INTERVAL_MS } from '../../proto/types.js';

/** A metaserver that has not answered so long is left for another one. */
export const HEARTBEAT_SILENCE_MS = 1000;
/** While one metaserver has not answered the registration, the next is asked as well after so long. */
const HEDGE_MS = 300;
const REGISTER_TIMEOUT_MS = 5000;
const REPORT_TIMEOUT_MS = 5000;
/** A new leader says at once what is to be purged: some of each group. */
const EARLY_PUSHES_MAX = 4096;

type Stream = CallStream<ChunkServerEnvelope, MetaToChunkServer>;
type Body = NonNullable<ChunkServerEnvelope['body']>;

export interface HeartbeatDeps {
  /** host:port of all metaservers. */
  addresses: string[];
  clock: Clock;
  log: Logger;
  prng: Prng;
  /** Default: gRPC. */
  dial?: RpcDialer;
  registration(): RegisterChunkServer;
  /** What a heartbeat says beside its number. */
  status(): Omit<Heartbeat, 'sequence'>;
  /** The metaserver took the registration. */
  onRegistered(registered: Registered): Promise<void>;
  /** Behind onRegistered, when the stream still stands: this server is part of the cluster. */
  onUp(): void;
  onMap(map: ClusterMap): void;
  /** @param until local milliseconds */
  onLease(until: number): void;
  /** Bytes that other servers whose stores are on the same file system have promised to writes. */
  onReservedElsewhere?(bytes: number): void;
  onPurge(purge: Purge): void;
  onTask(task: PgTask): void;
  /** This server is to give up a group that it leads. */
  onStepDown(step: StepDown): void;
  /** Which sessions to refuse: pushed, and with the registration before onRegistered settles. */
  onFence(fence: Fence): void;
  /** The stream that was registered has ended: the lease with it. */
  onDown(reason: string): void;
  /** The cluster refuses this server for good. */
  onRefused(error: HoldfastError): void;
}

/** One attempt to find the leader: the metaservers one after the other, overlapping when one is slow. */
interface Round {
  left: string[];
  streams: Set<Stream>;
  hint: string | undefined;
  timer: Timer | undefined;
  over: boolean;
}

/** The stream to the metaservers' leader: registration, heartbeats, leases, reports; found again when it ends. */
export class HeartbeatClient {
  readonly #deps: HeartbeatDeps;
  readonly #channels = new Map<string, RpcChannel>();
  #order: string[];
  #round: Round | undefined;
  #stream: Stream | undefined;
  /** #stream, once its registration was acted upon: pushes are understood from here on. */
  #up: Stream | undefined;
  readonly #early = new EarlyPushes<Stream, MetaToChunkServer>(EARLY_PUSHES_MAX);
  #beat: Timer | undefined;
  #retry: Timer | undefined;
  /** Rounds in a row. */
  #failures = 0;
  /** When the first of them began. */
  #searchedSince = 0;
  #sequence = 0;
  #heardAt = 0;
  #beatAt = 0;
  #closed = false;

  constructor(deps: HeartbeatDeps) {
    this.#deps = deps;
    this.#order = [...deps.addresses];
  }

  start(): void {
    this.#begin();
  }

  close(): void {
    this.#closed = true;
    this.#retry?.cancel();
    if (this.#round) this.#endRound(this.#round, undefined);
    this.#stream?.close('this server stops');
    for (const channel of this.#channels.values()) channel.close();
  }

  /** Sends a report; lost when no stream stands: who reports repeats it. */
  report(body: Body): void {
    this.#stream
      ?.call((id) => ({ id, body }), REPORT_TIMEOUT_MS)
      .catch((error: unknown) => {
        this.#deps.log.debug({ error: toHoldfastError(error).message, report: body.$case }, 'report failed');
      });
  }

  /** Sends what is not answered. */
  push(body: Body): void {
    this.#stream?.push((id) => ({ id, body }));
  }

  // ---- finding the leader

  #begin(): void {
    if (this.#closed) return;
    if (this.#failures === 0) this.#searchedSince = this.#deps.clock.now();
    const round: Round = {
      left: [...this.#order],
      streams: new Set(),
      hint: undefined,
      timer: undefined,
      over: false,
    };
    this.#round = round;
    this.#next(round);
  }

  #next(round: Round): void {
    round.timer?.cancel();
    if (round.over) return;
    const address = round.left.shift();
    if (address !== undefined) {
      round.timer = this.#deps.clock.after(HEDGE_MS, () => this.#next(round));
      void this.#attempt(round, address);
    } else if (round.streams.size === 0) {
      this.#endRound(round, undefined);
      this.#retryLater(round.hint);
    }
  }

  #retryLater(hint: string | undefined): void {
    const { clock, prng } = this.#deps;
    // Another metaserver is first in the next round.
    this.#order.push(this.#order.shift() as string);
    if (hint !== undefined) this.#order = [hint, ...this.#order.filter((address) => address !== hint)];
    const searchedMs = clock.now() - this.#searchedSince;
    const wait = leaderRetryMs(++this.#failures, searchedMs) * (0.5 + prng.float());
    this.#retry = clock.after(wait, () => this.#begin());
  }

  /** Closes the attempts that lost. */
  #endRound(round: Round, winner: Stream | undefined): void {
    round.over = true;
    round.timer?.cancel();
    if (this.#round === round) this.#round = undefined;
    for (const stream of round.streams) if (stream !== winner) stream.close('another metaserver leads');
  }

  async #attempt(round: Round, address: string): Promise<void> {
    const { clock, log, dial = tcpChannel, registration } = this.#deps;
    let channel = this.#channels.get(address);
    if (!channel) {
      channel = dial(address);
      this.#channels.set(address, channel);
    }
    const { fullName, methods } = ClusterServiceDefinition;
    const stream: Stream = new CallStream(
      channel.openStream(fullName, methods.heartbeat),
      clock,
      (message) => this.#pushed(stream, message),
      (reason) => this.#ended(stream, reason),
    );
    round.streams.add(stream);
    try {
      const value = registration();
      const reply = await stream.call(
        (id) => ({ id, body: { $case: 'register', value } }),
        REGISTER_TIMEOUT_MS,
      );
      if (reply.body?.$case !== 'registered')
        throw new HoldfastError('PROTOCOL', 'registration not answered');
      if (round.over) return;
      this.#endRound(round, stream);
      await this.#registered(stream, address, reply.body.value);
    } catch (error) {
      round.streams.delete(stream);
      stream.close('not registered');
      if (round.over) return;
      const failure = toHoldfastError(error);
      log.debug({ address, error: failure.message }, 'not registered');
      if (failure.errorName === 'WRONG_CLUSTER' || failure.errorName === 'VERSION') {
        this.#endRound(round, undefined);
        this.#deps.onRefused(failure);
        return;
      }
      const hint = failure.leaderHint;
      if (hint && round.left.includes(hint))
        round.left = [hint, ...round.left.filter((other) => other !== hint)];
      else if (hint) round.hint = hint;
      this.#next(round);
    }
  }

  async #registered(stream: Stream, address: string, registered: Registered): Promise<void> {
    const { clock, log, onRegistered } = this.#deps;
    this.#stream = stream;
    this.#heardAt = clock.now();
    this.#order = [address, ...this.#order.filter((other) => other !== address)];
    this.#failures = 0;
    log.info({ metaserver: address, mapVersion: registered.map?.version ?? 0 }, 'registered');
    try {
      if (registered.fence) this.#deps.onFence(registered.fence);
      await onRegistered(registered);
    } catch (error) {
      this.#deps.onRefused(toHoldfastError(error));
      return;
    }
    if (stream.ended) this.#ended(stream, 'ended while registering');
    if (this.#stream !== stream || this.#closed) return;
    this.#up = stream;
    this.#deps.onUp();
    for (const push of this.#early.take(stream)) this.#pushed(stream, push);
    const interval = registered.heartbeatIntervalMs || HEARTBEAT_INTERVAL_MS;
    this.#beatAt = clock.now();
    this.#beat = clock.every(interval, () => this.#tick(stream, interval));
    this.#send(stream);
  }

  // ---- the registered stream

  #tick(stream: Stream, interval: number): void {
    const now = this.#deps.clock.now();
    const late = now - this.#beatAt > 2 * interval;
    this.#beatAt = now;
    // After a pause of this process the answers may still wait in the socket: the next tick judges.
    if (!late && now - this.#heardAt > HEARTBEAT_SILENCE_MS) {
      stream.close(`no answer for ${HEARTBEAT_SILENCE_MS} ms`);
      return;
    }
    this.#send(stream);
  }

  /** The lease counts from the moment before sending: the metaserver's counts from receiving, which is later. */
  #send(stream: Stream): void {
    const { clock, status, log } = this.#deps;
    const sequence = ++this.#sequence;
    const value = { sequence, ...status() };
    const sentAt = clock.now();
    stream
      .call((id) => ({ id, body: { $case: 'heartbeat', value } }), REPORT_TIMEOUT_MS)
      .then(({ body }) => {
        if (this.#stream !== stream || body?.$case !== 'heartbeatAck') return;
        this.#heardAt = clock.now();
        this.#deps.onReservedElsewhere?.(body.value.reservedElsewhere ?? 0);
        if (body.value.leaseMs > 0) this.#deps.onLease(sentAt + body.value.leaseMs);
      })
      .catch((error: unknown) => {
        log.debug({ error: toHoldfastError(error).message }, 'heartbeat failed');
        if (toHoldfastError(error).errorName === 'NOT_LEADER') stream.close('it does not lead any more');
      });
  }

  #pushed(stream: Stream, push: MetaToChunkServer): void {
    if (stream !== this.#up) {
      this.#early.keep(stream, push);
      return;
    }
    const { body } = push;
    if (!body) return;
    if (body.$case === 'map') this.#deps.onMap(body.value);
    else if (body.$case === 'purge') this.#deps.onPurge(body.value);
    else if (body.$case === 'task') this.#deps.onTask(body.value);
    else if (body.$case === 'fence') this.#deps.onFence(body.value);
    else if (body.$case === 'stepDown') this.#deps.onStepDown(body.value);
  }

  #ended(stream: Stream, reason: string): void {
    if (stream !== this.#stream) return;
    this.#stream = undefined;
    this.#up = undefined;
    this.#beat?.cancel();
    this.#beat = undefined;
    this.#deps.log.warn({ reason }, 'heartbeat stream ended');
    this.#deps.onDown(reason);
    this.#begin();
  }
}
