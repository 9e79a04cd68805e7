import { type AddressInfo, createServer, type Server as NetServer, type Socket } from 'node:net';
import {
  Client,
  credentials as grpcCredentials,
  type handleUnaryCall,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  status,
} from '@grpc/grpc-js';
import { assert } from '../common/assert.js';
import { type Clock, systemClock, type Timer } from '../common/clock.js';
import { type Deferred, deferred } from '../common/deferred.js';
import type { Logger } from '../common/logger.js';
import { errorFromCode, HoldfastError } from './errors.js';
import { asBuffer, type MessageType, RpcStream, STREAM_MAGIC } from './message-stream.js';
import { connectTcp } from './tcp.js';
import { MAX_MESSAGE_BYTES } from './types.js';

export { RpcStream };

/**
 * The services of proto/*.proto on one port. One long-lived bidirectional stream for each pair of processes carries
 * many calls, each in an envelope with a request id; answers come in any order, id 0 is a push. Unary calls, for
 * administration, are gRPC; streams are messages on a TCP connection of their own
 * (docs/decisions/message-streams-beside-grpc.md).
 */

/** A method as ts-proto's generic definitions describe it. */
export interface MethodInfo<Req, Res> {
  readonly name: string;
  readonly requestType: MessageType<Req>;
  readonly requestStream: boolean;
  readonly responseType: MessageType<Res>;
  readonly responseStream: boolean;
}

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
   * Whoever awaits an answer acts upon it before the next answer, or push, or the end, is taken in.
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
    }, true);
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
    error.reply = message;
    call.deferred.reject(error);
  }
}

/** A connection must say within this time what it is. */
const PREFACE_TIMEOUT_MS = 5_000;
const METHOD_PATH_BYTES_MAX = 255;
const SOCKET_KEEPALIVE_MS = 5_000;

/** Listens on one port for message streams and gRPC calls; the first bytes of a connection tell which it is. */
export class RpcServer {
  readonly #grpc = new Server(CHANNEL_OPTIONS);
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #services = new Map<string, { definition: ServiceDefinition; handlers: Handlers }>();
  readonly #streams = new Map<string, (socket: Socket, peer: string) => void>();
  readonly #sockets = new Set<Socket>();
  #listener: NetServer | undefined;

  constructor(log: Logger, clock: Clock = systemClock) {
    this.#log = log;
    this.#clock = clock;
  }

  /** Serves a bidirectional method; `onStream` is called for each stream that a peer opens. */
  addStream<Req, Res>(
    service: string,
    method: MethodInfo<Req, Res>,
    onStream: (stream: RpcStream<Res, Req>) => void,
  ): void {
    const { requestType, responseType } = method;
    this.#streams.set(methodPath(service, method.name), (socket, peer) =>
      onStream(new RpcStream<Res, Req>(socket, responseType, requestType, peer)),
    );
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
      this.#grpc.addService(definition, handlers);
    const injector = this.#grpc.createConnectionInjector(ServerCredentials.createInsecure());
    const listener = createServer((socket) => this.#accept(socket, (one) => injector.injectConnection(one)));
    this.#listener = listener;
    return new Promise((resolve, reject) => {
      listener.once('error', reject);
      listener.listen(port, host, () => {
        listener.off('error', reject);
        const bound = listener.address() as AddressInfo;
        this.#log.debug({ host, port: bound.port }, 'listening');
        resolve(bound.port);
      });
    });
  }

  /** Ends all streams and stops listening. */
  close(): void {
    this.#listener?.close();
    for (const socket of this.#sockets) socket.destroy();
    this.#grpc.forceShutdown();
  }

  #accept(socket: Socket, serveGrpc: (socket: Socket) => void): void {
    const peer = `${socket.remoteAddress}:${socket.remotePort}`;
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, SOCKET_KEEPALIVE_MS);
    const timer = this.#clock.after(PREFACE_TIMEOUT_MS, () => socket.destroy(), { weak: true });
    socket.on('error', () => {}); // `close` follows
    socket.on('close', () => {
      timer.cancel();
      this.#sockets.delete(socket);
    });
    let read: Buffer = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      read = read.length === 0 ? chunk : Buffer.concat([read, chunk]);
      const preface = readPreface(read);
      if (preface === undefined) return;
      timer.cancel();
      socket.off('data', onData);
      socket.pause();
      if (preface.kind === 'grpc') {
        socket.unshift(read);
        serveGrpc(socket);
        return;
      }
      const serve = this.#streams.get(preface.path);
      if (!serve) {
        this.#log.warn({ peer, path: preface.path }, 'refused a connection');
        socket.destroy();
        return;
      }
      if (preface.bytes < read.length) socket.unshift(read.subarray(preface.bytes));
      serve(socket, peer);
      socket.resume();
    };
    socket.on('data', onData);
  }
}

type Preface = { kind: 'grpc' } | { kind: 'stream'; path: string; bytes: number };

/** What a connection begins with; undefined: more bytes are needed. */
function readPreface(read: Buffer): Preface | undefined {
  if (read.length < STREAM_MAGIC.length) return undefined;
  if (read.subarray(0, 4).toString('latin1') === 'PRI ') return { kind: 'grpc' };
  if (!read.subarray(0, STREAM_MAGIC.length).equals(STREAM_MAGIC)) {
    return { kind: 'stream', path: '(no method)', bytes: 0 };
  }
  const at = STREAM_MAGIC.length + 1;
  const length = read[STREAM_MAGIC.length] ?? 0;
  if (read.length < at + length) return undefined;
  return { kind: 'stream', path: read.toString('utf8', at, at + length), bytes: at + length };
}

function methodPath(service: string, method: string): string {
  return `/${service}/${method}`;
}

type Handlers = Record<string, handleUnaryCall<unknown, unknown>>;

/** Calls one server. */
export class RpcClient {
  /** Made at the first unary call; it dials again after a failure. */
  #grpc: Client | undefined;
  readonly address: string;

  /** @param address host:port */
  constructor(address: string) {
    this.address = address;
  }

  /** Opens a stream at once, on a connection of its own; that the server cannot be reached shows as its end. */
  openStream<Req, Res>(service: string, method: MethodInfo<Req, Res>): RpcStream<Req, Res> {
    assert(method.requestStream && method.responseStream, `${method.name} is not a bidirectional stream`);
    const path = Buffer.from(methodPath(service, method.name));
    assert(path.length <= METHOD_PATH_BYTES_MAX, 'the method is short enough for a preface');
    const colon = this.address.lastIndexOf(':');
    const host = this.address.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
    const socket = connectTcp(host, Number(this.address.slice(colon + 1)));
    socket.setNoDelay(true);
    socket.setKeepAlive(true, SOCKET_KEEPALIVE_MS);
    socket.write(Buffer.concat([STREAM_MAGIC, Buffer.from([path.length]), path]));
    return new RpcStream<Req, Res>(socket, method.requestType, method.responseType, this.address);
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
      this.#channel().makeUnaryRequest(
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

  /** Streams that were opened go on. */
  close(): void {
    this.#grpc?.close();
    this.#grpc = undefined;
  }

  #channel(): Client {
    this.#grpc ??= new Client(this.address, grpcCredentials.createInsecure(), CHANNEL_OPTIONS);
    return this.#grpc;
  }
}

/** Where services are added: an RpcServer, or a simulated one. */
export type RpcServices = Pick<RpcServer, 'addStream' | 'addUnary'>;
/** What streams are opened on: an RpcClient, or a simulated one. */
export type RpcChannel = Pick<RpcClient, 'openStream' | 'close'>;
/** Makes a channel to host:port; nothing is dialled before a stream is opened. */
export type RpcDialer = (address: string) => RpcChannel;

/** Channels over TCP. */
export const tcpChannel: RpcDialer = (address) => new RpcClient(address);

function methodDefinition<Req, Res>(
  service: string,
  method: MethodInfo<Req, Res>,
): MethodDefinition<Req, Res> {
  return {
    path: methodPath(service, method.name),
    requestStream: method.requestStream,
    responseStream: method.responseStream,
    requestSerialize: (message) => asBuffer(method.requestType.encode(message).finish()),
    requestDeserialize: (bytes) => method.requestType.decode(bytes),
    responseSerialize: (message) => asBuffer(method.responseType.encode(message).finish()),
    responseDeserialize: (bytes) => method.responseType.decode(bytes),
  };
}
