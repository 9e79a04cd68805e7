import { type Clock, delay, type Timer } from '../../common/clock.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import { errorFromCode, HoldfastError } from '../../proto/errors.js';
import type { PgTask, PgTaskDone } from '../../proto/gen/cluster.js';

/** A task without an answer is asked again. */
const TASK_TIMEOUT_MS = 60_000;
/** A group without an active primary is asked again after so long, so often. */
const RETRY_MS = 500;
const ATTEMPTS_MAX = 60;

export interface PgTasksOptions {
  clock: Clock;
  /** The primary of a PG, if it is connected to this leader. */
  primary(pg: number): number | undefined;
  /** @returns false when the server is not connected */
  push(server: number, task: PgTask): boolean;
}

interface Waiting {
  pg: number;
  server: number;
  /** Undefined: no answer came. */
  done: Deferred<PgTaskDone | undefined>;
  timer: Timer;
}

/** Asks primaries to do something for a group, and finds the new primary when there is another one. */
export class PgTasks {
  readonly #options: PgTasksOptions;
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;

  constructor(options: PgTasksOptions) {
    this.#options = options;
  }

  /**
   * @param goesOn called before each attempt; throws to give up
   * @throws HoldfastError what the primary answered; UNAVAILABLE when there was none all the while
   */
  async call(pg: number, body: PgTask['body'], goesOn: () => void): Promise<PgTaskDone> {
    let failure = new HoldfastError('UNAVAILABLE', `PG ${pg} has no primary`);
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      goesOn();
      const done = await this.#once(pg, body);
      if (done?.error === 0) return done;
      if (done) {
        failure = errorFromCode(done.error, done.errorText);
        if (!failure.retriable) throw failure;
      }
      await delay(this.#options.clock, RETRY_MS);
    }
    throw failure;
  }

  taskDone(server: number, done: PgTaskDone): void {
    const waiting = this.#waiting.get(done.task);
    if (waiting?.server !== server) return;
    this.#settle(done.task, done);
  }

  /** Who is asked may have changed: answers may never come. */
  mapChanged(): void {
    for (const [task, { pg, server }] of this.#waiting) {
      if (this.#options.primary(pg) !== server) this.#settle(task, undefined);
    }
  }

  #once(pg: number, body: PgTask['body']): Promise<PgTaskDone | undefined> {
    const server = this.#options.primary(pg);
    const task = ++this.#last;
    if (server === undefined || !this.#options.push(server, { task, pg, body }))
      return Promise.resolve(undefined);
    const done = deferred<PgTaskDone | undefined>();
    const timer = this.#options.clock.after(TASK_TIMEOUT_MS, () => this.#settle(task, undefined));
    this.#waiting.set(task, { pg, server, done, timer });
    return done.promise;
  }

  #settle(task: number, done: PgTaskDone | undefined): void {
    const waiting = this.#waiting.get(task);
    this.#waiting.delete(task);
    waiting?.timer.cancel();
    waiting?.done.resolve(done);
  }
}
