import { delay, systemClock } from '../../common/clock.js';

const POLL_MS = 50;

/** Polls until `done` gives something true. @throws Error naming what was waited for */
export async function eventually<T>(
  what: string,
  done: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 60_000,
  pollMs = POLL_MS,
): Promise<T> {
  const end = systemClock.now() + timeoutMs;
  for (;;) {
    const value = await done();
    if (value) return value;
    if (systemClock.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await delay(systemClock, pollMs);
  }
}
