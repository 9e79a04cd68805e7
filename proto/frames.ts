import type { Server, Socket } from 'node:net';
import type { Clock, Timer } from '../common/clock.js';
import { crc32c } from '../common/crc32c.js';
import { deferred } from '../common/deferred.js';
import type { Logger } from '../common/logger.js';
import { errorFromCode, HoldfastError, toHoldfastError } from './errors.js';
import { FRAME_HEADER_BYTES, type FrameFields, FrameType, joinFields, writeHeader } from './frame-header.js';
import { type Frame, FrameParser } from './frame-parser.js';
import { InPlaceSocket, readInPlace } from './in-place-socket.js';
import { connectTcp, serveTcp } from './tcp.js';
import { PROTOCOL_VERSION } from './types.js';

export type { Frame } from './frame-parser.js';

/**
 * The data plane: length-prefixed frames over TCP. Both sides of a connection may send requests; a reply carries the
 * request's type and id with the REPLY bit, and comes in any order. Payloads are checked against their CRC-32C when
 * they arrive and are never copied into a message.
 */

/** Request bytes that one connection works on at a time; beyond it the socket is not read. */
export const HANDLER_BYTES_MAX = 64 * 1024 * 1024;
/** Bytes that one connection holds unsent; beyond it call() refuses with OVERLOADED. */
export const SEND_QUEUE_BYTES_MAX = 128 * 1024 * 1024;
export const FRAME_CALLS_IN_FLIGHT_MAX = 16_384;
/** What one turn of the event loop sends is joined into one buffer up to this size: a copy costs less than a further write. */
const JOIN_BYTES_MAX = 32 * 1024;
/** The first frame must arrive within this time. */
const HELLO_TIMEOUT_MS = 5_000;
const SOCKET_KEEPALIVE_MS = 5_000;

/** What a handler answers: fields that differ from the request's, and a payload in one or more parts. */
export interface FrameReply {
  fields?: FrameFields;
  payload?: Buffer | Buffer[];
  /** CRC-32C of the payload when it is known already: saves computing it again. */
  payloadCrc?: number;
}

/** Serves requests; a rejection travels as the reply's status with its text as payload. */
export type FrameHandler = (frame: Frame, connection: FrameConnection) => Promise<FrameReply>;

/** Who is on the other side, from its HELLO. */
export interface FrameHello {
  protocol: number;
  clusterId: string;
  role: 'client' | 'chunkserver';
  /** Server id, or session id of a client. */
  id: number;
  /** Of a client: rises with each connection of the session. Absent: of a client that does not count them. */
  serial?: number;
}

/** Receives the outcome of a request, once: a reply or an error. */
export type ReplySink = (error: HoldfastError | undefined, reply: Frame | undefined) => void;

interface PendingFrame {
  sink: ReplySink;
  /** In the clock's milliseconds; infinite: none. */
  deadline: number;
}

/** One connection, either side. Made by dialFrames and FrameServer. */
export class FrameConnection {
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #handler: FrameHandler;
  readonly #parser: FrameParser;
  readonly #pending = new Map<number, PendingFrame>();
  readonly #closed = deferred<string>();
  /** Frames that leave at the end of this turn. */
  #batch: Buffer[] = [];
  #batchBytes = 0;
  /** One for all requests: most are answered long before their deadline. Rings at the earliest one or before. */
  #deadlineTimer: Timer | undefined;
  #deadlineTimerAt = Number.POSITIVE_INFINITY;
  #nextId = 1;
  #handlerBytes = 0;
  #ended = false;
  /** When bytes last came in, in the clock's milliseconds. */
  lastHeardAt: number;
  /** Set when the HELLO was exchanged. */
  peer: FrameHello | undefined;

  constructor(socket: Socket, options: { clock: Clock; log: Logger; handler: FrameHandler }) {
    this.#socket = socket;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#handler = options.handler;
    this.lastHeardAt = options.clock.now();
    this.#parser = new FrameParser((frame) => this.#receive(frame));
    socket.setNoDelay(true);
    socket.setKeepAlive(true, SOCKET_KEEPALIVE_MS);
    const inPlace = readInPlace(socket, {
      room: () => this.#parser.room(),
      filled: (bytes) => this.#heard(() => this.#parser.filled(bytes)),
    });
    if (!inPlace) socket.on('data', (chunk: Buffer) => this.#heard(() => this.#parser.push(chunk)));
    socket.on('error', (error) => this.close(error.message));
    socket.on('end', () => this.close('ended by the peer'));
    socket.on('close', () => this.close('closed'));
  }

  /** Settles with the reason when the connection has ended. */
  get closed(): Promise<string> {
    return this.#closed.promise;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Bytes that wait to be sent. */
  get queuedBytes(): number {
    return this.#socket.writableLength + this.#batchBytes;
  }

  get inFlight(): number {
    return this.#pending.size;
  }

  /**
   * Sends a request and waits for its reply.
   * @param deadlineMs 0: none (the connection's end settles it)
   * @throws HoldfastError the reply's status; CONNECTION_LOST or DEADLINE_EXCEEDED (outcome unknown); OVERLOADED
   */
  call(
    fields: FrameFields & { type: FrameType },
    payload: Buffer | Buffer[] | undefined,
    deadlineMs: number,
    payloadCrc?: number,
  ): Promise<Frame> {
    return new Promise<Frame>((resolve, reject) => {
      this.request(fields, payload, deadlineMs, payloadCrc, (error, reply) => {
        if (error) reject(error);
        else resolve(reply as Frame);
      });
    });
  }

  /**
   * call() with a callback: it runs while the bytes are being read, so that replies and requests of the other side are
   * seen in the order in which they were sent. It may run before request() returns, with an error.
   */
  request(
    fields: FrameFields & { type: FrameType },
    payload: Buffer | Buffer[] | undefined,
    deadlineMs: number,
    payloadCrc: number | undefined,
    sink: ReplySink,
  ): void {
    if (this.#ended) {
      sink(new HoldfastError('CONNECTION_LOST', 'connection ended'), undefined);
      return;
    }
    if (this.#pending.size >= FRAME_CALLS_IN_FLIGHT_MAX || this.queuedBytes > SEND_QUEUE_BYTES_MAX) {
      sink(new HoldfastError('OVERLOADED', 'too much is waiting on one connection'), undefined);
      return;
    }
    let id = this.#nextId;
    while (this.#pending.has(id)) id = (id % 0xffff_fffe) + 1;
    this.#nextId = (id % 0xffff_fffe) + 1;
    const deadline = deadlineMs > 0 ? this.#clock.now() + deadlineMs : Number.POSITIVE_INFINITY;
    this.#pending.set(id, { sink, deadline });
    this.#watchDeadline(deadline);
    this.#send(joinFields(fields, { requestId: id, deadlineMs }), payload, payloadCrc);
  }

  #watchDeadline(deadline: number): void {
    if (deadline >= this.#deadlineTimerAt) return;
    this.#deadlineTimer?.cancel();
    this.#deadlineTimerAt = deadline;
    const ring = (): void => this.#expire();
    this.#deadlineTimer = this.#clock.after(deadline - this.#clock.now(), ring, { weak: true });
  }

  #expire(): void {
    this.#deadlineTimerAt = Number.POSITIVE_INFINITY;
    const now = this.#clock.now();
    let next = Number.POSITIVE_INFINITY;
    const late: ReplySink[] = [];
    for (const [id, { sink, deadline }] of this.#pending) {
      if (deadline > now) next = Math.min(next, deadline);
      else {
        this.#pending.delete(id);
        late.push(sink);
      }
    }
    this.#watchDeadline(next);
    for (const sink of late) sink(new HoldfastError('DEADLINE_EXCEEDED'), undefined);
  }

  /** Breaks the connection off; pending calls are rejected with CONNECTION_LOST. Idempotent. */
  close(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#socket.destroy();
    this.#deadlineTimer?.cancel();
    this.#batch = [];
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const call of pending) call.sink(new HoldfastError('CONNECTION_LOST', reason), undefined);
    this.#closed.resolve(reason);
  }

  #send(
    fields: FrameFields & { type: number },
    payload: Buffer | Buffer[] | undefined,
    payloadCrc?: number,
  ): void {
    if (this.#ended) return;
    const parts = payload === undefined ? [] : Array.isArray(payload) ? payload : [payload];
    let bytes = 0;
    let crc = 0;
    for (const part of parts) bytes += part.length;
    if (payloadCrc !== undefined) crc = payloadCrc;
    else for (const part of parts) crc = crc32c(part, crc);
    const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
    writeHeader(header, fields, bytes, crc);
    if (this.#batch.length === 0) process.nextTick(() => this.#flush());
    this.#batch.push(header);
    for (const part of parts) if (part.length > 0) this.#batch.push(part);
    this.#batchBytes += FRAME_HEADER_BYTES + bytes;
  }

  /** All frames of one turn of the event loop leave in one system call. */
  #flush(): void {
    const batch = this.#batch;
    const bytes = this.#batchBytes;
    this.#batch = [];
    this.#batchBytes = 0;
    if (this.#ended) return;
    if (bytes <= JOIN_BYTES_MAX) {
      this.#socket.write(batch.length === 1 ? (batch[0] as Buffer) : Buffer.concat(batch, bytes));
      return;
    }
    this.#socket.cork();
    for (const part of batch) this.#socket.write(part);
    this.#socket.uncork();
  }

  #heard(parse: () => void): void {
    this.lastHeardAt = this.#clock.now();
    if (this.#ended) return;
    try {
      parse();
    } catch (error) {
      // The parser's own errors are of this class; a sink's failed assertion must end the process, not the connection.
      if (!(error instanceof HoldfastError)) throw error;
      this.close(error.message);
    }
  }

  #receive(frame: Frame): void {
    if (this.#ended) return; // it was closed amid what had arrived
    if (frame.header.isReply) {
      const call = this.#pending.get(frame.header.requestId);
      if (!call) return; // its deadline has passed
      this.#pending.delete(frame.header.requestId);
      if (frame.header.status === 0) call.sink(undefined, frame);
      else call.sink(frameError(frame), undefined);
      return;
    }
    const bytes = FRAME_HEADER_BYTES + frame.payload.length;
    this.#handlerBytes += bytes;
    if (this.#handlerBytes > HANDLER_BYTES_MAX) this.#socket.pause();
    this.#handler(frame, this).then(
      (reply) => {
        this.#send(
          joinFields(replyFields(frame), reply.fields ?? NO_FIELDS),
          reply.payload,
          reply.payloadCrc,
        );
        this.#handled(bytes);
      },
      (error: unknown) => {
        this.#sendError(frame, error);
        this.#handled(bytes);
      },
    );
  }

  #handled(bytes: number): void {
    this.#handlerBytes -= bytes;
    if (this.#handlerBytes <= HANDLER_BYTES_MAX && this.#socket.isPaused()) this.#socket.resume();
  }

  #sendError(frame: Frame, error: unknown): void {
    if (!(error instanceof HoldfastError))
      this.#log.error({ err: error, type: frame.header.type }, 'request failed');
    const failure = error instanceof FrameError ? error : toHoldfastError(error);
    const fields = failure instanceof FrameError ? failure.fields : {};
    const text = Buffer.from(failure.message.slice(0, 1024));
    this.#send({ ...replyFields(frame), ...fields, status: failure.code }, text);
  }
}

/** An error whose reply carries header fields as well, for instance NEED_TRUNCATE with the number known. */
export class FrameError extends HoldfastError {
  readonly fields: FrameFields;
  constructor(name: ConstructorParameters<typeof HoldfastError>[0], fields: FrameFields, detail?: string) {
    super(name, detail);
    this.fields = fields;
  }
}

const NO_FIELDS: FrameFields = {};

function replyFields(frame: Frame): FrameFields & { type: number } {
  const { type, requestId, pg, epoch, ino, chunk, offset } = frame.header;
  return { type: type | FrameType.REPLY, requestId, pg, epoch, ino, chunk, offset };
}

function frameError(frame: Frame): HoldfastError {
  const plain = errorFromCode(frame.header.status);
  return new FrameError(plain.errorName, frame.header, frame.payload.toString('utf8'));
}

/** How bytes travel: TCP, or a simulated network. */
export interface Sockets {
  /** Connects in the background; 'error' and 'close' tell that it failed. */
  connect(host: string, port: number): Socket;
  serve(onSocket: (socket: Socket) => void): Server;
}

/** Sockets of this machine. */
export const tcpSockets: Sockets = {
  connect: (host, port) => connectTcp(host, port, new InPlaceSocket()),
  serve: serveTcp,
};

/** Options of both sides of a connection. */
export interface FrameOptions {
  clock: Clock;
  log: Logger;
  handler: FrameHandler;
  hello: FrameHello;
  /** Default: TCP. */
  sockets?: Sockets;
}

/**
 * Connects and exchanges HELLO.
 * @throws HoldfastError UNAVAILABLE when nobody listens or the time is over; VERSION, WRONG_CLUSTER as refused
 */
export async function dialFrames(
  host: string,
  port: number,
  options: FrameOptions,
  timeoutMs: number,
): Promise<FrameConnection> {
  const socket = (options.sockets ?? tcpSockets).connect(host, port);
  const connection = new FrameConnection(socket, options);
  const hello = Buffer.from(JSON.stringify(options.hello));
  try {
    const reply = await connection.call({ type: FrameType.HELLO }, hello, timeoutMs);
    connection.peer = JSON.parse(reply.payload.toString('utf8')) as FrameHello;
    return connection;
  } catch (error) {
    const failure = toHoldfastError(error);
    connection.close(failure.message);
    if (failure.errorName === 'CONNECTION_LOST' || failure.errorName === 'DEADLINE_EXCEEDED') {
      throw new HoldfastError('UNAVAILABLE', `${host}:${port}: ${failure.message}`);
    }
    throw failure;
  }
}

/** Accepts connections; requests reach the handler only after a valid HELLO. */
export class FrameServer {
  readonly #server: Server;
  readonly #connections = new Set<FrameConnection>();
  readonly #options: FrameOptions;

  /** @param onConnection called after the HELLO of each connection; what it throws refuses that */
  constructor(options: FrameOptions, onConnection: (connection: FrameConnection) => void = () => {}) {
    this.#options = options;
    this.#server = (options.sockets ?? tcpSockets).serve((socket) => this.#accept(socket, onConnection));
  }

  #accept(socket: Socket, onConnection: (connection: FrameConnection) => void): void {
    const { clock, log, handler, hello } = this.#options;
    const connection = new FrameConnection(socket, {
      clock,
      log,
      handler: async (frame, self) => {
        if (self.peer) return handler(frame, self);
        if (frame.header.type !== FrameType.HELLO) throw new HoldfastError('PROTOCOL', 'HELLO expected');
        self.peer = checkHello(frame.payload, hello);
        timer.cancel();
        onConnection(self);
        return { payload: Buffer.from(JSON.stringify(hello)) };
      },
    });
    const timer = clock.after(HELLO_TIMEOUT_MS, () => connection.close('no HELLO'), { weak: true });
    this.#connections.add(connection);
    void connection.closed.then(() => {
      timer.cancel();
      this.#connections.delete(connection);
    });
  }

  /** @returns the port. @throws Error with code EADDRINUSE when it is taken */
  listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, () => {
        this.#server.off('error', reject);
        const address = this.#server.address();
        resolve(typeof address === 'object' && address !== null ? address.port : port);
      });
    });
  }

  /** Breaks all connections off and stops listening. */
  close(): void {
    this.#server.close();
    for (const connection of this.#connections) connection.close('server closed');
  }
}

function checkHello(payload: Buffer, own: FrameHello): FrameHello {
  let hello: Partial<FrameHello>;
  try {
    hello = JSON.parse(payload.toString('utf8')) as Partial<FrameHello>;
  } catch {
    throw new HoldfastError('PROTOCOL', 'HELLO is not JSON');
  }
  if (hello.protocol !== PROTOCOL_VERSION) {
    throw new HoldfastError(
      'VERSION',
      `got ${String(hello.protocol)}, this server speaks ${PROTOCOL_VERSION}`,
    );
  }
  if (own.clusterId === '') throw new HoldfastError('UNAVAILABLE', 'this server is in no cluster yet');
  if (hello.clusterId !== own.clusterId) {
    throw new HoldfastError('WRONG_CLUSTER', `got ${String(hello.clusterId)}, this is ${own.clusterId}`);
  }
  if ((hello.role !== 'client' && hello.role !== 'chunkserver') || typeof hello.id !== 'number') {
    throw new HoldfastError('PROTOCOL', 'HELLO names no role or id');
  }
  const { protocol, clusterId, role, id } = hello;
  const serial = typeof hello.serial === 'number' ? hello.serial : undefined;
  return { protocol, clusterId, role, id, serial };
}
