import type { Clock, Timer } from '../../common/clock.js';
import { delay } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { Prng } from '../../common/prng.js';
import { toHoldfastError } from '../../proto/errors.js';
import type { CheckedPage, ScrubStatus } from '../../proto/gen/cluster.js';
import type { AuditRequest } from './audit.js';
import type { Repair } from './repair.js';

/** The first pass begins within this time of the start, so that a server which is often restarted is scrubbed too. */
export const FIRST_PASS_WITHIN_MS = 3_600_000;

/** What a chunk costs at least, of the rate: small files are read one by one, each from a place of its own. */
const CHUNK_COST_BYTES = 64 * 1024;

export interface ScrubberOptions {
  /** From the end of one pass to the begin of the next; 0: never. */
  intervalMs: number;
  /** Read by one server, of its own copies; its replicas read as much at the same time. */
  bytesPerSecond: number;
}

export interface ScrubberDeps {
  clock: Clock;
  prng: Prng;
  log: Logger;
  repair: Repair;
  /** Groups that this server leads now. */
  led(): number[];
  /** @throws HoldfastError when the group cannot be looked at now */
  page(pg: number, request: AuditRequest): Promise<CheckedPage>;
}

/** Reads everything in the groups that this server leads, on all replicas, over and over, and repairs what is damaged. */
export class Scrubber {
  readonly #options: ScrubberOptions;
  readonly #deps: ScrubberDeps;
  #timer: Timer | undefined;
  #closed = false;
  #passes = 0;
  #doneBytes = 0;
  #lastPassSec = 0;

  constructor(options: ScrubberOptions, deps: ScrubberDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  start(): void {
    const { intervalMs } = this.#options;
    if (intervalMs > 0) this.#schedule(Math.min(intervalMs, FIRST_PASS_WITHIN_MS) * this.#deps.prng.float());
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  status(): ScrubStatus {
    const { found, repaired } = this.#deps.repair;
    const passes = this.#passes;
    return { found, repaired, passes, doneBytes: this.#doneBytes, lastPassSec: this.#lastPassSec };
  }

  #schedule(afterMs: number): void {
    const run = (): void => {
      void this.#pass().then(() => {
        if (!this.#closed) this.#schedule(this.#options.intervalMs);
      });
    };
    this.#timer = this.#deps.clock.after(afterMs, run, { weak: true });
  }

  async #pass(): Promise<void> {
    const { clock, log, repair } = this.#deps;
    const before = repair.found;
    let bytes = 0;
    for (const pg of this.#groups()) {
      if (this.#closed) return;
      try {
        bytes += await this.#group(pg, bytes);
      } catch (error) {
        // It is led by another server now, which scrubs it at its own time.
        log.debug({ pg, error: toHoldfastError(error).message }, 'group not scrubbed');
      }
    }
    this.#passes++;
    this.#doneBytes = 0;
    this.#lastPassSec = clock.wall().sec;
    log.info({ bytes, found: repair.found - before }, 'scrub pass ended');
  }

  /** From any one on: of a server that is often restarted the last ones would never be reached. */
  #groups(): number[] {
    const groups = this.#deps.led();
    const first = this.#deps.prng.int(Math.max(1, groups.length));
    return [...groups.slice(first), ...groups.slice(0, first)];
  }

  async #group(pg: number, doneBefore: number): Promise<number> {
    const { clock, page } = this.#deps;
    let bytes = 0;
    let after = { ino: 0, chunk: 0 };
    for (;;) {
      const checked = await page(pg, { after, contents: true, repair: true });
      const own = checked.replicas > 0 ? checked.bytes / checked.replicas : 0;
      const cost = Math.max(own, checked.chunks * CHUNK_COST_BYTES);
      bytes += checked.bytes;
      this.#doneBytes = doneBefore + bytes;
      if (this.#closed || checked.end) return bytes;
      after = { ino: checked.lastIno, chunk: checked.lastChunk };
      await delay(clock, (cost / this.#options.bytesPerSecond) * 1000);
    }
  }
}
