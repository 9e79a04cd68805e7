import fs from 'node:fs';
import { pollingReader } from './polling-reader.js';

/** /dev/fuse as the session uses it; tests hand in another. */
export interface FuseDevice {
  /** Reads outstanding at a time that pay. */
  readonly readsMax: number;
  /** Threads of the pool that each outstanding read occupies. */
  readonly threadsPerRead: number;
  /** One request into `target`; calls back on a later turn. */
  read(target: Buffer, done: (error: NodeJS.ErrnoException | null, bytes: number) => void): void;
  /** One reply, whole. Never blocks. @throws the system's error, with its code */
  reply(buffers: readonly Buffer[]): void;
  /** One notification, from a thread of the pool: it may block until the session has answered other requests. */
  notify(message: Buffer): Promise<void>;
  /** One notification that takes no lock in the kernel, at once. @throws the system's error, with its code */
  notifyNow(message: Buffer): void;
  close(): void;
}

/** The device behind an open descriptor: polled by the event loop where Node can be told to, else read by pool threads. */
export function openFuseDevice(fd: number): FuseDevice {
  const reader = pollingReader(fd) ?? poolReader(fd);
  return {
    ...reader,
    reply(buffers) {
      if (buffers.length === 1) fs.writeSync(fd, buffers[0]!);
      else fs.writevSync(fd, buffers);
    },
    notify(message) {
      return new Promise((resolve, reject) => {
        fs.write(fd, message, 0, message.length, null, (error) => (error ? reject(error) : resolve()));
      });
    },
    notifyNow(message) {
      fs.writeSync(fd, message);
    },
  };
}

type Reader = Pick<FuseDevice, 'readsMax' | 'threadsPerRead' | 'read' | 'close'>;

/** Two parked reads keep the kernel busy: one request is decoded while the next is read. */
const POOL_READS = 2;

function poolReader(fd: number): Reader {
  return {
    readsMax: POOL_READS,
    threadsPerRead: 1,
    read: (target, done) => fs.read(fd, target, 0, target.length, null, done),
    close: () => fs.closeSync(fd),
  };
}

/** The system's name of an error (ENOENT), where it has one. */
export function systemErrorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
