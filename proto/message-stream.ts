import type { Duplex } from 'node:stream';
import { crc32c } from '../common/crc32c.js';
import { HoldfastError } from './errors.js';
import { MAX_MESSAGE_BYTES } from './types.js';

/**
 * Messages on a byte stream: little-endian length u32, crc32c u32, then the encoded message. The dialling side begins
 * with STREAM_MAGIC, a length byte and the method, `/service/Method` in UTF-8. Why the long-lived streams are not
 * gRPC's: docs/decisions/message-streams-beside-grpc.md.
 */

/** A message type as ts-proto generates it. */
export interface MessageType<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(input: Uint8Array): T;
}

/** The first bytes of a connection that carries one message stream; gRPC's begin with "PRI ". */
export const STREAM_MAGIC = Buffer.from('HFM1', 'latin1');
/** Messages that a stream may hold unsent; beyond it the stream is broken off, the other side does not read. */
export const STREAM_QUEUE_MAX = 16_384;
/** Bytes likewise. */
export const STREAM_QUEUE_BYTES_MAX = 64 * 1024 * 1024;
const HEADER_BYTES = 8;
/** What one turn of the event loop sends is joined into one buffer up to this size: one system call, one allocation. */
const JOIN_BYTES_MAX = 64 * 1024;
/** A message out of a larger read is copied, lest what is kept of it holds the whole read in memory. */
const VIEW_OF_BYTES_MAX = 16 * 1024;

/** Runs `fn` in a later turn of the event loop, when all promises of this one have settled. */
export type LaterTurn = (fn: () => void) => void;

const laterTurn: LaterTurn = (fn) => void setImmediate(fn);

/** One side of a bidirectional stream. Messages of one direction arrive in order. */
export class RpcStream<Out, In> {
  readonly #socket: Duplex;
  readonly #encode: MessageType<Out>['encode'];
  readonly #decode: MessageType<In>['decode'];
  readonly #parser = new MessageParser((payload) => {
    this.#arrived.push(this.#decode(payload));
  });
  #onMessage: ((message: In) => void) | undefined;
  #onEnd: ((reason: string) => void) | undefined;
  #waiting: In[] = [];
  /** Decoded out of the chunk that is being taken in, not handed over yet. */
  #arrived: In[] = [];
  readonly #laterTurn: LaterTurn;
  /** Each message is handed over in a turn of its own; those that have arrived wait here, with the socket paused: one read. */
  #apart = false;
  readonly #inbox: In[] = [];
  #turning = false;
  /** Why the stream ends behind what waits. */
  #endsBehind: string | undefined;
  #batch: Buffer[] = [];
  #batchBytes = 0;
  #unsent = 0;
  #unsentBytes = 0;
  #ending = false;
  #endReason: string | undefined;
  /** Address of the other side. */
  readonly peer: string;

  /** @param socket connected or connecting; the stream owns it */
  constructor(
    socket: Duplex,
    out: MessageType<Out>,
    incoming: MessageType<In>,
    peer: string,
    later: LaterTurn = laterTurn,
  ) {
    this.#socket = socket;
    this.#laterTurn = later;
    this.#encode = out.encode;
    this.#decode = incoming.decode;
    this.peer = peer;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('end', () => this.#finishBehind('ended by the peer'));
    socket.on('error', (error: Error) => this.#finishBehind(error.message));
    socket.on('close', () => this.#finishBehind('closed'));
  }

  /**
   * Sets the receiver; messages that came before are handed over now. Call it once.
   * @param apart a message is handed over only when everything that those before it have set off, promises included, is
   *   done, though they were read from the socket at once: what awaits an answer acts upon it before the next one counts
   */
  onMessage(receiver: (message: In) => void, apart = false): void {
    this.#onMessage = receiver;
    this.#apart = apart;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#handOver(waiting);
  }

  /** Called once when the stream has ended, whichever side ended it; at once when it already has. */
  onEnd(receiver: (reason: string) => void): void {
    if (this.#endReason !== undefined) receiver(this.#endReason);
    else this.#onEnd = receiver;
  }

  get ended(): boolean {
    return this.#endReason !== undefined;
  }

  /** Messages that the system has not taken yet. */
  get queued(): number {
    return this.#unsent;
  }

  /** Sends in order; dropped when the stream has ended. A peer that does not read for too long ends the stream. */
  send(message: Out): void {
    if (this.#endReason !== undefined) return;
    this.sendBytes(asBuffer(this.#encode(message).finish()));
  }

  /** send() of an encoded message. */
  sendBytes(payload: Buffer): void {
    if (this.#endReason !== undefined || this.#ending) return;
    if (payload.length > MAX_MESSAGE_BYTES) {
      this.destroy(`a message of ${payload.length} bytes cannot be sent`);
      return;
    }
    if (this.#unsent >= STREAM_QUEUE_MAX || this.#unsentBytes >= STREAM_QUEUE_BYTES_MAX) {
      this.destroy('the peer does not read');
      return;
    }
    this.#unsent++;
    this.#unsentBytes += payload.length;
    this.#batchBytes += HEADER_BYTES + payload.length;
    if (this.#batch.push(payload) === 1) process.nextTick(() => this.#flush());
  }

  /** Ends this direction after what was sent. */
  end(): void {
    if (this.#endReason !== undefined || this.#ending) return;
    this.#flush();
    this.#ending = true;
    this.#socket.end();
  }

  /** Breaks the stream off at once. */
  destroy(reason: string): void {
    this.#finish(reason);
  }

  #flush(): void {
    const batch = this.#batch;
    if (batch.length === 0 || this.#endReason !== undefined) return;
    const total = this.#batchBytes;
    this.#batch = [];
    this.#batchBytes = 0;
    const sent = (): void => {
      this.#unsent -= batch.length;
      this.#unsentBytes -= total - batch.length * HEADER_BYTES;
    };
    if (total <= JOIN_BYTES_MAX) {
      const joined = Buffer.allocUnsafe(total);
      let at = 0;
      for (const payload of batch) {
        writeMessageHeader(joined, at, payload);
        joined.set(payload, at + HEADER_BYTES);
        at += HEADER_BYTES + payload.length;
      }
      this.#socket.write(joined, sent);
      return;
    }
    this.#socket.cork();
    for (const [index, payload] of batch.entries()) {
      const header = Buffer.allocUnsafe(HEADER_BYTES);
      writeMessageHeader(header, 0, payload);
      this.#socket.write(header);
      this.#socket.write(payload, index === batch.length - 1 ? sent : undefined);
    }
    this.#socket.uncork();
  }

  /**
   * What cannot be read ends the stream, after the messages before it. What a receiver throws does not concern the stream:
   * it is a failed assertion of this process, and must end that.
   */
  #take(chunk: Buffer): void {
    if (this.#endReason !== undefined) return;
    let problem: string | undefined;
    try {
      this.#parser.push(chunk);
    } catch (error) {
      problem = error instanceof Error ? error.message : String(error);
    }
    const arrived = this.#arrived;
    this.#arrived = [];
    this.#handOver(arrived);
    if (problem !== undefined) this.#finishBehind(problem);
  }

  #handOver(messages: readonly In[]): void {
    if (this.#apart) {
      for (const message of messages) this.#inbox.push(message);
      if (!this.#turning) this.#handNext();
      return;
    }
    for (const message of messages) {
      if (this.#endReason !== undefined) return;
      if (this.#onMessage) this.#onMessage(message);
      else this.#waiting.push(message);
    }
  }

  #handNext(): void {
    this.#turning = false;
    const message = this.#inbox.shift();
    if (message !== undefined) this.#onMessage?.(message);
    else if (this.#endsBehind !== undefined) this.#finish(this.#endsBehind);
    if (this.#endReason !== undefined) return;
    const paused = this.#socket.isPaused();
    // What the socket has kept meanwhile comes at once when it goes on: not in the turn of the last message either.
    if (this.#inbox.length > 0 || this.#endsBehind !== undefined || (paused && message !== undefined))
      this.#turn();
    else if (paused) this.#socket.resume();
  }

  #turn(): void {
    this.#turning = true;
    if (!this.#socket.isPaused()) this.#socket.pause();
    this.#laterTurn(() => this.#handNext());
  }

  /** The stream ends behind the messages that have arrived. */
  #finishBehind(reason: string): void {
    if (!this.#apart) {
      this.#finish(reason);
      return;
    }
    this.#endsBehind ??= reason;
    if (!this.#turning && this.#endReason === undefined) this.#turn();
  }

  /** The half-open rest of a stream is of no use to anybody here: both directions end together. */
  #finish(reason: string): void {
    if (this.#endReason !== undefined) return;
    this.#endReason = reason;
    this.#waiting = [];
    this.#inbox.length = 0;
    this.#batch = [];
    const receiver = this.#onEnd;
    this.#onEnd = undefined;
    this.#socket.destroy();
    receiver?.(reason);
  }
}

function writeMessageHeader(target: Buffer, at: number, payload: Buffer): void {
  target.writeUInt32LE(payload.length, at);
  target.writeUInt32LE(crc32c(payload), at + 4);
}

/** Cuts a byte stream into messages. */
export class MessageParser {
  readonly #onMessage: (payload: Buffer) => void;
  /** The begin of a message whose rest has not come: whole header and all, or less than a header. */
  #partial: Buffer | undefined;
  #filled = 0;

  constructor(onMessage: (payload: Buffer) => void) {
    this.#onMessage = onMessage;
  }

  /** @throws HoldfastError PROTOCOL (too large) or CORRUPT (checksum): the stream cannot be trusted further */
  push(chunk: Buffer): void {
    let at = this.#partial ? this.#complete(chunk) : 0;
    while (chunk.length - at >= HEADER_BYTES) {
      const length = messageLength(chunk, at);
      const end = at + HEADER_BYTES + length;
      if (end > chunk.length) break;
      const view = chunk.subarray(at + HEADER_BYTES, end);
      this.#deliver(chunk.length > VIEW_OF_BYTES_MAX ? Buffer.from(view) : view, chunk.readUInt32LE(at + 4));
      at = end;
    }
    if (at < chunk.length) this.#keep(chunk, at);
  }

  /** Fills the message that has begun from the chunk. @returns how much of the chunk it took */
  #complete(chunk: Buffer): number {
    let at = 0;
    let partial: Buffer = this.#partial as Buffer;
    if (this.#filled < HEADER_BYTES) {
      at = chunk.copy(partial, this.#filled, 0, HEADER_BYTES - this.#filled);
      this.#filled += at;
      if (this.#filled < HEADER_BYTES) return at;
    }
    const total = HEADER_BYTES + messageLength(partial, 0);
    if (partial.length !== total) {
      const whole: Buffer = Buffer.allocUnsafeSlow(total);
      partial.copy(whole, 0, 0, HEADER_BYTES);
      partial = whole;
      this.#partial = whole;
    }
    const taken = chunk.copy(partial, this.#filled, at, at + total - this.#filled);
    this.#filled += taken;
    if (this.#filled === total) {
      this.#partial = undefined;
      this.#deliver(partial.subarray(HEADER_BYTES), partial.readUInt32LE(4));
    }
    return at + taken;
  }

  #keep(chunk: Buffer, at: number): void {
    const left = chunk.length - at;
    const total = left >= HEADER_BYTES ? HEADER_BYTES + messageLength(chunk, at) : HEADER_BYTES;
    this.#partial = Buffer.allocUnsafeSlow(total);
    this.#filled = chunk.copy(this.#partial, 0, at);
  }

  #deliver(payload: Buffer, crc: number): void {
    if (crc32c(payload) !== crc) throw new HoldfastError('CORRUPT', 'checksum of a message');
    this.#onMessage(payload);
  }
}

/** @throws HoldfastError PROTOCOL before memory is allocated */
function messageLength(bytes: Buffer, at: number): number {
  const length = bytes.readUInt32LE(at);
  if (length > MAX_MESSAGE_BYTES) throw new HoldfastError('PROTOCOL', `message of ${length} bytes`);
  return length;
}

/** The same bytes, not copied. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
