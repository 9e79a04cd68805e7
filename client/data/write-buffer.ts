import { assert } from '../../common/assert.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import { Extent, type Piece, sliceParts } from './extent.js';
import { GATHER_EXTENT_BYTES_MAX, GATHERED_BYTES_MAX, GATHERED_EXTENTS_MAX } from './limits.js';

/**
 * The dirty bytes of one file. Pure: no I/O, no time.
 *
 * The file is divided into slots; an extent never crosses a slot border, so that each extent is one frame. Invariants:
 * the dirty extents of a slot are sorted and do not overlap; the extents being sent do not overlap one another, and
 * what is dirty lies over what is being sent, which is older; a dirty extent is not sent while it overlaps one on its way.
 */

interface Slot {
  readonly start: number;
  dirty: Extent[];
  sending: Extent[];
}

interface Generation {
  live: number;
  drained: Deferred<void> | undefined;
}

export class WriteBuffer {
  readonly #slotBytes: number;
  readonly #slots = new Map<number, Slot>();
  readonly #generations = new Map<number, Generation>();
  readonly #requeue: (extent: Extent) => void;
  #generation = 1;
  #bytes = 0;

  /**
   * @param slotBytes a divisor of the chunk size
   * @param requeue receives extents that hold bytes of another one that was queued to be sent, and are not queued themselves
   */
  constructor(slotBytes: number, requeue: (extent: Extent) => void) {
    assert(slotBytes > 0, 'slots have a size');
    this.#slotBytes = slotBytes;
    this.#requeue = requeue;
  }

  /** Dirty and being sent, in all. */
  get bytes(): number {
    return this.#bytes;
  }

  get empty(): boolean {
    return this.#bytes === 0;
  }

  /** Slots that hold something. */
  get slots(): number {
    return this.#slots.size;
  }

  /**
   * Takes bytes; `data` belongs to the buffer from now on.
   * @param onFull receives extents that reach their slot's end: nothing sequential will be added to them
   */
  write(offset: number, data: Buffer, onFull: (extent: Extent) => void): void {
    let at = 0;
    while (at < data.length) {
      const position = offset + at;
      const index = Math.floor(position / this.#slotBytes);
      const slotEnd = (index + 1) * this.#slotBytes;
      const length = Math.min(data.length - at, slotEnd - position);
      const part = at === 0 && length === data.length ? data : data.subarray(at, at + length);
      const slot = this.#slot(index);
      const extent = this.#writeSlot(slot, position, part, slotEnd);
      if (extent.end === slotEnd) onFull(extent);
      at += length;
    }
  }

  /** Takes older bytes where none are in memory. */
  fillIn({ start, end, parts }: Piece): void {
    let at = start;
    for (const over of [...this.snapshot(start, end), { start: end, end }]) {
      let gap = at;
      for (const part of sliceParts(parts, at - start, Math.max(at, over.start) - start)) {
        this.write(gap, part, () => undefined);
        gap += part.length;
      }
      at = Math.max(at, over.end);
    }
  }

  /** Extents that are neither on their way nor gone, in no particular order. */
  *dirtyExtents(): Generator<Extent> {
    for (const slot of this.#slots.values()) yield* slot.dirty;
  }

  /** What is in memory of [start, end), sorted, the newest bytes where there are several. */
  snapshot(start: number, end: number): Piece[] {
    const found: Piece[] = [];
    if (this.#bytes === 0) return found;
    const last = Math.floor((end - 1) / this.#slotBytes);
    for (let index = Math.floor(start / this.#slotBytes); index <= last; index++) {
      const slot = this.#slots.get(index);
      if (slot) collect(slot, start, end, found);
    }
    return found;
  }

  /**
   * Marks a dirty extent as being sent.
   * @returns false when bytes of it are on their way already, or it is no longer dirty: not to be sent now
   */
  beginSend(extent: Extent): boolean {
    if (extent.state === 'gone' || extent.state === 'sending') return false;
    const slot = this.#slots.get(Math.floor(extent.start / this.#slotBytes));
    assert(slot, 'a dirty extent has a slot');
    if (slot.sending.some((other) => other.start < extent.end && extent.start < other.end)) return false;
    const at = slot.dirty.indexOf(extent);
    assert(at >= 0, 'a dirty extent is in its slot');
    slot.dirty.splice(at, 1);
    slot.sending.push(extent);
    extent.state = 'sending';
    return true;
  }

  /**
   * Marks further queued extents of the same chunk as being sent, so that one message can take them all: small ones, as
   * long as all together, the first included, stay within the limits.
   * @param first is being sent already
   * @returns all of them, ascending
   */
  gather(first: Extent, chunkBytes: number): Extent[] {
    const gathered = [first];
    if (first.length > GATHER_EXTENT_BYTES_MAX) return gathered;
    let bytes = first.length;
    const chunkStart = first.start - (first.start % chunkBytes);
    for (let at = chunkStart; at < chunkStart + chunkBytes; at += this.#slotBytes) {
      const slot = this.#slots.get(at / this.#slotBytes);
      if (!slot || slot.dirty.length === 0) continue;
      const landing = slot.sending.filter((extent) => extent !== first);
      slot.dirty = slot.dirty.filter((extent) => {
        const fits = gathered.length < GATHERED_EXTENTS_MAX && bytes + extent.length <= GATHERED_BYTES_MAX;
        if (!fits || extent.state !== 'queued' || extent.length > GATHER_EXTENT_BYTES_MAX) return true;
        if ([first, ...landing].some((other) => other.start < extent.end && extent.start < other.end))
          return true;
        bytes += extent.length;
        slot.sending.push(extent);
        extent.state = 'sending';
        gathered.push(extent);
        return false;
      });
    }
    return gathered.sort((a, b) => a.start - b.start);
  }

  /**
   * The extent has landed, or failed and is given up.
   * @returns dirty extents of its slot that were wanted meanwhile: they may be sent now
   */
  endSend(extent: Extent): Extent[] {
    assert(extent.state === 'sending', 'only what is on its way can land');
    const index = Math.floor(extent.start / this.#slotBytes);
    const slot = this.#slots.get(index) as Slot;
    slot.sending.splice(slot.sending.indexOf(extent), 1);
    this.#drop(extent);
    if (slot.dirty.length === 0 && slot.sending.length === 0) this.#slots.delete(index);
    return slot.dirty.filter((other) => other.wanted && other.state === 'dirty');
  }

  /** Forgets dirty bytes from `size` on. What is being sent is not touched: wait for it first. */
  truncate(size: number): void {
    for (const [index, slot] of this.#slots) {
      if (slot.start + this.#slotBytes <= size) continue;
      slot.dirty = slot.dirty.filter((extent) => {
        if (extent.start >= size) this.#drop(extent);
        else if (extent.end > size) this.#trim(extent, extent.start, size);
        return extent.start < size;
      });
      if (slot.dirty.length === 0 && slot.sending.length === 0) this.#slots.delete(index);
    }
  }

  /** Forgets all dirty bytes, and shows what is being sent to nobody from now on. */
  abandon(): void {
    this.truncate(0);
    for (const slot of this.#slots.values()) for (const extent of slot.sending) extent.unseen = true;
  }

  /** Furthest end of all bytes in memory that can be read; 0: none. */
  maxEnd(): number {
    let max = 0;
    for (const slot of this.#slots.values()) {
      for (const extent of slot.dirty) max = Math.max(max, extent.end);
      for (const extent of slot.sending) if (!extent.unseen) max = Math.max(max, extent.end);
    }
    return max;
  }

  /** Draws a line: later writes into new extents belong to the next generation. @returns the generation now closed */
  closeGeneration(): number {
    return this.#generation++;
  }

  /** Resolves when nothing of this generation or an older one is in memory; undefined: nothing is. */
  drained(generation: number): Promise<void> | undefined {
    const waits: Promise<void>[] = [];
    for (const [number, entry] of this.#generations) {
      if (number > generation) continue;
      entry.drained ??= deferred();
      waits.push(entry.drained.promise);
    }
    if (waits.length === 0) return undefined;
    return waits.length === 1 ? waits[0] : Promise.all(waits).then(() => undefined);
  }

  #slot(index: number): Slot {
    let slot = this.#slots.get(index);
    if (!slot) {
      slot = { start: index * this.#slotBytes, dirty: [], sending: [] };
      this.#slots.set(index, slot);
    }
    return slot;
  }

  /** @returns the extent that holds the bytes now */
  #writeSlot(slot: Slot, start: number, data: Buffer, slotEnd: number): Extent {
    const end = start + data.length;
    const { dirty } = slot;
    // The first extent that ends at or behind the start.
    let at = lowerBound(dirty, start);
    const left = dirty[at];
    if (left?.end === start && !(dirty[at + 1] && (dirty[at + 1] as Extent).start <= end)) {
      this.#bytes += data.length;
      left.append(data, slotEnd - start);
      return left;
    }
    if (left?.end === start) at++;
    at = this.#clear(slot, at, start, end);
    const extent = this.#create(start, data, slotEnd);
    dirty.splice(at, 0, extent);
    return this.#join(slot, at);
  }

  /** Removes the bytes [start, end) from the dirty extents from index `at` on. @returns where a new one goes */
  #clear(slot: Slot, at: number, start: number, end: number): number {
    const { dirty } = slot;
    let extent = dirty[at];
    if (extent && extent.start < start && extent.end > start) {
      if (extent.end > end) {
        dirty.splice(at + 1, 0, this.#behind(extent, end));
      }
      this.#trim(extent, extent.start, start);
      at++;
    }
    extent = dirty[at];
    let removed = 0;
    while (extent && extent.end <= end) {
      this.#drop(extent);
      removed++;
      extent = dirty[at + removed];
    }
    if (removed > 0) dirty.splice(at, removed);
    if (extent && extent.start < end) this.#trim(extent, end, extent.end);
    return at;
  }

  /** The bytes of an extent from `start` on as an extent of their own. */
  #behind(extent: Extent, start: number): Extent {
    const parts = sliceParts(extent.parts, start - extent.start, extent.length);
    const rest = new Extent(start, parts, extent.end - start, extent.generation);
    rest.sync = extent.sync;
    rest.wanted = extent.wanted;
    this.#count(rest.generation, 1);
    this.#bytes += rest.length;
    if (extent.state === 'queued') this.#requeue(rest);
    return rest;
  }

  #create(start: number, data: Buffer, slotEnd: number): Extent {
    const extent = new Extent(start, [], 0, this.#generation);
    extent.append(data, slotEnd - start);
    this.#count(extent.generation, 1);
    this.#bytes += data.length;
    return extent;
  }

  /** Joins the extent at `at` with neighbours that touch it. */
  #join(slot: Slot, at: number): Extent {
    const { dirty } = slot;
    let extent = dirty[at] as Extent;
    const right = dirty[at + 1];
    if (right && right.start === extent.end) this.#absorb(slot, at);
    const left = dirty[at - 1];
    if (left && left.end === extent.start) {
      this.#absorb(slot, at - 1);
      extent = left;
    }
    return extent;
  }

  #absorb(slot: Slot, at: number): void {
    const extent = slot.dirty[at] as Extent;
    const next = slot.dirty[at + 1] as Extent;
    slot.dirty.splice(at + 1, 1);
    const older = Math.min(extent.generation, next.generation);
    if (older !== extent.generation) {
      this.#count(older, 1);
      this.#count(extent.generation, -1);
      extent.generation = older;
    }
    extent.sync ||= next.sync;
    extent.wanted ||= next.wanted;
    const queued = next.state === 'queued' && extent.state !== 'queued';
    this.#bytes += next.length;
    extent.absorb(next);
    this.#drop(next);
    if (queued) this.#requeue(extent);
  }

  #trim(extent: Extent, start: number, end: number): void {
    this.#bytes -= extent.length - (end - start);
    extent.trim(start, end);
  }

  #drop(extent: Extent): void {
    extent.state = 'gone';
    this.#bytes -= extent.length;
    this.#count(extent.generation, -1);
    assert(this.#bytes >= 0, 'bytes are counted');
  }

  #count(generation: number, change: 1 | -1): void {
    let entry = this.#generations.get(generation);
    if (!entry) {
      entry = { live: 0, drained: undefined };
      this.#generations.set(generation, entry);
    }
    entry.live += change;
    assert(entry.live >= 0, 'generations are counted');
    if (entry.live > 0) return;
    this.#generations.delete(generation);
    entry.drained?.resolve();
  }
}

/** Index of the first extent whose end is not below `position`. */
function lowerBound(extents: readonly Extent[], position: number): number {
  let low = 0;
  let high = extents.length;
  // Appending is the common case.
  if (high > 0 && (extents[high - 1] as Extent).end < position) return high;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((extents[middle] as Extent).end < position) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Adds the pieces of a slot within [start, end): dirty ones, and what is being sent where nothing dirty covers it. */
function collect(slot: Slot, start: number, end: number, found: Piece[]): void {
  const pieces: Piece[] = [];
  for (const extent of slot.dirty) cut(extent, start, end, pieces);
  for (const extent of slot.sending) {
    if (extent.unseen) continue;
    let at = Math.max(start, extent.start);
    const until = Math.min(end, extent.end);
    for (const over of slot.dirty) {
      if (over.end <= at || over.start >= until) continue;
      cut(extent, at, over.start, pieces);
      at = Math.max(at, over.end);
    }
    cut(extent, at, until, pieces);
  }
  pieces.sort((a, b) => a.start - b.start);
  found.push(...pieces);
}

function cut(extent: Extent, start: number, end: number, pieces: Piece[]): void {
  const from = Math.max(start, extent.start);
  const to = Math.min(end, extent.end);
  if (from >= to) return;
  pieces.push({
    start: from,
    end: to,
    parts: sliceParts(extent.parts, from - extent.start, to - extent.start),
  });
}
