import type { Clock, Timer } from '../../common/clock.js';
import { TokenBucket } from '../pg/token-bucket.js';
import type { Ask } from '../pg/types.js';

/** Chunks that this server fetches at one time. */
export const FETCHES_MAX = 8;
const BURST_BYTES = 8 * 1024 * 1024;

interface Waiting {
  ask: Ask;
  bytes: number;
  copies: number;
}

/**
 * Fetches of all groups under one bandwidth cap; groups with the fewest copies first. The groups bound its length: each
 * asks for a page of chunks at most.
 */
export class FetchQueue {
  readonly #clock: Clock;
  readonly #bucket: TokenBucket;
  readonly #send: (ask: Ask, done: () => void) => void;
  #waiting: Waiting[] = [];
  #running = 0;
  #timer: Timer | undefined;

  /** @param send calls `done` once, when the answer or an error has come */
  constructor(clock: Clock, bytesPerSecond: number, send: (ask: Ask, done: () => void) => void) {
    this.#clock = clock;
    this.#bucket = new TokenBucket(bytesPerSecond, BURST_BYTES, clock.now());
    this.#send = send;
  }

  add(ask: Ask, pace: { bytes: number; copies: number }): void {
    this.#waiting.push({ ask, ...pace });
    this.#pump();
  }

  close(): void {
    this.#timer?.cancel();
    this.#waiting = [];
  }

  #pump(): void {
    while (this.#running < FETCHES_MAX && this.#timer === undefined) {
      const index = this.#next();
      const entry = this.#waiting[index];
      if (!entry) return;
      const wait = this.#bucket.take(entry.bytes, this.#clock.now());
      if (wait > 0) {
        this.#timer = this.#clock.after(
          wait,
          () => {
            this.#timer = undefined;
            this.#pump();
          },
          { weak: true },
        );
        return;
      }
      this.#waiting.splice(index, 1);
      this.#running++;
      this.#send(entry.ask, () => {
        this.#running--;
        this.#pump();
      });
    }
  }

  /** The first of those with the fewest copies; what was cancelled is dropped. */
  #next(): number {
    this.#waiting = this.#waiting.filter(({ ask }) => !ask.cancelled);
    let best = -1;
    this.#waiting.forEach(({ copies }, index) => {
      if (best < 0 || copies < (this.#waiting[best] as Waiting).copies) best = index;
    });
    return best;
  }
}
