/**
 * Pushes that come right behind the answer by which a connection is taken, in the same bytes or while the answer is being
 * acted upon: the other side knows of nothing that it would have to repeat, so none may be lost.
 */
export class EarlyPushes<Connection extends { close(reason: string): void }, Push> {
  readonly #kept = new WeakMap<Connection, Push[]>();
  readonly #max: number;

  /** @param max pushes of one connection */
  constructor(max: number) {
    this.#max = max;
  }

  /** Breaks the connection off when there are too many: what they said is said again on the next one. */
  keep(connection: Connection, push: Push): void {
    const kept = this.#kept.get(connection);
    if (!kept) this.#kept.set(connection, [push]);
    else if (kept.length < this.#max) kept.push(push);
    else connection.close('too many pushes before the connection was taken');
  }

  /** In their order; they are forgotten with it. */
  take(connection: Connection): Push[] {
    const kept = this.#kept.get(connection) ?? [];
    this.#kept.delete(connection);
    return kept;
  }
}
