/** Told when everything that was written before the request is durable. */
export type SyncDone = (error: Error | undefined) => void;

/**
 * Group commit of syncs at one disk: one runs, the next serves all that were asked for meanwhile. A request is never
 * served by a sync that had begun before it.
 */
export class SyncGroup {
  readonly #sync: (done: (error?: Error) => void) => void;
  readonly #wrap: (done: SyncDone) => SyncDone;
  readonly #schedule: (run: () => void) => void;
  #waiting: SyncDone[] = [];
  #running = false;

  /**
   * @param wrap put around the callback of each request, when requests are traced
   * @param schedule delays a sync for a moment in which others may join it; default: not at all
   */
  constructor(
    sync: (done: (error?: Error) => void) => void,
    wrap: (done: SyncDone) => SyncDone = (done) => done,
    schedule: (run: () => void) => void = (run) => run(),
  ) {
    this.#sync = sync;
    this.#wrap = wrap;
    this.#schedule = schedule;
  }

  request(done: SyncDone): void {
    this.#waiting.push(this.#wrap(done));
    if (!this.#running) this.#begin();
  }

  #begin(): void {
    this.#running = true;
    this.#schedule(() => this.#run());
  }

  #run(): void {
    const served = this.#waiting;
    this.#waiting = [];
    this.#sync((error) => {
      this.#running = false;
      for (const done of served) done(error);
      if (this.#waiting.length > 0 && !this.#running) this.#begin();
    });
  }
}
