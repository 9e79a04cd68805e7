import type { FuseDevice } from '../../../../client/fuse/kernel/device.js';

type ReadDone = (error: NodeJS.ErrnoException | null, bytes: number) => void;

/** An error as the system would give it. */
export function systemError(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(code), { code });
}

/** A device in memory: requests are pushed in, replies are kept. */
export class FakeDevice implements FuseDevice {
  readonly readsMax = 2;
  readonly threadsPerRead = 1;
  readonly replies: { error: number; unique: number; body: Buffer }[] = [];
  readonly notifications: Buffer[] = [];
  /** Thrown by the next replies, one each. */
  readonly replyErrors: NodeJS.ErrnoException[] = [];
  closed = false;
  private readonly reading: { target: Buffer; done: ReadDone }[] = [];

  /** Readers that wait for a request. */
  get waitingReaders(): number {
    return this.reading.length;
  }

  read(target: Buffer, done: ReadDone): void {
    this.reading.push({ target, done });
  }

  /** Hands a request to a waiting reader. */
  push(request: Buffer): void {
    const { target, done } = this.takeReader();
    request.copy(target);
    done(null, request.length);
  }

  /** Fails the read of a waiting reader. */
  fail(code: string): void {
    this.takeReader().done(systemError(code), 0);
  }

  reply(buffers: readonly Buffer[]): void {
    const error = this.replyErrors.shift();
    if (error) throw error;
    const all = Buffer.concat(buffers);
    if (all.readUInt32LE(0) !== all.length) throw systemError('EINVAL');
    this.replies.push({
      error: all.readInt32LE(4),
      unique: Number(all.readBigUInt64LE(8)),
      body: all.subarray(16),
    });
  }

  async notify(message: Buffer): Promise<void> {
    this.notifications.push(message);
  }

  notifyNow(): void {}

  close(): void {
    this.closed = true;
  }

  private takeReader(): { target: Buffer; done: ReadDone } {
    const reader = this.reading.shift();
    if (!reader) throw new Error('nobody reads the device');
    return reader;
  }
}
