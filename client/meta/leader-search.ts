import { LEADER_RETRY_MIN_MS, leaderRetryMs } from '../../common/backoff.js';

/**
 * Which metaservers to ask for the leader, and when: all in parallel, each with its own back-off. Pure: time is passed
 * in, the caller opens the streams.
 */

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
      candidate.dueAt = now + leaderRetryMs(candidate.failures, now - this.#startedAt);
    }
    if (!hint || hint === address) return;
    this.add([hint]);
    const hinted = this.#candidates.get(hint);
    // A hint may be stale: it brings its probe forward, at most to one each LEADER_RETRY_MIN_MS.
    if (hinted && !hinted.probing) {
      hinted.dueAt = Math.min(hinted.dueAt, Math.max(now, hinted.probedAt + LEADER_RETRY_MIN_MS));
    }
  }
}
