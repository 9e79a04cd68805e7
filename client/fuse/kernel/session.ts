import { type Deferred, deferred } from '../../../common/deferred.js';
import type { Logger } from '../../../common/logger.js';
import { HoldfastError } from '../../../proto/errors.js';
import type { BindingInfo, FileSystem } from '../binding.js';
import { AttrOrder } from './attr-order.js';
import type { BusyPoll } from './busy-poll.js';
import { Call, RequestBuffer } from './call.js';
import { type FuseDevice, systemErrorCode } from './device.js';
import { MAX_WRITE_BYTES, negotiate, type ProtocolOptions, readInit, writeInit } from './init.js';
import type { Interrupts } from './interrupts.js';
import { LACKING, OPERATIONS, type Operation, type OperationContext } from './operations.js';
import { InitFlag, Opcode, OUT_HEADER_BYTES } from './protocol.js';
import { readBatchForget } from './requests.js';
import type { TakenIn } from './taken-in.js';
import { ARGS_AT, readInHeader, readU64, writeOutHeader } from './wire.js';

/** Requests that the file system works on at a time; beyond it nothing more is read from the kernel. */
export const MAX_IN_FLIGHT_REQUESTS = 4096;
/**
 * Requests that wait for locks do not count among those: only another request, to unlock, ends them, and it has to be read. A
 * further one is refused with ENOLCK.
 */
export const MAX_LOCK_WAITS = 4096;
/** File data that unanswered writes hold. */
export const MAX_IN_FLIGHT_WRITE_BYTES = 256 * 1024 * 1024;
/** A read must have room for the largest write and its headers. */
const READ_BUFFER_BYTES = MAX_WRITE_BYTES + 4096;
/** Room for every reply of fixed size. */
const SCRATCH_BYTES = 512;
/** Failed reads in a row before the session gives up. */
const MAX_READ_FAILURES = 100;

const EIO = 5;
const EAGAIN = 11;
const ENOSYS = 38;
const EPROTO = 71;
/** Errnos beyond it are refused by the kernel. */
const MAX_ERRNO = 511;

/** The connection is gone: unmounted or aborted. */
const CONNECTION_ENDED = new Set(['ENODEV', 'ECONNABORTED', 'ENOTCONN']);
/** A request that was interrupted while it was read, or a signal: read again. */
const READ_AGAIN = new Set(['ENOENT', 'EINTR', 'EAGAIN']);

export interface SessionOptions {
  fs: FileSystem;
  device: FuseDevice;
  log: Logger;
  protocol: ProtocolOptions;
  /** Reads outstanding at a time; each occupies a thread of the pool. */
  readers: number;
  info: BindingInfo;
  interrupts: Interrupts;
  takenIn: Pick<TakenIn, 'asked' | 'answering'>;
  busyPoll?: Pick<BusyPoll, 'answered' | 'arrived'>;
}

/** Speaks the FUSE protocol on an open device: reads requests, asks the file system, writes the answers. */
export class Session {
  /** Settles when INIT was answered; rejects when the kernel or the file system refused. */
  readonly ready: Deferred<void> = deferred();
  /** Resolves when the connection has ended and no reader is left on the device. */
  readonly ended: Deferred<void> = deferred();
  private readonly inFlight = new Map<number, Call>();
  private inFlightWriteBytes = 0;
  private lockWaits = 0;
  private readonly scratch = Buffer.alloc(SCRATCH_BYTES);
  private readonly context: OperationContext;
  private readonly pausedReaders: (() => void)[] = [];
  private activeReaders = 0;
  /** Requests read so far, by opcode: all of those have a place. */
  private readonly counts = new Array<number>(Math.max(...Object.values(Opcode)) + 1).fill(0);
  private readonly attrOrder: AttrOrder;
  private over = false;
  private readFailures = 0;

  constructor(private readonly options: SessionOptions) {
    const mayWaitForLock = (): boolean => this.lockWaits < MAX_LOCK_WAITS;
    this.context = { fs: options.fs, setxattrExt: false, mayWaitForLock };
    this.attrOrder = new AttrOrder((directory) => options.info.notify?.expireAttr?.(directory));
    this.ready.promise.catch(() => undefined);
  }

  /** Begins to read. The device must be mounted: reads fail with EPERM before. */
  start(): void {
    for (let i = 0; i < this.options.readers; i++) this.startReader();
  }

  /** Requests that wait for the file system. */
  get pending(): number {
    return this.inFlight.size;
  }

  get pendingWriteBytes(): number {
    return this.inFlightWriteBytes;
  }

  /** Requests read so far, by name. */
  requests(): Record<string, number> {
    const found: Record<string, number> = {};
    for (const [name, opcode] of Object.entries(Opcode)) {
      const count = this.counts[opcode];
      if (count) found[name] = count;
    }
    return found;
  }

  /** Treats the connection as ended, whether or not the kernel has said so. */
  end(): void {
    if (this.over) return;
    this.over = true;
    this.ready.reject(new HoldfastError('EIO', 'the mount ended before it began'));
    for (const call of this.inFlight.values()) call.interrupt();
    this.pausedReaders.length = 0;
    if (this.activeReaders === 0) this.ended.resolve();
  }

  private startReader(): void {
    const request = new RequestBuffer(READ_BUFFER_BYTES);
    const next = (): void => {
      if (this.over) return;
      if (this.isFull()) {
        this.pausedReaders.push(next);
        return;
      }
      this.activeReaders++;
      this.options.device.read(request.buf, onRead);
    };
    const onRead = (error: NodeJS.ErrnoException | null, bytes: number): void => {
      this.activeReaders--;
      if (error) this.onReadError(error);
      else {
        this.readFailures = 0;
        request.end = bytes;
        this.dispatch(request);
        request.renew();
      }
      if (this.over) {
        if (this.activeReaders === 0) this.ended.resolve();
      } else next();
    };
    next();
  }

  private isFull(): boolean {
    return (
      this.inFlight.size - Math.min(this.lockWaits, MAX_LOCK_WAITS) >= MAX_IN_FLIGHT_REQUESTS ||
      this.inFlightWriteBytes >= MAX_IN_FLIGHT_WRITE_BYTES
    );
  }

  private onReadError(error: NodeJS.ErrnoException): void {
    const code = systemErrorCode(error) ?? '';
    if (CONNECTION_ENDED.has(code)) this.end();
    else if (!READ_AGAIN.has(code)) {
      this.options.log.error({ err: error }, 'reading from /dev/fuse failed');
      if (++this.readFailures >= MAX_READ_FAILURES) this.end();
    }
  }

  private dispatch(request: RequestBuffer): void {
    const header = readInHeader(request.buf);
    const call = new Call(header);
    if (call.opcode < this.counts.length) this.counts[call.opcode]!++;
    try {
      switch (call.opcode) {
        case Opcode.FORGET:
          this.options.fs.forget(call.ino, readU64(request.buf, ARGS_AT));
          return;
        case Opcode.BATCH_FORGET:
          readBatchForget(request, (ino, count) => this.options.fs.forget(ino, count));
          return;
        case Opcode.INTERRUPT:
          this.interrupt(call.unique, readU64(request.buf, ARGS_AT));
          return;
        case Opcode.INIT:
          void this.init(call, request);
          return;
        case Opcode.DESTROY:
          this.replyError(call, 0);
          return;
      }
      this.options.busyPoll?.arrived();
      this.options.takenIn.asked(call);
      const operation = OPERATIONS[call.opcode];
      const answer = operation ? operation.run(this.context, call, request) : LACKING;
      if (!operation || answer === LACKING) this.replyError(call, ENOSYS);
      else if (answer instanceof Promise) this.await(call, operation, answer);
      else this.answer(call, operation, answer);
    } catch (error) {
      this.fail(call, error);
    }
    // Only behind an answer given at once: who waits for servers, or has just waited, leaves them the processor.
    if (this.inFlight.size === this.lockWaits) this.options.busyPoll?.answered();
  }

  private await(call: Call, operation: Operation, answer: Promise<unknown>): void {
    this.inFlight.set(call.unique, call);
    this.inFlightWriteBytes += call.dataBytes;
    if (call.opcode === Opcode.SETLKW) this.lockWaits++;
    answer.then(
      (result) => {
        this.settle(call);
        this.answer(call, operation, result);
      },
      (error: unknown) => {
        this.settle(call);
        this.fail(call, error);
      },
    );
  }

  private settle(call: Call): void {
    this.inFlight.delete(call.unique);
    this.options.interrupts.settled(call);
    this.inFlightWriteBytes -= call.dataBytes;
    if (call.opcode === Opcode.SETLKW) this.lockWaits--;
    while (this.pausedReaders.length > 0 && !this.isFull()) this.pausedReaders.pop()!();
  }

  /** An interrupt that overtook its request is sent again by the kernel when told EAGAIN. */
  private interrupt(interruptUnique: number, unique: number): void {
    const call = this.inFlight.get(unique);
    if (call) this.options.interrupts.interrupt(call);
    else this.send([this.header(OUT_HEADER_BYTES, -EAGAIN, interruptUnique)]);
  }

  private async init(call: Call, request: RequestBuffer): Promise<void> {
    const offer = readInit(request);
    const agreed = negotiate(offer, this.options.protocol);
    if (!agreed) {
      this.replyError(call, EPROTO);
      const version = `${offer.major}.${offer.minor}`;
      this.ready.reject(new HoldfastError('VERSION', `the kernel speaks FUSE ${version}, which is too old`));
      return;
    }
    this.context.setxattrExt = (agreed.flags & InitFlag.SETXATTR_EXT) !== 0;
    try {
      // Nothing else arrives before the answer to INIT.
      await this.options.fs.init?.(this.options.info);
    } catch (error) {
      this.fail(call, error);
      this.ready.reject(error);
      return;
    }
    const length = writeInit(this.scratch, OUT_HEADER_BYTES, agreed);
    this.send([this.header(OUT_HEADER_BYTES + length, 0, call.unique)]);
    const { minor, flags, flags2 } = agreed;
    this.options.log.debug({ kernelMinor: offer.minor, minor, flags, flags2 }, 'FUSE connection is up');
    this.ready.resolve();
  }

  private answer(call: Call, operation: Operation, result: unknown): void {
    if (this.over) return;
    try {
      this.attrOrder.answering(call, result);
      this.options.takenIn.answering(call, result);
      const body = operation.encode(this.scratch, OUT_HEADER_BYTES, result);
      if (typeof body === 'number' && body < 0) this.replyError(call, -body);
      else if (typeof body === 'number')
        this.send([this.header(OUT_HEADER_BYTES + body, 0, call.unique)], call);
      else {
        let length = OUT_HEADER_BYTES;
        for (const part of body) length += part.length;
        this.header(length, 0, call.unique);
        this.send([this.scratch.subarray(0, OUT_HEADER_BYTES), ...body], call);
      }
    } catch (error) {
      this.fail(call, error);
    }
  }

  /** What is not a HoldfastError is a bug of the file system or of an encoder: EIO, and logged. */
  private fail(call: Call, error: unknown): void {
    if (!(error instanceof HoldfastError)) {
      this.options.log.error(
        { err: error, opcode: call.opcode, ino: call.ino },
        'a request failed unexpectedly',
      );
    }
    this.replyError(call, error instanceof HoldfastError ? error.errno : EIO);
  }

  private replyError(call: Call, errno: number): void {
    const known = errno >= 0 && errno <= MAX_ERRNO ? errno : EIO;
    this.send([this.header(OUT_HEADER_BYTES, -known, call.unique)], call);
  }

  /** Writes a header into the scratch buffer; returns as much of it as belongs to the reply. */
  private header(length: number, error: number, unique: number): Buffer {
    writeOutHeader(this.scratch, length, error, unique);
    return this.scratch.subarray(0, Math.min(length, SCRATCH_BYTES));
  }

  private send(buffers: readonly Buffer[], call?: Call): void {
    if (this.over) return;
    try {
      this.options.device.reply(buffers);
    } catch (error) {
      const code = systemErrorCode(error) ?? '';
      // ENOENT: the request was interrupted and has gone. Harmless.
      if (code === 'ENOENT') return;
      if (CONNECTION_ENDED.has(code)) {
        this.end();
        return;
      }
      this.options.log.error(
        { err: error, opcode: call?.opcode, ino: call?.ino },
        'the kernel refused a reply',
      );
      // The asker must not wait for ever. A second refusal is final.
      if (call && buffers.length > 0 && buffers[0]!.readInt32LE(4) === 0) this.replyError(call, EIO);
    }
  }
}
