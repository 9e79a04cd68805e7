import type { Clock } from '../../common/clock.js';
import { crc32c } from '../../common/crc32c.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import type { Disk } from '../../common/disk.js';
import { HoldfastError } from '../../proto/errors.js';
import type { RaftHello } from '../../proto/gen/raft.js';
import type { LogBase } from './log-records.js';
import type { PeerStream } from './peer-link.js';

export const SNAPSHOT_CHUNK_BYTES = 1024 * 1024;
/** Chunks sent and not acknowledged. */
export const SNAPSHOT_WINDOW_CHUNKS = 4;
/** No acknowledgement for so long: the attempt is given up. */
const ACK_TIMEOUT_MS = 30_000;
/** After the last chunk the receiver replaces its state machine. */
const INSTALL_TIMEOUT_MS = 120_000;

export interface SnapshotSend {
  disk: Disk;
  /** File with the copy. */
  path: string;
  meta: LogBase;
  term: number;
  hello: RaftHello;
  stream: PeerStream;
  clock: Clock;
}

/** Counts a receiver's acknowledgements: one for hello, one for each chunk. */
class Acks {
  readonly #stream: PeerStream;
  readonly #clock: Clock;
  #count = 0;
  #waiting: { count: number; done: Deferred<void> } | undefined;
  #failure: HoldfastError | undefined;

  constructor(stream: PeerStream, clock: Clock) {
    this.#stream = stream;
    this.#clock = clock;
    stream.onMessage(({ body }) => {
      if (body?.$case === 'accepted') this.#acknowledge();
      else if (body?.$case === 'refused') this.#fail(body.value.reason);
      else this.#fail('malformed acknowledgement');
    });
    stream.onEnd((reason) => this.#fail(reason));
  }

  #acknowledge(): void {
    this.#count++;
    if (this.#waiting && this.#count >= this.#waiting.count) this.#waiting.done.resolve();
  }

  #fail(reason: string): void {
    this.#failure ??= new HoldfastError('UNAVAILABLE', reason);
    this.#waiting?.done.reject(this.#failure);
  }

  /** Resolves when `count` have come. @throws HoldfastError UNAVAILABLE */
  async atLeast(count: number, timeoutMs: number): Promise<void> {
    if (this.#failure) throw this.#failure;
    if (this.#count >= count) return;
    const done = deferred<void>();
    this.#waiting = { count, done };
    const timer = this.#clock.after(timeoutMs, () => this.#stream.destroy('snapshot: no acknowledgement'), {
      weak: true,
    });
    try {
      await done.promise;
    } finally {
      timer.cancel();
      this.#waiting = undefined;
    }
  }
}

/**
 * Streams a copy of the state machine to a peer, at the pace at which the peer writes it down.
 * @returns bytes sent, when the peer has installed it
 * @throws HoldfastError UNAVAILABLE when the peer refuses, stops or falls silent; the disk's error
 */
export async function sendSnapshot(send: SnapshotSend): Promise<number> {
  const { stream, meta, term } = send;
  const acks = new Acks(stream, send.clock);
  try {
    const file = await send.disk.open(send.path, 'read');
    try {
      const total = await file.size();
      stream.send({ body: { $case: 'hello', value: send.hello } });
      await acks.atLeast(1, ACK_TIMEOUT_MS);
      let offset = 0;
      let sent = 0;
      do {
        await acks.atLeast(1 + sent - SNAPSHOT_WINDOW_CHUNKS + 1, ACK_TIMEOUT_MS);
        const data = Buffer.allocUnsafe(Math.min(SNAPSHOT_CHUNK_BYTES, total - offset));
        const got = await file.read(data, offset);
        if (got < data.length) throw new HoldfastError('UNAVAILABLE', `${send.path} became shorter`);
        const last = offset + got === total;
        const value = { meta, offset, data, last, crc32c: crc32c(data), total, term };
        stream.send({ body: { $case: 'chunk', value } });
        offset += got;
        sent++;
      } while (offset < total);
      await acks.atLeast(1 + sent, INSTALL_TIMEOUT_MS);
      return total;
    } finally {
      await file.close();
    }
  } finally {
    stream.destroy('snapshot ends');
  }
}
