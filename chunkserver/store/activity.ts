/** Counts what others ask of the store, so that work behind it can give way. */
export class Activity {
  #operations = 0;

  /** Somebody asks for something now. */
  note(): void {
    this.#operations++;
  }

  /** So far. */
  get operations(): number {
    return this.#operations;
  }
}
