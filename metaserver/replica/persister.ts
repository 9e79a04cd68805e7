import type { HardState, RaftEntry, RaftMessage, Ready } from '../raft/types.js';
import type { FormatFile } from './format.js';
import type { LogStorage } from './log-storage.js';

export interface PersisterOptions {
  storage: LogStorage;
  format: FormatFile;
  send(messages: readonly RaftMessage[]): void;
  /** Entries up to this one are durable. */
  durable(last: RaftEntry): void;
  /** Hands an event to the core. */
  feed(event: () => void): void;
  onFailure(error: unknown): void;
}

/** Makes what the core hands out durable, in order, and sends what had to wait for that. */
export class Persister {
  readonly #options: PersisterOptions;
  #begun: Promise<void> | undefined;
  /** Syncs that were asked for and did not end; the last one's promise. */
  #syncs = 0;
  #lastSync: Promise<void> = Promise.resolve();

  constructor(options: PersisterOptions) {
    this.#options = options;
  }

  persist({ entries, mustSync, messagesAfterPersist }: Ready, hardState: HardState): void {
    const { storage, send, feed, onFailure } = this.#options;
    if (entries.length > 0 || mustSync) {
      storage.append(entries, hardState);
      this.#syncs++;
      const last = entries.at(-1);
      this.#lastSync = this.#sync().then(
        () => feed(() => this.#onDurable(last, messagesAfterPersist)),
        onFailure,
      );
      return;
    }
    storage.noteHardState(hardState);
    if (messagesAfterPersist.length === 0) return;
    if (this.#syncs === 0) send(messagesAfterPersist);
    else void this.#lastSync.then(() => feed(() => send(messagesAfterPersist)));
  }

  #sync(): Promise<void> {
    const { format, storage } = this.#options;
    return format.current.begun ? storage.sync() : this.begin().then(() => storage.sync());
  }

  /**
   * To be awaited before the first promise of this disk: from then on an empty log is known to be a lost one, and not that of a
   * server which never promised anything.
   */
  begin(): Promise<void> {
    const { format } = this.#options;
    if (format.current.begun) return Promise.resolve();
    this.#begun ??= format.update({ begun: true });
    return this.#begun;
  }

  #onDurable(last: RaftEntry | undefined, messages: readonly RaftMessage[]): void {
    this.#syncs--;
    this.#options.send(messages);
    if (last) this.#options.durable(last);
  }
}
