import type { Clock, Timer } from '../../common/clock.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import { type Interrupt, interruptible } from '../wait.js';
import type { Extent } from './extent.js';
import type { DataLimits } from './limits.js';
import type { WriteBuffer } from './write-buffer.js';

/** A file as the flusher sees it. */
export interface FlushSource {
  readonly ino: number;
  readonly buffer: WriteBuffer;
  /** Clock ms since when there is something to write back or to commit; undefined: nothing is. */
  readonly dirtySince: number | undefined;
  /** Bytes that the flusher has counted for it; the flusher's own note. */
  countedBytes: number;
  readonly chunkSize: number;
  /** Sends extents of one chunk, ascending, and books their outcome. Never rejects. */
  send(extents: readonly Extent[]): Promise<void>;
  /** Writes everything back and commits it, in the background. Never rejects. */
  writeBack(): void;
}

/** What the servers have acknowledged, and could still lose. */
export interface KeptWrites {
  /** Whether what is on its way, and one frame more, can be kept when it is acknowledged; false: resume() is called later. */
  hasRoom(bytesInFlight: number): boolean;
  /** Something was acknowledged. */
  grown(): void;
}

const AGE_CHECK_INTERVAL_MS = 250;

interface Entry {
  source: FlushSource;
  extent: Extent;
}

interface RoomWaiter {
  source: FlushSource;
  bytes: number;
  woken: Deferred<void>;
}

/**
 * Sends the dirty extents of all files within one window, and holds writers back while too much is dirty. Extents that
 * somebody waits for go first.
 */
export class Flusher {
  readonly #clock: Clock;
  readonly #limits: DataLimits;
  readonly #kept: KeptWrites | undefined;
  #urgent = new Fifo<Entry>();
  #ordinary = new Fifo<Entry>();
  readonly #active = new Set<FlushSource>();
  readonly #waiters = new Set<RoomWaiter>();
  #dirtyBytes = 0;
  #framesInFlight = 0;
  #bytesInFlight = 0;
  #ageTimer: Timer | undefined;

  /** @param kept absent: what the servers lose is not written again */
  constructor(clock: Clock, limits: DataLimits, kept?: KeptWrites) {
    this.#clock = clock;
    this.#limits = limits;
    this.#kept = kept;
  }

  /** Of all files, those on their way included. */
  get dirtyBytes(): number {
    return this.#dirtyBytes;
  }

  get framesInFlight(): number {
    return this.#framesInFlight;
  }

  /** The files that have something to write back or to commit. */
  get sources(): Iterable<FlushSource> {
    return this.#active;
  }

  /** Sends an extent when its turn comes. Idempotent. */
  enqueue(source: FlushSource, extent: Extent, urgent: boolean): void {
    this.#push(source, extent, urgent);
    this.#pump();
  }

  /** Sends all that is dirty of a file when its turn comes. */
  enqueueAll(source: FlushSource, urgent: boolean): void {
    for (const extent of source.buffer.dirtyExtents()) this.#push(source, extent, urgent);
    this.#pump();
  }

  #push(source: FlushSource, extent: Extent, urgent: boolean): void {
    if (extent.state === 'gone' || extent.state === 'sending') return;
    if (extent.state === 'queued' && !urgent) return;
    extent.state = 'queued';
    extent.wanted = false;
    (urgent ? this.#urgent : this.#ordinary).push({ source, extent });
  }

  /** Counts a file's bytes again after its buffer changed. */
  recount(source: FlushSource): void {
    const change = source.buffer.bytes - source.countedBytes;
    source.countedBytes += change;
    this.#dirtyBytes += change;
    if (change < 0) this.#wakeWriters();
    if (source.dirtySince !== undefined) this.#activate(source);
    else this.#active.delete(source);
    const { dirtyBytesMax, fileDirtyBytesMax } = this.#limits;
    if (change > 0 && this.#queuesEmpty) {
      if (source.buffer.bytes > fileDirtyBytesMax / 2) this.enqueueAll(source, false);
      else if (this.#dirtyBytes > dirtyBytesMax / 2) this.#relieve();
    }
  }

  /**
   * Waits until `bytes` more may be written to a file; undefined: they may now. Ask again afterwards.
   * @throws HoldfastError EINTR when `signal` aborts
   */
  room(source: FlushSource, bytes: number, signal: Interrupt | undefined): Promise<void> | undefined {
    if (this.#fits(source, bytes)) return undefined;
    const waiter: RoomWaiter = { source, bytes, woken: deferred() };
    this.#waiters.add(waiter);
    if (this.#queuesEmpty) {
      if (source.buffer.bytes + bytes > this.#limits.fileDirtyBytesMax) this.enqueueAll(source, false);
      else this.#relieve();
    }
    return interruptible(waiter.woken.promise, signal).finally(() => this.#waiters.delete(waiter));
  }

  close(): void {
    this.#ageTimer?.cancel();
    this.#ageTimer = undefined;
  }

  get #queuesEmpty(): boolean {
    return this.#urgent.length === 0 && this.#ordinary.length === 0;
  }

  /** A write larger than a limit passes once nothing else is dirty. */
  #fits(source: FlushSource, bytes: number): boolean {
    const { dirtyBytesMax, fileDirtyBytesMax } = this.#limits;
    return (
      (source.buffer.bytes === 0 || source.buffer.bytes + bytes <= fileDirtyBytesMax) &&
      (this.#dirtyBytes === 0 || this.#dirtyBytes + bytes <= dirtyBytesMax)
    );
  }

  #wakeWriters(): void {
    let granted = 0;
    for (const waiter of this.#waiters) {
      if (!this.#fits(waiter.source, waiter.bytes + granted)) continue;
      granted += waiter.bytes;
      this.#waiters.delete(waiter);
      waiter.woken.resolve();
    }
  }

  /** Starts writing back the file that has been dirty longest and has anything left to send. */
  #relieve(): void {
    for (const source of this.#active) {
      this.enqueueAll(source, false);
      if (!this.#queuesEmpty) return;
    }
  }

  /** Fewer acknowledged writes are kept than before. */
  resume(): void {
    this.#pump();
  }

  get #mayCarry(): boolean {
    const { flushFramesInFlightMax, flushBytesInFlightMax } = this.#limits;
    return (
      this.#framesInFlight < flushFramesInFlightMax &&
      this.#bytesInFlight < flushBytesInFlightMax &&
      (this.#kept?.hasRoom(this.#bytesInFlight) ?? true)
    );
  }

  #pump(): void {
    while (this.#mayCarry) {
      const entry = this.#urgent.shift() ?? this.#ordinary.shift();
      if (!entry) return;
      const { source, extent } = entry;
      if (extent.state !== 'queued') continue;
      if (source.buffer.beginSend(extent))
        void this.#send(source, source.buffer.gather(extent, source.chunkSize));
      else {
        extent.state = 'dirty';
        extent.wanted = true; // endSend() of what overlaps it hands it back
      }
    }
  }

  async #send(source: FlushSource, extents: readonly Extent[]): Promise<void> {
    let bytes = 0;
    for (const extent of extents) bytes += extent.length;
    this.#framesInFlight++;
    this.#bytesInFlight += bytes;
    await source.send(extents);
    this.#framesInFlight--;
    this.#bytesInFlight -= bytes;
    this.#kept?.grown();
    for (const extent of extents) {
      for (const next of source.buffer.endSend(extent)) this.#push(source, next, true);
    }
    this.recount(source);
    this.#pump();
  }

  #activate(source: FlushSource): void {
    this.#active.add(source);
    this.#ageTimer ??= this.#clock.every(AGE_CHECK_INTERVAL_MS, () => this.#checkAge(), { weak: true });
  }

  #checkAge(): void {
    const limit = this.#clock.now() - this.#limits.dirtyAgeMs;
    for (const source of this.#active) {
      if (source.dirtySince !== undefined && source.dirtySince <= limit) source.writeBack();
    }
    if (this.#active.size === 0) this.close();
  }
}

/** A queue whose shift() does not move what is behind. */
class Fifo<T> {
  #items: (T | undefined)[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  shift(): T | undefined {
    if (this.#head === this.#items.length) return undefined;
    const item = this.#items[this.#head];
    this.#items[this.#head++] = undefined;
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }
}
