/** Work on one file that must be alone, such as a truncate: one after the other; what else there is waits for `running`. */
export class Alone {
  #running: Promise<void> | undefined;
  #begun = 0;

  /** Settles when what is on now has ended, more of it may have begun by then; undefined: nothing is on. Never rejects. */
  get running(): Promise<void> | undefined {
    return this.#running;
  }

  /** How often something has begun so far. */
  get begun(): number {
    return this.#begun;
  }

  /** Behind what was asked for before. `running` is set when this returns; without a former one the work has begun. */
  run<T>(work: () => Promise<T>): Promise<T> {
    this.#begun++;
    const former = this.#running;
    const running = former ? former.then(work) : work();
    const settle = (): void => {
      if (this.#running === held) this.#running = undefined;
    };
    const held: Promise<void> = running.then(settle, settle);
    this.#running = held;
    return running;
  }
}
