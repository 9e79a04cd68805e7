import type { RunningMount } from '../client/main.js';
import type { Clock, Timer } from '../common/clock.js';
import type { Logger } from '../common/logger.js';
import { type LocalMount, registerMount } from './mount-registry.js';

/**
 * Tells the process of a mount that its end is waited for. It stands for nothing else, and a process that does not know it
 * ignores it.
 */
export const ENDING_SIGNAL = 'SIGURG';
/** An unmounted directory of which no server has taken anything for so long is given up. */
export const ENDING_STALL_MS = 15_000;
/** Between two notes of how far it is. */
export const ENDING_NOTE_INTERVAL_MS = 250;

/**
 * The end of a mount as its own process sees it. The kernel's part of an unmount waits for data that may never be written
 * back, and nothing ends that but the end of this process.
 */
export class EndingMount {
  readonly #local: LocalMount;
  readonly #mount: RunningMount;
  readonly #deps: { clock: Clock; log: Logger };
  #timer: Timer | undefined;
  #beat = 0;
  #seen = '';
  #seenAt = 0;

  constructor(local: LocalMount, mount: RunningMount, deps: { clock: Clock; log: Logger }) {
    this.#local = local;
    this.#mount = mount;
    this.#deps = deps;
  }

  /** Somebody waits for the end: from now on it is said how far it is, and given up when nothing goes on. Idempotent. */
  watch(): void {
    if (this.#timer) return;
    this.#look();
    this.#timer = this.#deps.clock.every(ENDING_NOTE_INTERVAL_MS, () => this.#look(), { weak: true });
  }

  /** The mount has ended. @returns whether something was given up, which has been noted */
  ended(): boolean {
    this.#timer?.cancel();
    const { bytes, changes } = this.#mount.unwritten();
    if (bytes === 0 && changes === 0) return false;
    this.#note(true);
    return true;
  }

  #look(): void {
    const { clock, log } = this.#deps;
    const unwritten = this.#mount.unwritten();
    const seen = JSON.stringify([unwritten, this.#mount.statistics().fuse]);
    if (seen !== this.#seen) {
      this.#seen = seen;
      this.#seenAt = clock.now();
    }
    const givenUp = clock.now() - this.#seenAt >= ENDING_STALL_MS;
    this.#note(givenUp);
    if (!givenUp) return;
    log.error({ ...unwritten }, 'unmounted, and no server takes what is unwritten: it is lost');
    process.kill(process.pid, 'SIGKILL');
  }

  #note(givenUp: boolean): void {
    const unwritten = this.#mount.unwritten();
    registerMount(this.#local, { beat: ++this.#beat, unwritten, givenUp });
  }
}
