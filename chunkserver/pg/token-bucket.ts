/** A bandwidth cap. Pure: time is handed in. Invariant: over any time t at most rate * t + burst + one item passes. */
export class TokenBucket {
  readonly #ratePerMs: number;
  readonly #burst: number;
  #tokens: number;
  #at: number;

  /** @param ratePerSecond bytes; @param burst bytes that may pass at once after a rest */
  constructor(ratePerSecond: number, burst: number, now: number) {
    this.#ratePerMs = ratePerSecond / 1000;
    this.#burst = burst;
    this.#tokens = burst;
    this.#at = now;
  }

  /** Takes `bytes` (going into debt for one larger than the burst). @returns 0, or the milliseconds to wait: nothing taken */
  take(bytes: number, now: number): number {
    this.#tokens = Math.min(this.#burst, this.#tokens + Math.max(0, now - this.#at) * this.#ratePerMs);
    this.#at = now;
    if (this.#tokens <= 0) return Math.max(1, Math.ceil(-this.#tokens / this.#ratePerMs));
    this.#tokens -= bytes;
    return 0;
  }

  /** Of what was taken so much did not pass. */
  giveBack(bytes: number): void {
    this.#tokens = Math.min(this.#burst, this.#tokens + bytes);
  }
}
