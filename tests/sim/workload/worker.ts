import type { Prng } from '../../../common/prng.js';
import { HoldfastError } from '../../../proto/errors.js';
import type { ClientMachine } from '../client.js';

export type Task = () => Promise<void>;

const BACKGROUND_MAX = 6;
const SESSION_OVER: ReadonlySet<string> = new Set(['EIO', 'ESTALE']);

/** One program on a client machine: one task after the other, with pauses, until it is told to stop. */
export abstract class Worker {
  readonly client: ClientMachine;
  readonly #pauseMs: number;
  #stopped = false;
  #ended = false;
  #background = 0;
  tasks = 0;

  /** @param pauseMs mean pause between two tasks */
  constructor(client: ClientMachine, pauseMs: number) {
    this.client = client;
    this.#pauseMs = pauseMs;
  }

  protected get prng(): Prng {
    return this.client.world.prng;
  }

  protected abstract next(): Task;

  /** Leaves a line in the trace. */
  protected note(text: () => string): void {
    this.client.world.trace.note(this.client.name, undefined, text);
  }

  start(): void {
    this.client.process.clock.after(this.prng.float() * 2 * this.#pauseMs, () => {
      if (this.#stopped) {
        this.#ended = true;
        return;
      }
      this.tasks++;
      this.next()().then(
        () => this.start(),
        (error: unknown) => {
          this.#refused(error);
          this.start();
        },
      );
    });
  }

  /** A program whose session is over may be told so; every other error ends the run. */
  #refused(error: unknown): void {
    const { shutOuts, world } = this.client;
    if (shutOuts > 0 && error instanceof HoldfastError && SESSION_OVER.has(error.errorName)) {
      this.note(() => `${this.constructor.name} is told that its session is over: ${error.message}`);
    } else world.fail(error as Error);
  }

  /** Nothing of it is under way any more. */
  get idle(): boolean {
    return this.#ended && this.#background === 0;
  }

  /** Goes on with the next task while this one waits; with too many of them, waits after all. */
  protected beside(task: Task): Promise<void> {
    if (this.#background >= BACKGROUND_MAX) return task();
    this.#background++;
    task().then(
      () => {
        this.#background--;
      },
      (error: unknown) => {
        this.#background--;
        this.#refused(error);
      },
    );
    return Promise.resolve();
  }

  /** After the present task; `idle` tells when. */
  stop(): void {
    this.#stopped = true;
  }
}
