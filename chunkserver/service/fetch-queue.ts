import type { Clock, Timer } from '../../common/clock.js';
import { TokenBucket } from '../pg/token-bucket.js';
import type { Ask } from '../pg/types.js';

/** Chunks that this server fetches at one time .. */
export const FETCHES_MAX = 8;
/** .. and their bytes: clients' writes come over the same connections, behind what was fetched. */
export const FETCHING_BYTES_MAX = 8 * 1024 * 1024;
/** Clients count as active for so long after a request of theirs. */
export const FOREGROUND_MS = 250;
/** While clients are active, nothing is fetched for so much of the time that each fetch took. */
const REST_SHARE = 0.5;
/** A fetch that took longer, because its server hung, is not made up for. */
const REST_MAX_MS = 500;
const BURST_BYTES = 4 * 1024 * 1024;
/** After so many copied bytes the disk is told to write them down .. */
export const SYNC_BYTES = 8 * 1024 * 1024;
/** .. and with more that it has not, nothing more is fetched: a client's fsync must not wait for all that was copied. */
export const UNSYNCED_BYTES_MAX = 24 * 1024 * 1024;

interface Waiting {
  ask: Ask;
  bytes: number;
  copies: number;
}

/**
 * Fetches of all groups under one bandwidth cap, no faster than the disk takes them; groups with the fewest copies first.
 * The groups bound its length: each asks for a page of chunks at most. While clients are active one chunk is fetched at a
 * time, and half as long as it took nothing is fetched afterwards: copying leaves them a third of what this server can do.
 */
export class FetchQueue {
  readonly #clock: Clock;
  readonly #bucket: TokenBucket;
  readonly #send: (ask: Ask, done: (receivedBytes: number) => void) => void;
  #waiting: Waiting[] = [];
  #running = 0;
  #runningBytes = 0;
  #timer: Timer | undefined;
  readonly #sync: () => Promise<void>;
  #foregroundAt = Number.NEGATIVE_INFINITY;
  /** Clients have their turn until then. */
  #restUntil = Number.NEGATIVE_INFINITY;
  #unsynced = 0;
  #syncing = false;

  /**
   * @param send calls `done` once, when the answer or an error has come: reserved space of a chunk is told, not sent
   * @param sync makes what was copied durable; its failure ends the server, and is told elsewhere
   */
  constructor(
    clock: Clock,
    bytesPerSecond: number,
    send: (ask: Ask, done: (receivedBytes: number) => void) => void,
    sync: () => Promise<void>,
  ) {
    this.#clock = clock;
    this.#sync = sync;
    this.#bucket = new TokenBucket(bytesPerSecond, BURST_BYTES, clock.now());
    this.#send = send;
  }

  add(ask: Ask, pace: { bytes: number; copies: number }): void {
    this.#waiting.push({ ask, ...pace });
    this.#pump();
  }

  /** A client's request came, or a write that a primary forwards. */
  foreground(): void {
    this.#foregroundAt = this.#clock.now();
  }

  /** So much was copied into the store. */
  copied(bytes: number): void {
    this.#unsynced += bytes;
    if (this.#syncing || this.#unsynced < SYNC_BYTES) return;
    this.#syncing = true;
    const covered = this.#unsynced;
    const done = (): void => {
      this.#syncing = false;
      this.#unsynced -= covered;
      this.copied(0);
      this.#pump();
    };
    this.#sync().then(done, () => undefined);
  }

  close(): void {
    this.#timer?.cancel();
    this.#waiting = [];
  }

  #pump(): void {
    while (this.#timer === undefined && this.#unsynced < UNSYNCED_BYTES_MAX) {
      const index = this.#next();
      const entry = this.#waiting[index];
      if (!entry) return;
      const now = this.#clock.now();
      if (!this.#hasRoom(entry.bytes, now)) return;
      const wait = Math.max(this.#restUntil - now, 0) || this.#bucket.take(entry.bytes, now);
      if (wait > 0) {
        this.#timer = this.#clock.after(wait, () => this.#rested(), { weak: true });
        return;
      }
      this.#waiting.splice(index, 1);
      this.#fetch(entry, now);
    }
  }

  #rested(): void {
    this.#timer = undefined;
    this.#pump();
  }

  #hasRoom(bytes: number, now: number): boolean {
    if (this.#running === 0) return true;
    if (this.#clientsActive(now) || this.#running >= FETCHES_MAX) return false;
    return this.#runningBytes + bytes <= FETCHING_BYTES_MAX;
  }

  #clientsActive(now: number): boolean {
    return now - this.#foregroundAt < FOREGROUND_MS;
  }

  #fetch({ ask, bytes }: Waiting, startedAt: number): void {
    this.#running++;
    this.#runningBytes += bytes;
    this.#send(ask, (receivedBytes) => {
      this.#bucket.giveBack(Math.max(0, bytes - receivedBytes));
      this.#running--;
      this.#runningBytes -= bytes;
      const now = this.#clock.now();
      if (this.#clientsActive(now))
        this.#restUntil = now + Math.min((now - startedAt) * REST_SHARE, REST_MAX_MS);
      this.#pump();
    });
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
