import type { Clock, Timer, Timespec } from '../../common/clock.js';
import { LruMap } from '../../common/lru-map.js';
import type { Attr, InodeTime } from '../../proto/gen/meta.js';
import { FLAG_NOATIME } from '../../proto/inode-flags.js';
import { copyOfAttr } from '../attr-copy.js';

/** Reads are told to the server so long after the first of them at the latest. */
export const ATIME_DELAY_MS = 5_000;
/** Access times that wait; at this number they are sent at once. */
export const ATIMES_PENDING_MAX = 1_024;
/** Access times that were sent, and may not show in cached attributes yet. */
const ATIMES_SENT_MAX = 4_096;
/** relatime: an access time is brought up to date at least so often. */
const RELATIME_AGE_SEC = 24 * 3600;

interface Read {
  /** The access time that was known before: another one since, by utimes(2), wins. */
  before: Timespec;
  atime: Timespec;
}

/**
 * Access times as with relatime and lazytime (mount(8)): a read counts when the known access time is not behind the last
 * change, or is a day old. This mount shows it at once; the server is told with others, some seconds later.
 */
export class Atimes {
  readonly #clock: Clock;
  readonly #send: (atimes: InodeTime[]) => Promise<unknown>;
  /** Least recent first; those not sent yet are in `#pending` too. */
  readonly #reads = new LruMap<number, Read>();
  #pending = new Set<number>();
  #timer: Timer | undefined;

  /** @param send tells the server; a failure loses access times, and nothing else */
  constructor(clock: Clock, send: (atimes: InodeTime[]) => Promise<unknown>) {
    this.#clock = clock;
    this.#send = send;
  }

  /** Whether a read would change the access time. @param attr as view() has it */
  due(attr: Attr): boolean {
    if (((attr.flags ?? 0) & FLAG_NOATIME) !== 0) return false;
    const atime = attr.atime ?? { sec: 0, nsec: 0 };
    const changed = [attr.mtime, attr.ctime].some((time) => time && compare(time, atime) >= 0);
    return changed || this.#clock.wall().sec - atime.sec >= RELATIME_AGE_SEC;
  }

  /** Something was read. @param attr as view() has it */
  read(attr: Attr): void {
    if (!this.due(attr)) return;
    const atime = this.#clock.wall();
    const before = this.#reads.peek(attr.ino)?.before ?? attr.atime ?? { sec: 0, nsec: 0 };
    if (compare(atime, before) <= 0) return;
    this.#reads.set(attr.ino, { before, atime });
    this.#pending.add(attr.ino);
    if (this.#pending.size >= ATIMES_PENDING_MAX) void this.flush();
    else this.#timer ??= this.#clock.after(ATIME_DELAY_MS, () => void this.flush(), { weak: true });
  }

  /** The access time was set here: what was read before does not count. */
  forget(ino: number): void {
    this.#reads.delete(ino);
    this.#pending.delete(ino);
  }

  /** Attributes with the reads of this mount laid over them. */
  view(attr: Attr): Attr {
    const read = this.#reads.peek(attr.ino);
    if (!read) return attr;
    if (!attr.atime || compare(attr.atime, read.before) !== 0) {
      this.forget(attr.ino);
      return attr;
    }
    const seen = copyOfAttr(attr);
    seen.atime = read.atime;
    return seen;
  }

  /** Tells the server what waits. Resolves when it knows, or could not be told. */
  async flush(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#pending.size === 0) return;
    const atimes = [...this.#pending].map((ino) => ({ ino, atime: this.#reads.peek(ino)?.atime }));
    this.#pending = new Set();
    while (this.#reads.size > ATIMES_SENT_MAX) this.#reads.shift();
    await this.#send(atimes).catch(() => undefined);
  }
}

function compare(a: Timespec, b: Timespec): number {
  return a.sec - b.sec || a.nsec - b.nsec;
}
