import type { ServerEnvelope } from '../../proto/gen/meta.js';
import type { MetaConnection } from './dialer.js';

/** A server sends the session's recalls anew behind the answer to Hello, in as few messages as they fit into. */
const EARLY_PUSHES_MAX = 256;

/** Pushes that come right behind the answer to Hello, before the session has taken the connection: none may be lost. */
export class EarlyPushes {
  readonly #kept = new WeakMap<MetaConnection, ServerEnvelope[]>();

  /** Breaks the connection off when there are too many: what they said is said again on the next one. */
  keep(connection: MetaConnection, push: ServerEnvelope): void {
    const kept = this.#kept.get(connection) ?? [];
    if (kept.length >= EARLY_PUSHES_MAX) connection.close('too many pushes before Hello was taken');
    else this.#kept.set(connection, [...kept, push]);
  }

  /** In their order; they are forgotten with it. */
  take(connection: MetaConnection): ServerEnvelope[] {
    const kept = this.#kept.get(connection) ?? [];
    this.#kept.delete(connection);
    return kept;
  }
}
