import fs from 'node:fs';

/** /dev/fuse as the session uses it; tests hand in another. */
export interface FuseDevice {
  /** One request into `target`; calls back on a later turn. A read occupies a thread of the pool until then. */
  read(target: Buffer, done: (error: NodeJS.ErrnoException | null, bytes: number) => void): void;
  /** One reply, whole. Never blocks. @throws the system's error, with its code */
  reply(buffers: readonly Buffer[]): void;
  /** One notification, from a thread of the pool: it may block until the session has answered other requests. */
  notify(message: Buffer): Promise<void>;
  /** One notification that takes no lock in the kernel, at once. @throws the system's error, with its code */
  notifyNow(message: Buffer): void;
  close(): void;
}

/** The device behind an open descriptor. */
export function openFuseDevice(fd: number): FuseDevice {
  return {
    read(target, done) {
      fs.read(fd, target, 0, target.length, null, done);
    },
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
    close() {
      fs.closeSync(fd);
    },
  };
}

/** The system's name of an error (ENOENT), where it has one. */
export function systemErrorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
