/**
 * For so long, us, the next request is polled for behind an answer. A program that makes one call after the other makes the next
 * one within some ten; to sleep until then costs two wake-ups, and more than that where an idle processor has to be woken by
 * a hypervisor.
 */
export const BUSY_POLL_US = 60;
export const BUSY_POLL_US_MAX = 1_000;
/** Polls in a row that may be in vain before answers are let pass without one .. */
const MISSES_BEFORE_PAUSE = 4;
/** .. so many at first, and twice as many behind each further miss: who waits longer between calls costs next to nothing. */
const PAUSE_ANSWERS_MIN = 8;
const PAUSE_ANSWERS_MAX = 512;

/** The event loop, as far as it is used here. */
export interface Turns {
  /** Monotonic milliseconds, with fractions. */
  now(): number;
  /** Calls `fn` on the next turn, which polls for I/O before and does not sleep. */
  next(fn: () => void): void;
}

/** The event loop of this process. */
const eventLoop: Turns = { now: () => performance.now(), next: (fn) => setImmediate(fn) };

/**
 * Keeps the event loop turning for a moment behind an answer, so that the next request finds it awake (busy polling, as
 * SO_BUSY_POLL in socket(7) does for the network). It learns: where nothing comes in time, be it that the program computes or
 * that others need the processors, it soon polls behind few answers only, and again behind each once that pays.
 */
export class BusyPoll {
  readonly #turns: Turns;
  readonly #windowMs: number;
  /** A request is expected until then. */
  #until = 0;
  #expecting = false;
  #turning = false;
  #misses = 0;
  /** Answers to let pass. */
  #pause = 0;
  #nextPause = PAUSE_ANSWERS_MIN;

  /** @param us how long each poll may last; 0: never */
  constructor(us: number = BUSY_POLL_US, turns: Turns = eventLoop) {
    this.#windowMs = us / 1000;
    this.#turns = turns;
  }

  /** An answer was given at once, and nobody waits for another one. */
  answered(): void {
    if (this.#windowMs === 0) return;
    if (this.#pause > 0) {
      this.#pause--;
      return;
    }
    this.#until = this.#turns.now() + this.#windowMs;
    this.#expecting = true;
    if (this.#turning) return;
    this.#turning = true;
    this.#turns.next(this.#turn);
  }

  /** A request has come that will be answered. */
  arrived(): void {
    if (!this.#expecting) return;
    this.#expecting = false;
    this.#misses = 0;
    this.#nextPause = PAUSE_ANSWERS_MIN;
  }

  readonly #turn = (): void => {
    if (this.#expecting && this.#turns.now() < this.#until) {
      this.#turns.next(this.#turn);
      return;
    }
    this.#turning = false;
    if (this.#expecting) this.#missed();
  };

  #missed(): void {
    this.#expecting = false;
    if (++this.#misses < MISSES_BEFORE_PAUSE) return;
    this.#pause = this.#nextPause;
    this.#nextPause = Math.min(PAUSE_ANSWERS_MAX, 2 * this.#nextPause);
  }
}
