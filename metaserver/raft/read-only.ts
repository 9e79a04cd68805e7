import type { ReadState } from './types.js';

/** Reads that wait for a round or for the leader's first commit; further ones fail at once. */
export const MAX_PENDING_READS = 65_536;
/**
 * Heartbeat rounds whose sending time is remembered; answers to older ones prove only that the peer lives.
 */
const ROUNDS_REMEMBERED = 64;
/** Share of the lease that the leader gives away, so that a clock that runs that much slower does no harm. */
export const LEASE_CLOCK_DRIFT_RATIO = 0.1;

/**
 * How long after the sending of a heartbeat round that a quorum answered the leader may serve reads alone,
 * ms. Each of the quorum received it later than it was sent and helps no other server into leadership for
 * `leaseMs` from then.
 */
export function leaseDurationMs(leaseMs: number): number {
  return leaseMs * (1 - LEASE_CLOCK_DRIFT_RATIO);
}

/**
 * A leader's reads that wait (Raft, section 6.4 of the thesis): a read registered at commit index i may be
 * answered from i on once a quorum has answered a heartbeat round that began after the registration. Reads
 * that arrive while a round is out share the next one.
 */
export class ReadOnly {
  #round = 0;
  /** Sending time of round r at place r mod ROUNDS_REMEMBERED. */
  readonly #sentMs = new Array<number>(ROUNDS_REMEMBERED).fill(0);
  /** In order of registration: `round` never decreases. */
  #waiting: { context: number; index: number; round: number }[] = [];
  /** Reads from before the first commit of the leader's term, which alone makes its commit index known. */
  #unindexed: number[] = [];

  /** Number of the last round sent. */
  get round(): number {
    return this.#round;
  }

  get pending(): number {
    return this.#waiting.length + this.#unindexed.length;
  }

  get full(): boolean {
    return this.pending >= MAX_PENDING_READS;
  }

  /** True when a read waits for a round that has not been sent. */
  get wantsRound(): boolean {
    return this.#waiting.length > 0 && this.#waiting[this.#waiting.length - 1]!.round > this.#round;
  }

  /** True when a read waits for a round that is out. */
  get roundOut(): boolean {
    return this.#waiting.length > 0 && this.#waiting[0]!.round <= this.#round;
  }

  /** Begins a round. */
  beginRound(nowMs: number): void {
    this.#round++;
    this.#sentMs[this.#round % ROUNDS_REMEMBERED] = nowMs;
  }

  /** When `round` was sent; undefined when that was too long ago to remember or never. */
  roundSentMs(round: number): number | undefined {
    if (round < 1 || round > this.#round || round <= this.#round - ROUNDS_REMEMBERED) return undefined;
    return this.#sentMs[round % ROUNDS_REMEMBERED];
  }

  /** Registers a read at a commit index. */
  add(context: number, index: number): void {
    this.#waiting.push({ context, index, round: this.#round + 1 });
  }

  /** Registers a read that must wait for the leader's first commit. */
  addUnindexed(context: number): void {
    this.#unindexed.push(context);
  }

  /** Takes the reads that waited for the first commit. */
  takeUnindexed(): number[] {
    const contexts = this.#unindexed;
    this.#unindexed = [];
    return contexts;
  }

  /** A quorum has answered `round`: takes the reads that this confirms. */
  confirm(round: number): ReadState[] {
    const end = this.#waiting.findIndex((read) => read.round > round);
    const done = end < 0 ? this.#waiting : this.#waiting.slice(0, end);
    this.#waiting = end < 0 ? [] : this.#waiting.slice(end);
    return done.map(({ context, index }) => ({ context, index }));
  }

  /** Takes all reads, failed: the leadership is lost. */
  failAll(): ReadState[] {
    const contexts = [...this.#waiting.map((read) => read.context), ...this.#unindexed];
    this.#waiting = [];
    this.#unindexed = [];
    return contexts.map((context) => ({ context, index: 0, failed: true }));
  }
}
