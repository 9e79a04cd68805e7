import type { Clock } from '../../common/clock.js';
import type { Attr } from '../../proto/gen/meta.js';
import { ATTR_TTL_MS } from './attr.js';

/** Inodes remembered; beyond it the one that was used least recently is forgotten. */
export const INODES_MAX = 65_536;

interface Inode {
  attr: Attr;
  /** Clock ms when the attributes were asked for. */
  at: number;
  /** Changes of the name space made here before they were asked for. */
  epoch: number;
  /** Attr.change as of which the kernel's cached pages are right; undefined: unknown. */
  pagesAsOf: number | undefined;
  /** Attr.change of the attributes that the kernel was given last; undefined: unknown. */
  told: number | undefined;
  /** security.capability is known to be absent until then, clock ms. */
  noCapabilityUntil: number;
}

/**
 * What this mount knows of inodes, for a short time: attributes, and whether the kernel's pages may stay at an open.
 * A memory only: any inode may be forgotten at any time.
 */
export class InodeCache {
  readonly #clock: Clock;
  /** Least recently used first. */
  readonly #inodes = new Map<number, Inode>();
  #epoch = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** To be taken before attributes are asked for, and handed to learn(). */
  stamp(): { at: number; epoch: number } {
    return { at: this.#clock.now(), epoch: this.#epoch };
  }

  /** Takes attributes from the server. @param own they answer a change made here */
  learn(attr: Attr, stamp: { at: number; epoch: number }, own: boolean): void {
    const known = this.#inodes.get(attr.ino);
    if (known && attr.change < known.attr.change) return;
    // A change of one's own that came right behind what the pages show leaves them right.
    const pagesAsOf = own && known?.pagesAsOf === attr.change - 1 ? attr.change : known?.pagesAsOf;
    const { noCapabilityUntil = 0, told } = known ?? {};
    const { at, epoch } = stamp;
    this.#inodes.delete(attr.ino);
    this.#inodes.set(attr.ino, { attr, at, epoch, pagesAsOf, told, noCapabilityUntil });
    if (this.#inodes.size <= INODES_MAX) return;
    for (const oldest of this.#inodes.keys()) {
      this.#inodes.delete(oldest);
      break;
    }
  }

  /** Attributes that may still be believed, and for how long; undefined: ask the server. */
  fresh(ino: number): { attr: Attr; ttlMs: number } | undefined {
    const inode = this.#inodes.get(ino);
    if (!inode || inode.epoch !== this.#epoch) return undefined;
    const ttlMs = ATTR_TTL_MS - (this.#clock.now() - inode.at);
    return ttlMs > 0 ? { attr: inode.attr, ttlMs } : undefined;
  }

  /** Attributes as they were known last, however old; undefined: never, or forgotten. */
  last(ino: number): Attr | undefined {
    return this.#inodes.get(ino)?.attr;
  }

  /** A name, link count or the like was changed here: attributes asked for before may be out of date. */
  namespaceChanged(): void {
    this.#epoch++;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** These attributes go to the kernel, which believes them for a while. */
  tell(attr: Attr): void {
    const inode = this.#inodes.get(attr.ino);
    if (inode) inode.told = attr.change;
  }

  /**
   * @param attr as of this open
   * @returns whether the kernel's pages may stay, and whether the attributes that it believes may be older than these:
   *   it would not read beyond the size that it knows
   */
  opened(attr: Attr): { keepPages: boolean; attrStale: boolean } {
    const inode = this.#inodes.get(attr.ino);
    const keepPages = inode?.pagesAsOf === attr.change;
    if (inode) inode.pagesAsOf = attr.change;
    return { keepPages, attrStale: !keepPages && inode?.told !== attr.change };
  }

  /** Remembers for a second that a file has no capabilities: the kernel asks before every write. */
  setNoCapability(ino: number): void {
    const inode = this.#inodes.get(ino);
    if (inode) inode.noCapabilityUntil = this.#clock.now() + ATTR_TTL_MS;
  }

  hasNoCapability(ino: number): boolean {
    return (this.#inodes.get(ino)?.noCapabilityUntil ?? 0) > this.#clock.now();
  }

  capabilityChanged(ino: number): void {
    const inode = this.#inodes.get(ino);
    if (inode) inode.noCapabilityUntil = 0;
  }

  forget(ino: number): void {
    this.#inodes.delete(ino);
  }
}
