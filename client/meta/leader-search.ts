import { backOffMs } from '../../common/backoff.js';

/**
 * Which metaservers to ask for the leader, and when: all in parallel, each with its own back-off. Pure: time is passed
 * in, the caller opens the streams.
 */

/** The first repetition comes this soon; it doubles from there. */
export const PROBE_RETRY_MIN_MS = 20;
/** While an election may be going on, nobody is asked less often than this. */
export const PROBE_RETRY_FAST_MAX_MS = 100;
/** A search that takes longer than this is no election: back off further. */
export const PROBE_FAST_PERIOD_MS = 5_000;
export const PROBE_RETRY_MAX_MS = 500;
/** Addresses that are remembered, hints included. */
export const ADDRESSES_MAX = 32;

interface Candidate {
  probing: boolean;
  failures: number;
  probedAt: number;
  dueAt: number;
}

export class LeaderSearch {
  readonly #candidates = new Map<string, Candidate>();
  #startedAt = 0;
  #active = false;

  constructor(addresses: readonly string[]) {
    this.add(addresses);
  }

  /** Remembers further addresses, up to ADDRESSES_MAX. */
  add(addresses: readonly string[]): void {
    for (const address of addresses) {
      if (address === '' || this.#candidates.has(address) || this.#candidates.size >= ADDRESSES_MAX) continue;
      this.#candidates.set(address, { probing: false, failures: 0, probedAt: -Infinity, dueAt: 0 });
    }
  }

  get addresses(): string[] {
    return [...this.#candidates.keys()];
  }

  get active(): boolean {
    return this.#active;
  }

  /** The search begins: everybody is due at once. */
  begin(now: number): void {
    this.#active = true;
    this.#startedAt = now;
    for (const candidate of this.#candidates.values()) {
      candidate.probing = false;
      candidate.failures = 0;
      candidate.dueAt = now;
    }
  }

  /** The leader is found. */
  end(): void {
    this.#active = false;
  }

  /** Addresses to ask now; each counts as being asked until failed(). */
  due(now: number): string[] {
    const found: string[] = [];
    if (!this.#active) return found;
    for (const [address, candidate] of this.#candidates) {
      if (candidate.probing || candidate.dueAt > now) continue;
      candidate.probing = true;
      candidate.probedAt = now;
      found.push(address);
    }
    return found;
  }

  /** When due() has something next; undefined: not before a failed(). */
  nextDueAt(): number | undefined {
    let next: number | undefined;
    if (!this.#active) return undefined;
    for (const candidate of this.#candidates.values()) {
      if (!candidate.probing && (next === undefined || candidate.dueAt < next)) next = candidate.dueAt;
    }
    return next;
  }

  /** `address` is not the leader or cannot be reached. @param hint the leader as it knows it, asked at once */
  failed(address: string, hint: string | undefined, now: number): void {
    const candidate = this.#candidates.get(address);
    if (candidate) {
      candidate.probing = false;
      candidate.failures++;
      const max = now - this.#startedAt < PROBE_FAST_PERIOD_MS ? PROBE_RETRY_FAST_MAX_MS : PROBE_RETRY_MAX_MS;
      candidate.dueAt = now + backOffMs(candidate.failures, PROBE_RETRY_MIN_MS, max);
    }
    if (!hint || hint === address) return;
    this.add([hint]);
    const hinted = this.#candidates.get(hint);
    // A hint may be stale: it brings its probe forward, at most to one each PROBE_RETRY_MIN_MS.
    if (hinted && !hinted.probing) {
      hinted.dueAt = Math.min(hinted.dueAt, Math.max(now, hinted.probedAt + PROBE_RETRY_MIN_MS));
    }
  }
}
