import { assert } from '../../common/assert.js';
import type { HardState, RaftSnapshotMeta } from '../raft/types.js';
import type { LogBase } from './log-records.js';
import type { LogStorage } from './log-storage.js';
import type { StateMachine } from './state-machine.js';

export interface InstallerOptions {
  storage: LogStorage;
  stateMachine: Pick<StateMachine<unknown>, 'appliedIndex' | 'restore'>;
  /** Resolves when nothing else uses log and state machine any more. */
  quiet(): Promise<unknown>;
}

/** Puts a snapshot that was received in whole in the place of log and state machine. One at a time. */
export class Installer {
  readonly #options: InstallerOptions;
  #offered: { meta: LogBase; path: string } | undefined;
  #running: Promise<void> | undefined;

  constructor(options: InstallerOptions) {
    this.#options = options;
  }

  /** An installation that is under way: nothing may be appended or applied. Never rejects. */
  get running(): Promise<void> | undefined {
    return this.#running;
  }

  /**
   * Calls `ask`, which hands the snapshot to the core; the core takes it by calling install() meanwhile, or does not.
   * @returns the reason why it cannot be offered now
   */
  offer(meta: LogBase, path: string, ask: () => void): string | undefined {
    if (this.#offered || this.#running) return 'another snapshot is being installed';
    this.#offered = { meta, path };
    ask();
    this.#offered = undefined;
    return undefined;
  }

  /**
   * Installs the snapshot that is being offered.
   * @param ended called with the error, or when it is installed durably
   */
  install(
    taken: RaftSnapshotMeta,
    hardState: HardState,
    ended: (meta: LogBase, error?: unknown) => void,
  ): void {
    const offered = this.#offered;
    assert(offered && taken.index === offered.meta.index, 'the core takes the snapshot that was offered');
    const { meta } = offered;
    // At once: the core must find the snapshot in the log's place.
    const durable = this.#options.storage.beginSnapshot(meta, hardState);
    this.#running = this.#replace(offered, durable).then(
      () => {
        this.#running = undefined;
        ended(meta);
      },
      (error: unknown) => {
        this.#running = undefined;
        ended(meta, error);
      },
    );
  }

  async #replace({ meta, path }: { meta: LogBase; path: string }, durable: Promise<void>): Promise<void> {
    const { storage, stateMachine, quiet } = this.#options;
    await Promise.all([durable, quiet()]);
    await stateMachine.restore(path);
    const applied = stateMachine.appliedIndex();
    assert(applied === meta.index, `the snapshot of index ${meta.index} holds ${applied}`);
    await storage.finishSnapshot(meta);
  }
}
