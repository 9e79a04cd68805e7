import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  credentials as grpcCredentials,
  type handleBidiStreamingCall,
  type handleUnaryCall,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServiceDefinition,
  status,
} from '@grpc/grpc-js';
import { assert } from '../common/assert.js';
import type { Clock, Timer } from '../common/clock.js';
import { type Deferred, deferred } from '../common/deferred.js';
import type { Logger } from '../common/logger.js';
import { errorFromCode, HoldfastError } from './errors.js';
import { MAX_MESSAGE_BYTES } from './types.js';

/**
 * gRPC for control and metadata. One long-lived bidirectional stream for each pair of processes carries many calls,
 * each in an envelope with a request id; answers come in any order, id 0 is a push. Unary calls are for administration.
 */

/** A message type as ts-proto generates it. */
export interface MessageType<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(input: Uint8Array): T;
}

/** A method as ts-proto's generic definitions describe it. */
export interface MethodInfo<Req, Res> {
  readonly name: string;
  readonly requestType: MessageType<Req>;
  readonly requestStream: boolean;
  readonly responseType: MessageType<Res>;
  readonly responseStream: boolean;
}

/** Messages that a stream may hold unsent; beyond it the stream is broken off, the other side does not read. */
export const STREAM_QUEUE_MAX = 16_384;
/** Calls in flight on one CallStream. */
export const CALLS_IN_FLIGHT_MAX = 8_192;
/** gRPC's own keep-alive: finds a peer whose machine vanished. Silence within a lease is found by heartbeats. */
const KEEPALIVE_TIME_MS = 10_000;
const KEEPALIVE_TIMEOUT_MS = 5_000;

const CHANNEL_OPTIONS = {
  'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
  'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
  'grpc.keepalive_time_ms': KEEPALIVE_TIME_MS,
  'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_retries': 0,
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 500,
  'grpc.node.retry_max_attempts_limit': 0,
};

type Duplex<Out, In> = ClientDuplexStream<Out, In> | ServerDuplexStream<In, Out>;

/** One side of a bidirectional stream. Messages of one direction arrive in order. */
export class RpcStream<Out, In> {
  readonly #stream: Duplex<Out, In>;
  #onMessage: ((message: In) => void) | undefined;
  #onEnd: ((reason: string) => void) | undefined;
  #waiting: In[] = [];
  #endReason: string | undefined;
  /** Address of the other side, as gRPC names it. */
  readonly peer: string;

  constructor(stream: Duplex<Out, In>) {
    this.#stream = stream;
    this.peer = stream.getPeer();
    stream.on('data', (message: In) => {
      if (this.#endReason !== undefined) return;
      if (this.#onMessage) this.#onMessage(message);
      else this.#waiting.push(message);
    });
    stream.on('end', () => this.#finish('ended by the peer'));
    stream.on('error', (error: Error) => this.#finish(error.message));
    stream.on('close', () => this.#finish('closed'));
    if ('cancelled' in stream) stream.on('cancelled', () => this.#finish('cancelled by the peer'));
  }

  /** Sets the receiver; messages that came before are handed over now. Call it once. */
  onMessage(receiver: (message: In) => void): void {
    this.#onMessage = receiver;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const message of waiting) receiver(message);
  }

  /** Called once when the stream has ended, whichever side ended it; at once when it already has. */
  onEnd(receiver: (reason: string) => void): void {
    if (this.#endReason !== undefined) receiver(this.#endReason);
    else this.#onEnd = receiver;
  }

  get ended(): boolean {
    return this.#endReason !== undefined;
  }

  /** Bytes or messages (gRPC counts messages) that wait to be sent. */
  get queued(): number {
    return this.#stream.writableLength;
  }

  /** Sends in order; dropped when the stream has ended. A peer that does not read for too long ends the stream. */
  send(message: Out): void {
    if (this.#endReason !== undefined || !this.#stream.writable) return;
    if (this.#stream.writableLength > STREAM_QUEUE_MAX) {
      this.destroy('the peer does not read');
      return;
    }
    (this.#stream as ClientDuplexStream<Out, In>).write(message);
  }

  /** Ends this direction after what was sent. */
  end(): void {
    if (this.#endReason === undefined) this.#stream.end();
  }

  /** Breaks the stream off at once. */
  destroy(reason: string): void {
    if (this.#endReason !== undefined) return;
    if ('cancel' in this.#stream) this.#stream.cancel();
    // A server's stream has no cancel: an error is sent as the call's status, which ends it on both sides.
    else
      this.#stream.emit(
        'error',
        Object.assign(new Error(reason), { code: status.UNAVAILABLE, details: reason }),
      );
    this.#finish(reason);
  }

  #finish(reason: string): void {
    if (this.#endReason !== undefined) return;
    this.#endReason = reason;
    this.#waiting = [];
    const receiver = this.#onEnd;
    this.#onEnd = undefined;
    // The half-open rest of a stream is of no use to anybody here: both directions end together.
    try {
      this.#stream.end();
    } catch {
      // already destroyed
    }
    receiver?.(reason);
  }
}

/** An envelope that a client sends: `id` matches answer to request. */
export interface RequestEnvelope {
  id: number;
}
/** An envelope that a server sends: id 0 is a push; `error` is a code of proto/errors.ts. */
export interface ReplyEnvelope {
  id: number;
  error: number;
  errorText: string;
  leaderHint: string;
}

interface PendingCall<In> {
  deferred: Deferred<In>;
  timer: Timer;
}

/** The calling side of an enveloped stream: many calls in flight, pushes beside them. */
export class CallStream<Out extends RequestEnvelope, In extends ReplyEnvelope> {
  readonly #stream: RpcStream<Out, In>;
  readonly #clock: Clock;
  readonly #pending = new Map<number, PendingCall<In>>();
  #nextId = 1;

  /**
   * @param onPush receives envelopes with id 0
   * @param onEnd called once; all pending calls have been rejected with CONNECTION_LOST before
   */
  constructor(
    stream: RpcStream<Out, In>,
    clock: Clock,
    onPush: (push: In) => void,
    onEnd: (reason: string) => void,
  ) {
    this.#stream = stream;
    this.#clock = clock;
    stream.onMessage((message) => {
      if (message.id === 0) onPush(message);
      else this.#settle(message);
    });
    stream.onEnd((reason) => {
      const pending = [...this.#pending.values()];
      this.#pending.clear();
      for (const call of pending) {
        call.timer.cancel();
        call.deferred.reject(new HoldfastError('CONNECTION_LOST', reason));
      }
      onEnd(reason);
    });
  }

  get ended(): boolean {
    return this.#stream.ended;
  }

  get inFlight(): number {
    return this.#pending.size;
  }

  /**
   * Sends a request and waits for its answer.
   * @param make builds the envelope with the id it is given
   * @throws HoldfastError the server's error; CONNECTION_LOST, DEADLINE_EXCEEDED or OVERLOADED (outcome unknown in the first two)
   */
  call(make: (id: number) => Out, deadlineMs: number): Promise<In> {
    if (this.#stream.ended) return Promise.reject(new HoldfastError('CONNECTION_LOST', 'stream ended'));
    if (this.#pending.size >= CALLS_IN_FLIGHT_MAX) return Promise.reject(new HoldfastError('OVERLOADED'));
    const id = this.#nextId++;
    const result = deferred<In>();
    const timer = this.#clock.after(deadlineMs, () => {
      this.#pending.delete(id);
      result.reject(new HoldfastError('DEADLINE_EXCEEDED'));
    });
    this.#pending.set(id, { deferred: result, timer });
    this.#stream.send(make(id));
    return result.promise;
  }

  /** Sends without waiting for anything; `make` is given id 0. */
  push(make: (id: number) => Out): void {
    this.#stream.send(make(0));
  }

  close(reason: string): void {
    this.#stream.destroy(reason);
  }

  #settle(message: In): void {
    const call = this.#pending.get(message.id);
    if (!call) return; // its deadline has passed
    this.#pending.delete(message.id);
    call.timer.cancel();
    if (message.error === 0) {
      call.deferred.resolve(message);
      return;
    }
    const error = errorFromCode(message.error, message.errorText || undefined);
    if (message.leaderHint) error.leaderHint = message.leaderHint;
    call.deferred.reject(error);
  }
}

/** Listens for gRPC calls on one port. */
export class RpcServer {
  readonly #server = new Server(CHANNEL_OPTIONS);
  readonly #log: Logger;
  readonly #services = new Map<string, { definition: ServiceDefinition; handlers: Handlers }>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Serves a bidirectional method; `onStream` is called for each stream that a peer opens. */
  addStream<Req, Res>(
    service: string,
    method: MethodInfo<Req, Res>,
    onStream: (stream: RpcStream<Res, Req>) => void,
  ): void {
    const handler: handleBidiStreamingCall<Req, Res> = (call) => onStream(new RpcStream<Res, Req>(call));
    this.#add(service, method, handler as Handlers[string]);
  }

  /** Serves a unary method; a HoldfastError travels as its code and text. */
  addUnary<Req, Res>(
    service: string,
    method: MethodInfo<Req, Res>,
    handle: (request: Req) => Promise<Res>,
  ): void {
    const handler: handleUnaryCall<Req, Res> = (call, callback) => {
      handle(call.request).then(
        (reply) => callback(null, reply),
        (error: unknown) => {
          const code = error instanceof HoldfastError ? error.code : 0;
          const details = error instanceof Error ? error.message : String(error);
          callback({ code: status.UNKNOWN, details: `${code} ${details}` });
        },
      );
    };
    this.#add(service, method, handler as Handlers[string]);
  }

  #add<Req, Res>(service: string, method: MethodInfo<Req, Res>, handler: Handlers[string]): void {
    const entry = this.#services.get(service) ?? { definition: {}, handlers: {} };
    entry.definition = { ...entry.definition, [method.name]: methodDefinition(service, method) };
    entry.handlers[method.name] = handler;
    this.#services.set(service, entry);
  }

  /**
   * Binds and serves.
   * @returns the port, chosen by the system when 0 was asked for
   * @throws Error when the address is in use or not ours
   */
  listen(host: string, port: number): Promise<number> {
    for (const { definition, handlers } of this.#services.values())
      this.#server.addService(definition, handlers);
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(`${host}:${port}`, ServerCredentials.createInsecure(), (error, bound) => {
        if (error) reject(error);
        else {
          this.#log.debug({ host, port: bound }, 'listening');
          resolve(bound);
        }
      });
    });
  }

  /** Ends all streams and stops listening. */
  close(): void {
    this.#server.forceShutdown();
  }
}

type Handlers = Record<string, handleBidiStreamingCall<unknown, unknown> | handleUnaryCall<unknown, unknown>>;

/** A gRPC channel to one server. It dials when first used and again after a failure. */
export class RpcClient {
  readonly #client: Client;
  readonly address: string;

  /** @param address host:port */
  constructor(address: string, channelCredentials: ChannelCredentials = grpcCredentials.createInsecure()) {
    this.address = address;
    this.#client = new Client(address, channelCredentials, CHANNEL_OPTIONS);
  }

  /** Opens a stream at once; that the server cannot be reached shows as its end. */
  openStream<Req, Res>(service: string, method: MethodInfo<Req, Res>): RpcStream<Req, Res> {
    assert(method.requestStream && method.responseStream, `${method.name} is not a bidirectional stream`);
    const definition = methodDefinition(service, method);
    const call = this.#client.makeBidiStreamRequest(
      definition.path,
      definition.requestSerialize,
      definition.responseDeserialize,
    );
    return new RpcStream<Req, Res>(call);
  }

  /** A unary call. @throws HoldfastError the server's, UNAVAILABLE, or DEADLINE_EXCEEDED */
  unary<Req, Res>(
    service: string,
    method: MethodInfo<Req, Res>,
    request: Req,
    deadlineMs: number,
  ): Promise<Res> {
    const definition = methodDefinition(service, method);
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        definition.path,
        definition.requestSerialize,
        definition.responseDeserialize,
        request,
        {
          deadline:
            deadlineMs === Infinity ? Infinity : performance.timeOrigin + performance.now() + deadlineMs,
        },
        (error, reply) => {
          if (!error) {
            resolve(reply as Res);
            return;
          }
          const [code, ...rest] = error.details.split(' ');
          if (error.code === status.UNKNOWN && Number(code) > 0) {
            reject(errorFromCode(Number(code), rest.join(' ')));
          } else if (error.code === status.DEADLINE_EXCEEDED) {
            reject(new HoldfastError('DEADLINE_EXCEEDED', `${this.address}: ${error.details}`));
          } else {
            reject(new HoldfastError('UNAVAILABLE', `${this.address}: ${error.details}`));
          }
        },
      );
    });
  }

  close(): void {
    this.#client.close();
  }
}

/** Where services are added: an RpcServer, or a simulated one. */
export type RpcServices = Pick<RpcServer, 'addStream' | 'addUnary'>;
/** What streams are opened on: an RpcClient, or a simulated one. */
export type RpcChannel = Pick<RpcClient, 'openStream' | 'close'>;
/** Makes a channel to host:port; nothing is dialled before a stream is opened. */
export type RpcDialer = (address: string) => RpcChannel;

/** Channels over gRPC. */
export const grpcChannel: RpcDialer = (address) => new RpcClient(address);

function methodDefinition<Req, Res>(
  service: string,
  method: MethodInfo<Req, Res>,
): MethodDefinition<Req, Res> {
  const asBuffer = (bytes: Uint8Array): Buffer =>
    Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    path: `/${service}/${method.name}`,
    requestStream: method.requestStream,
    responseStream: method.responseStream,
    requestSerialize: (message) => asBuffer(method.requestType.encode(message).finish()),
    requestDeserialize: (bytes) => method.requestType.decode(bytes),
    responseSerialize: (message) => asBuffer(method.responseType.encode(message).finish()),
    responseDeserialize: (bytes) => method.responseType.decode(bytes),
  };
}
