import type { Clock, Timer, Timespec } from '../../../common/clock.js';

interface Pending {
  at: number;
  order: number;
  fn: () => void;
  everyMs: number;
}

/** A clock that stands still until the test moves it. */
export class ManualClock implements Clock {
  #now = 1_000;
  #order = 0;
  readonly #timers = new Set<Pending>();

  now(): number {
    return this.#now;
  }

  wall(): Timespec {
    const ms = Math.floor(this.#now);
    return { sec: 1_700_000_000 + Math.floor(ms / 1000), nsec: (ms % 1000) * 1_000_000 };
  }

  after(ms: number, fn: () => void): Timer {
    return this.#add(ms, fn, 0);
  }

  every(ms: number, fn: () => void): Timer {
    return this.#add(ms, fn, ms);
  }

  get timers(): number {
    return this.#timers.size;
  }

  /** Moves on by `ms`; whatever falls due on the way runs in order, with all that follows from it. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      await settle();
      let next: Pending | undefined;
      for (const timer of this.#timers) {
        if (timer.at > end) continue;
        if (!next || timer.at < next.at || (timer.at === next.at && timer.order < next.order)) next = timer;
      }
      if (!next) break;
      this.#now = Math.max(this.#now, next.at);
      if (next.everyMs > 0) next.at += next.everyMs;
      else this.#timers.delete(next);
      next.fn();
    }
    this.#now = end;
    await settle();
  }

  #add(ms: number, fn: () => void, everyMs: number): Timer {
    const timer = { at: this.#now + ms, order: this.#order++, fn, everyMs };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }
}

/** Lets everything run that can without time passing. */
export async function settle(): Promise<void> {
  for (let round = 0; round < 4; round++) await new Promise((resolve) => setImmediate(resolve));
}
