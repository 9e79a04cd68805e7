import { assert } from '../../common/assert.js';

/** Appends on their way to one peer, beside the bound in bytes. */
export const MAX_INFLIGHT_APPENDS = 256;

/** The appends that one peer has not acknowledged: a queue of (last index, bytes), oldest first. */
export class Inflights {
  readonly #maxBytes: number;
  readonly #indices: number[] = new Array<number>(MAX_INFLIGHT_APPENDS).fill(0);
  readonly #sizes: number[] = new Array<number>(MAX_INFLIGHT_APPENDS).fill(0);
  #head = 0;
  #count = 0;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /**
   * The last append may exceed the byte limit (an entry is never split), so that a limit below it cannot
   * block.
   */
  get full(): boolean {
    return this.#count === MAX_INFLIGHT_APPENDS || this.#bytes >= this.#maxBytes;
  }

  add(lastIndex: number, bytes: number): void {
    assert(!this.full, 'nothing is sent to a peer whose window is full');
    const slot = (this.#head + this.#count) % MAX_INFLIGHT_APPENDS;
    this.#indices[slot] = lastIndex;
    this.#sizes[slot] = bytes;
    this.#count++;
    this.#bytes += bytes;
  }

  /** Frees all appends that end at or before `index`. */
  free(index: number): void {
    while (this.#count > 0 && this.#indices[this.#head]! <= index) {
      this.#bytes -= this.#sizes[this.#head]!;
      this.#head = (this.#head + 1) % MAX_INFLIGHT_APPENDS;
      this.#count--;
    }
  }

  clear(): void {
    this.#head = 0;
    this.#count = 0;
    this.#bytes = 0;
  }
}

/**
 * probe: where the peer's log ends is unknown: one append at a time.
 * replicate: appends follow one another without waiting, up to the window.
 * snapshot: the peer needs entries that are compacted away; nothing is sent until it has the snapshot.
 */
export type ProgressState = 'probe' | 'replicate' | 'snapshot';

/**
 * What the leader knows about one peer. Invariants: match < next; match never decreases within a term;
 * in-flight appends exist only in `replicate`.
 */
export class Progress {
  state: ProgressState = 'probe';
  /** The peer's log is known to equal ours up to here, durably. */
  match = 0;
  /** The next entry to send. */
  next: number;
  /** In `probe`: an append is out; the next waits for its answer or for that of a later heartbeat. */
  probeSent = false;
  /** Index of the snapshot on its way, in `snapshot`. */
  pendingSnapshot = 0;
  readonly inflights: Inflights;
  /**
   * The heartbeat round before the last append: an answer to a later one tells of an append that got lost.
   */
  sentRound = 0;
  /** The commit index the peer was last told. */
  sentCommit = 0;
  /** Entries wait since then to be sent, see isDeferred; Infinity: none do. */
  deferredSinceMs = Number.POSITIVE_INFINITY;
  /** When the peer was last heard, ms. */
  lastActiveMs: number;
  /** Newest heartbeat round that the peer answered, and when that round was sent. */
  ackedRound = 0;
  ackedRoundSentMs = Number.NEGATIVE_INFINITY;

  constructor(next: number, maxInflightBytes: number, nowMs: number) {
    this.next = next;
    this.inflights = new Inflights(maxInflightBytes);
    this.lastActiveMs = nowMs;
  }

  /** True when no entries may be sent now. */
  get paused(): boolean {
    if (this.state === 'probe') return this.probeSent;
    return this.state === 'snapshot' || this.inflights.full;
  }

  #become(state: ProgressState): void {
    this.state = state;
    this.probeSent = false;
    this.pendingSnapshot = 0;
    this.inflights.clear();
  }

  becomeProbe(): void {
    // A snapshot that arrived moved the peer's log, though its answer may still be on its way.
    this.next = Math.max(this.match, this.pendingSnapshot) + 1;
    this.#become('probe');
  }

  becomeReplicate(): void {
    this.#become('replicate');
    this.next = this.match + 1;
  }

  becomeSnapshot(index: number): void {
    this.#become('snapshot');
    this.pendingSnapshot = index;
    this.next = index + 1;
  }

  /** An append with entries up to `lastIndex` was sent after heartbeat `round`; 0 bytes: it was empty. */
  sent(lastIndex: number, bytes: number, round: number): void {
    this.sentRound = round;
    if (this.state === 'probe') {
      this.probeSent = true;
    } else if (bytes > 0) {
      this.next = lastIndex + 1;
      this.inflights.add(lastIndex, bytes);
    }
  }

  /** The peer acknowledged everything up to `index`. @returns false when that was known. */
  acknowledge(index: number): boolean {
    if (this.next <= index) this.next = index + 1;
    if (index <= this.match) return false;
    this.match = index;
    this.probeSent = false;
    return true;
  }

  /**
   * The peer rejected the append after `rejected`.
   * @param hint the last index at which the logs may agree
   * @returns false when the answer is out of date
   */
  reject(rejected: number, hint: number): boolean {
    if (this.state === 'snapshot' || rejected <= this.match) return false;
    if (this.state === 'replicate') {
      this.next = this.match + 1;
      return true;
    }
    if (rejected !== this.next - 1) return false;
    this.next = Math.max(Math.min(rejected, hint + 1), this.match + 1);
    this.probeSent = false;
    return true;
  }
}
