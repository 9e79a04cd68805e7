import type { Prng } from '../../../common/prng.js';
import type { ClientMachine } from '../client.js';

export type Task = () => Promise<void>;

/** One program on a client machine: one task after the other, with pauses, until it is told to stop. */
export abstract class Worker {
  readonly client: ClientMachine;
  readonly #pauseMs: number;
  #stopped = false;
  /** Nothing of it is under way any more. */
  idle = false;
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
        this.idle = true;
        return;
      }
      this.tasks++;
      this.next()().then(
        () => this.start(),
        (error: unknown) => this.client.world.fail(error as Error),
      );
    });
  }

  /** After the present task; `idle` tells when. */
  stop(): void {
    this.#stopped = true;
  }
}
