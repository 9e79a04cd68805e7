import type { Interrupt } from '../../wait.js';
import type { Caller } from '../binding.js';
import type { InHeader } from './wire.js';

/** A request between its arrival and its answer; what the file system sees of it is the Caller. */
export class Call implements Caller, Interrupt {
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
  readonly unique: number;
  readonly opcode: number;
  readonly ino: number;
  /** Bytes of file data that it carries, for the limit on requests in flight. */
  dataBytes = 0;
  /** Of a rename: the directory that gains the name. */
  newParent: number | undefined;
  private interrupted = false;
  private readonly listeners: (() => void)[] = [];

  constructor(header: InHeader) {
    this.uid = header.uid;
    this.gid = header.gid;
    this.pid = header.pid;
    this.unique = header.unique;
    this.opcode = header.opcode;
    this.ino = header.ino;
  }

  get signal(): Interrupt {
    return this;
  }

  get aborted(): boolean {
    return this.interrupted;
  }

  addEventListener(_type: 'abort', listener: () => void): void {
    if (!this.interrupted) this.listeners.push(listener);
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    const at = this.listeners.indexOf(listener);
    if (at >= 0) this.listeners.splice(at, 1);
  }

  interrupt(): void {
    if (this.interrupted) return;
    this.interrupted = true;
    for (const listener of this.listeners.splice(0)) listener();
  }
}

/** Payloads from this size on are handed over with the read buffer itself; smaller ones are copied out of it. */
export const GIVE_AWAY_MIN_BYTES = 256 * 1024;

/** The buffer that one reader reads requests into. */
export class RequestBuffer {
  buf: Buffer;
  /** End of the present request. */
  end = 0;
  private given = false;

  constructor(private readonly bytes: number) {
    this.buf = Buffer.allocUnsafeSlow(bytes);
  }

  /** Bytes [from, to) for the file system to keep. Without a copy when that does not pin a mostly empty buffer. */
  take(from: number, to: number): Buffer {
    const bytes = this.buf.subarray(from, to);
    if (to - from < GIVE_AWAY_MIN_BYTES) return Buffer.from(bytes);
    this.given = true;
    return bytes;
  }

  /** Makes the buffer ready for the next request. */
  renew(): void {
    if (!this.given) return;
    this.given = false;
    this.buf = Buffer.allocUnsafeSlow(this.bytes);
  }
}
