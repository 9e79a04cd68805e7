/** Seconds and nanoseconds since 1970; `sec` may be negative, `nsec` is 0..999,999,999. */
export interface Timespec {
  sec: number;
  nsec: number;
}

/** The later one of two times. */
export function laterTime<T extends Timespec>(one: T, other: T): T {
  return one.sec > other.sec || (one.sec === other.sec && one.nsec > other.nsec) ? one : other;
}

/** A pending timer; `cancel` is idempotent. */
export interface Timer {
  cancel(): void;
}

/** All time comes through this interface, so that the simulator can hand in its own. */
export interface Clock {
  /** Monotonic milliseconds, with fractions; its zero is arbitrary. */
  now(): number;
  /** Wall-clock time. */
  wall(): Timespec;
  /** Calls `fn` once after `ms` milliseconds. A pending timer does not keep the process alive when `weak`. */
  after(ms: number, fn: () => void, options?: { weak?: boolean }): Timer;
  /** Calls `fn` every `ms` milliseconds until cancelled. */
  every(ms: number, fn: () => void, options?: { weak?: boolean }): Timer;
}

const NS_PER_SEC = 1_000_000_000n;

/** The real clock of this machine. */
export const systemClock: Clock = {
  now: () => performance.now(),
  wall() {
    const ns =
      BigInt(Math.trunc(performance.timeOrigin * 1000)) * 1000n + BigInt(Math.trunc(performance.now() * 1e6));
    const drift = BigInt(Date.now()) * 1_000_000n - ns;
    // The wall clock may have been stepped since the process started: follow it beyond 5 ms.
    const now = drift > 5_000_000n || drift < -5_000_000n ? BigInt(Date.now()) * 1_000_000n : ns;
    return { sec: Number(now / NS_PER_SEC), nsec: Number(now % NS_PER_SEC) };
  },
  after(ms, fn, options) {
    const handle = setTimeout(fn, ms);
    if (options?.weak) handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
  every(ms, fn, options) {
    const handle = setInterval(fn, ms);
    if (options?.weak) handle.unref();
    return { cancel: () => clearInterval(handle) };
  },
};

/** Resolves after `ms` milliseconds of the given clock. */
export function delay(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => clock.after(ms, resolve));
}
