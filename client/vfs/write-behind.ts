import { assert } from '../../common/assert.js';
import type { Clock, Timer } from '../../common/clock.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import type { Logger } from '../../common/logger.js';
import type { FileData } from '../data/file-data.js';
import type { ChangeLane } from '../leases/change-lane.js';

/** Closed files are gathered for so long at most, unless somebody waits for what is in the lane of changes. */
export const WRITE_BEHIND_DELAY_MS = 50;
/** They leave earlier when there are so many, or so many bytes. */
export const WRITE_BEHIND_FILES_MAX = 64;
export const WRITE_BEHIND_BYTES_MAX = 4 * 1024 * 1024;

interface Entry {
  /** Settled when nothing is left of it. */
  readonly done: Deferred<void>;
  /** How often it is being written at this moment: each time for what was closed before. */
  writing: number;
}

/**
 * Writes files back behind their close. Small ones go together: frames that leave in one turn of the event loop are one
 * write to each server, and what servers send one another for them is, too. The commit of each has its place in the lane
 * from the close on, so what is made later never overtakes it.
 */
export class WriteBehind {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #lane: ChangeLane;
  /** Gathered, and on their way, by inode. */
  readonly #files = new Map<number, Entry>();
  #waiting: FileData[] = [];
  #bytes = 0;
  #timer: Timer | undefined;

  constructor(parts: { clock: Clock; log: Logger; lane: ChangeLane }) {
    this.#clock = parts.clock;
    this.#log = parts.log;
    this.#lane = parts.lane;
  }

  /** A file that was closed. What becomes of it is in its write errors. */
  add(file: FileData): void {
    this.#lane.keepPlace(file.ino);
    if (this.#waiting.includes(file)) return;
    this.#waiting.push(file);
    if (!this.#files.has(file.ino)) this.#files.set(file.ino, { done: deferred(), writing: 0 });
    this.#bytes += file.buffer.bytes;
    const full = this.#waiting.length >= WRITE_BEHIND_FILES_MAX || this.#bytes >= WRITE_BEHIND_BYTES_MAX;
    if (full || this.#lane.hurried) this.start();
    else this.#timer ??= this.#clock.after(WRITE_BEHIND_DELAY_MS, () => this.start());
  }

  /** When what was added of a file has been written or has failed; undefined: nothing is left of it. */
  of(file: FileData): Promise<void> | undefined {
    return this.#files.get(file.ino)?.done.promise;
  }

  /** Whether a commit of the file that is made now may lack what was closed since its writing began. */
  expectsMore(ino: number): boolean {
    const entry = this.#files.get(ino);
    return entry !== undefined && (entry.writing > 1 || this.#gathered(ino));
  }

  #gathered(ino: number): boolean {
    return this.#waiting.some((file) => file.ino === ino);
  }

  /** Sends all that was gathered. */
  start(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const files = this.#waiting;
    this.#waiting = [];
    this.#bytes = 0;
    for (const file of files) void this.#write(file);
  }

  async #write(file: FileData): Promise<void> {
    const entry = this.#files.get(file.ino);
    assert(entry, 'what is written was gathered');
    entry.writing++;
    try {
      await file.flush();
    } catch (error) {
      this.#log.error({ ino: file.ino, err: error }, 'write-back failed');
    }
    entry.writing--;
    // Closed again meanwhile: that is another turn, which may have begun.
    if (entry.writing > 0 || this.#gathered(file.ino)) return;
    this.#lane.releasePlace(file.ino);
    this.#files.delete(file.ino);
    entry.done.resolve();
  }
}
