import type { LogStorage } from './log-storage.js';
import type { StateMachine } from './state-machine.js';

/** Entries kept for slow followers, whatever the state machine has flushed; fewer when they weigh more than the bytes below. */
export const DEFAULT_KEEP_ENTRIES = 10_000;
export const DEFAULT_KEEP_BYTES = 32 * 1024 * 1024;
/** The log is cut when it holds so many times what is to be kept. */
const CUT_AT_RATIO = 2;

export interface LogCutterOptions {
  storage: LogStorage;
  stateMachine: Pick<StateMachine<unknown>, 'flushed'>;
  keepEntries: number;
  keepBytes: number;
  /** The log must not be cut beyond this index. */
  limit(): number;
  /** False while the log may not be touched. */
  allowed(): boolean;
  onFailure(error: unknown): void;
}

/** Cuts the log behind what the state machine holds durably, when it has grown enough. */
export class LogCutter {
  readonly #options: LogCutterOptions;
  #cutting: Promise<void> | undefined;
  /** An attempt that could not cut waits until the log ends here. */
  #nextAttempt = 0;

  constructor(options: LogCutterOptions) {
    this.#options = options;
  }

  /** Call after entries were applied. */
  poke(): void {
    const { storage, keepEntries, keepBytes } = this.#options;
    if (this.#cutting || storage.lastIndex() < this.#nextAttempt) return;
    const entries = storage.lastIndex() - storage.firstIndex() + 1;
    if (entries <= keepEntries * CUT_AT_RATIO && storage.bytes <= keepBytes * CUT_AT_RATIO) return;
    this.#nextAttempt = storage.lastIndex() + Math.max(1, Math.floor(keepEntries / 4));
    this.#cutting = this.#cut()
      .catch((error: unknown) => this.#options.onFailure(error))
      .finally(() => {
        this.#cutting = undefined;
      });
  }

  /** Resolves when no cut is under way. */
  async idle(): Promise<void> {
    await this.#cutting;
  }

  async #cut(): Promise<void> {
    const { storage, stateMachine, keepEntries, keepBytes, limit, allowed } = this.#options;
    const durable = await stateMachine.flushed();
    if (!allowed()) return;
    const target = Math.min(durable, storage.cutPoint(keepEntries, keepBytes), limit());
    if (target >= storage.firstIndex()) await storage.cut(target);
  }
}
