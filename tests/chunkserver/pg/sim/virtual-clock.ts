import type { Clock, Timer } from '../../../../common/clock.js';

interface Entry {
  at: number;
  order: number;
  fn: () => void;
  cancelled: boolean;
}

/** Work that is allowed: what goes on and on without coming to an end must be noticed. */
export interface EventBound {
  events: number;
  /** And so many more for each second that has passed. */
  eventsPerSec: number;
}

/** More happened than the bound allows. */
export class LivelockError extends Error {
  override name = 'LivelockError';
}

/** Events for each turn of the real event loop. */
const BATCH_EVENTS = 64;

/** Time that passes only by run(): events in the order of their time, then of their making. */
export class VirtualClock implements Clock {
  #now = 1000;
  #order = 0;
  #heap: Entry[] = [];
  readonly #bound: EventBound | undefined;
  /** That have run. */
  events = 0;

  /** @param bound beyond it run() gives up; default: none */
  constructor(bound?: EventBound) {
    this.#bound = bound;
  }

  now(): number {
    return this.#now;
  }

  wall(): { sec: number; nsec: number } {
    const ms = Math.floor(this.#now);
    return { sec: Math.floor(ms / 1000), nsec: (ms % 1000) * 1_000_000 };
  }

  after(ms: number, fn: () => void): Timer {
    const entry: Entry = { at: this.#now + Math.max(0, ms), order: this.#order++, fn, cancelled: false };
    this.#push(entry);
    return {
      cancel: () => {
        entry.cancelled = true;
      },
    };
  }

  every(ms: number, fn: () => void): Timer {
    let timer: Timer;
    const again = (): void => {
      timer = this.after(ms, () => {
        again();
        fn();
      });
    };
    again();
    return { cancel: () => timer.cancel() };
  }

  /**
   * Runs events until `until`; between them, promises settle.
   * @throws what an event throws
   * @throws LivelockError the bound is passed
   */
  run(until: number): Promise<void> {
    return new Promise((resolve, reject) => {
      let over = false;
      const step = (): void => {
        if (over) return;
        const next = this.#next(until);
        if (!next) {
          over = true;
          this.#now = until;
          resolve();
          return;
        }
        this.#now = next.at;
        try {
          this.#count();
          next.fn();
        } catch (error) {
          over = true;
          reject(error as Error);
        }
      };
      // Node settles promises between two immediates; many at once spare turns of the real event loop.
      const batch = (): void => {
        if (over) return;
        for (let i = 0; i < BATCH_EVENTS; i++) setImmediate(step);
        setImmediate(batch);
      };
      batch();
    });
  }

  #count(): void {
    this.events++;
    if (!this.#bound) return;
    const { events, eventsPerSec } = this.#bound;
    const most = events + (this.#now / 1000) * eventsPerSec;
    if (this.events > most) throw new LivelockError(`livelock: ${this.events} events by now`);
  }

  #next(until: number): Entry | undefined {
    for (let next = this.#heap[0]; next && next.at <= until; next = this.#heap[0]) {
      this.#pop();
      if (!next.cancelled) return next;
    }
    return undefined;
  }

  #before(a: Entry, b: Entry): boolean {
    return a.at < b.at || (a.at === b.at && a.order < b.order);
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!this.#before(entry, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#before(heap[child + 1]!, heap[child]!)) child++;
      if (!this.#before(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
  }
}
