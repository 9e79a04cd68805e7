import type { Clock, Timer } from '../../common/clock.js';

/** One timer for the next of several deadlines, which mostly move away before they are reached. */
export class Alarm {
  readonly #clock: Clock;
  readonly #ring: () => void;
  #set: { at: number; timer: Timer } | undefined;

  /** @param ring harmless when it comes too early */
  constructor(clock: Clock, ring: () => void) {
    this.#clock = clock;
    this.#ring = ring;
  }

  /** Rings at `atMs` at the latest; one that is set for an earlier time stays, and is set again when it has rung. */
  setAt(atMs: number): void {
    if (this.#set && this.#set.at <= atMs) return;
    this.#set?.timer.cancel();
    const delayMs = Math.max(1, atMs - this.#clock.now());
    const timer = this.#clock.after(delayMs, () => {
      this.#set = undefined;
      this.#ring();
    });
    this.#set = { at: atMs, timer };
  }

  cancel(): void {
    this.#set?.timer.cancel();
  }
}
