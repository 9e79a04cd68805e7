import type { Clock } from './clock.js';
import type { Disk, DiskFile } from './disk.js';

/**
 * Notes which calls of a disk are under way, to tell one that hangs. Calls of this thread are not: a disk that hangs in one
 * silences the process, and the others notice that. A pause of this process is not the disk's fault: whoever
 * asks does so regularly, and what was asked before a gap counts from the gap on.
 */
export class WatchedDisk implements Disk {
  readonly #disk: Disk;
  readonly #clock: Clock;
  /** When each call began, the oldest first. */
  readonly #calls = new Map<symbol, number>();
  #askedAt: number;
  #excusedAt = Number.NEGATIVE_INFINITY;

  constructor(disk: Disk, clock: Clock) {
    this.#disk = disk;
    this.#clock = clock;
    this.#askedAt = clock.now();
  }

  /**
   * For how long the oldest call has been under way, milliseconds; 0: none is.
   * @param everyMs how often this is asked; twice as late, and the process was paused
   */
  stalledMs(everyMs: number): number {
    const now = this.#clock.now();
    if (now - this.#askedAt > 2 * everyMs) this.#excusedAt = now;
    this.#askedAt = now;
    const [oldest] = this.#calls.values();
    return oldest === undefined ? 0 : now - Math.max(oldest, this.#excusedAt);
  }

  async open(...args: Parameters<Disk['open']>): Promise<DiskFile> {
    const file = await this.#watch(this.#disk.open(...args));
    return {
      write: (parts, position) => this.#watch(file.write(parts, position)),
      read: (target, position) => this.#watch(file.read(target, position)),
      readNow: (target, position) => file.readNow?.(target, position),
      datasync: () => this.#watch(file.datasync()),
      size: () => this.#watch(file.size()),
      truncate: (length) => this.#watch(file.truncate(length)),
      close: () => this.#watch(file.close()),
    };
  }

  mkdir(dir: string): Promise<void> {
    return this.#watch(this.#disk.mkdir(dir));
  }

  list(dir: string): Promise<string[]> {
    return this.#watch(this.#disk.list(dir));
  }

  unlink(file: string): Promise<void> {
    return this.#watch(this.#disk.unlink(file));
  }

  rename(from: string, to: string): Promise<void> {
    return this.#watch(this.#disk.rename(from, to));
  }

  syncDir(dir: string): Promise<void> {
    return this.#watch(this.#disk.syncDir(dir));
  }

  space(dir: string): ReturnType<Disk['space']> {
    return this.#watch(this.#disk.space(dir));
  }

  #watch<T>(call: Promise<T>): Promise<T> {
    const key = Symbol();
    this.#calls.set(key, this.#clock.now());
    const done = (): void => {
      this.#calls.delete(key);
    };
    call.then(done, done);
    return call;
  }
}
