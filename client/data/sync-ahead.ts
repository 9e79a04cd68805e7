import type { ChunkApi } from './api.js';
import type { KeptWrites } from './flusher.js';
import { SLOT_BYTES_MAX } from './limits.js';
import type { UnsyncedTable, UnsyncedWrites } from './unsynced.js';

/** Of the bytes that may be kept, from so many on it begins: what is written meanwhile finds room in the rest. */
const BEGIN_SHARE = 1 / 4;
/** Of the kept bytes, so much is synced in one pass, the oldest first. */
const PASS_SHARE = 1 / 2;

export interface SyncAheadDeps {
  table: UnsyncedTable;
  chunks: Pick<ChunkApi, 'sync' | 'onNewLineage'>;
  /** Of what may be kept. */
  bytesMax: number;
  /** Takes a file into use until the returned function is called; undefined: it is not to be written to by this mount. */
  revive(ino: number): (() => void) | undefined;
  /** Fewer writes are kept than before. */
  passed(): void;
}

/**
 * Syncs acknowledged writes unasked:
 * - the oldest where many are kept, so that none has to be let go while the servers could still lose it;
 * - those of groups of which all replicas may have lost them: what is lost is written again at once, not with the next fsync.
 * A pass syncs whole groups: of all files that have something there.
 */
export class SyncAhead implements KeptWrites {
  readonly #deps: SyncAheadDeps;
  /** Groups whose replicas may have lost something. */
  readonly #suspects = new Set<number>();
  #running = false;

  constructor(deps: SyncAheadDeps) {
    this.#deps = deps;
    deps.chunks.onNewLineage((pgs) => {
      for (const pg of pgs) this.#suspects.add(pg);
      this.grown();
    });
  }

  hasRoom(bytesInFlight: number): boolean {
    const { table, bytesMax } = this.#deps;
    return !this.#running || table.keptBytes + bytesInFlight + SLOT_BYTES_MAX <= bytesMax;
  }

  grown(): void {
    if (!this.#running && this.#isDue) void this.#run();
  }

  get #isDue(): boolean {
    const { table, bytesMax } = this.#deps;
    return this.#suspects.size > 0 || table.keptBytes > bytesMax * BEGIN_SHARE;
  }

  async #run(): Promise<void> {
    const { table, passed } = this.#deps;
    this.#running = true;
    while (this.#isDue) {
      const groups =
        this.#suspects.size > 0 ? table.within(this.#suspects) : table.oldest(table.keptBytes * PASS_SHARE);
      this.#suspects.clear();
      await Promise.all([...groups].map(([pg, files]) => this.#sync(pg, files)));
      passed();
    }
    this.#running = false;
    passed();
  }

  /** Behind it nothing is kept of what the files had in the group before. Never rejects. */
  async #sync(pg: number, files: ReadonlySet<UnsyncedWrites>): Promise<void> {
    const marks = [...files].map((file) => ({ file, mark: file.mark(pg) }));
    const lineage = await this.#deps.chunks.sync(pg).catch(() => undefined);
    for (const { file, mark } of marks) {
      if (lineage) file.syncedUnasked(pg, mark, lineage, () => this.#deps.revive(file.ino));
      else file.letGoOf(pg);
    }
  }
}
