import { assert } from '../../common/assert.js';
import type { Timespec } from '../../common/clock.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { Attr, QuotaAmount, Truncate } from '../../proto/gen/meta.js';
import { FILE_SIZE_MAX_BYTES } from '../../proto/types.js';
import { type Answer, onceFree } from '../answer.js';
import { copyOfAttr } from '../attr-copy.js';
import { FileHolds } from '../quota/file-holds.js';
import { amountsOf, type Hold, NO_HOLD, QuotaBook } from '../quota/quota-book.js';
import { later } from '../times.js';
import type { Interrupt } from '../wait.js';
import { Alone } from './alone.js';
import type { FileLayout, Written } from './api.js';
import type { DataDeps } from './data-deps.js';
import type { Extent, Piece } from './extent.js';
import { FileTail, type Tenure } from './file-tail.js';
import type { FlushSource } from './flusher.js';
import { GroupSync } from './group-sync.js';
import { SLOT_BYTES_MAX, unitWithin } from './limits.js';
import { flagLoneMessages, Sends } from './sends.js';
import type { UnsyncedWrites } from './unsynced.js';
import { WriteBuffer } from './write-buffer.js';
import { type ErrorMark, ofOpenFile } from './write-errors.js';
import type { WriteMark } from './write-mark.js';
import { WriteTimes } from './write-times.js';

/** An extent that reaches its slot's end is sent at once when it has this size: a sequential writer will not come back. */
const EARLY_SEND_BYTES_MIN = 64 * 1024;
/** A commit whose outcome got lost with the session is repeated: all of it but the allocation bears that. */
const COMMIT_ATTEMPTS_MAX = 2;

/**
 * The contents of one inode as this mount sees them: what the servers hold, and over it what was written here and is on
 * its way. Invariants:
 * - size and mtime are committed only when the bytes they speak of are on the chunkservers;
 * - every byte that landed is followed by a commit, so that others see the change;
 * - a truncate is alone: no write is taken during it, nothing that it cuts off is on its way.
 */
export class FileData implements FileLayout, FlushSource {
  readonly ino: number;
  readonly chunkSize: number;
  readonly buffer: WriteBuffer;
  countedBytes = 0;
  dirtySince: number | undefined;
  readonly #deps: DataDeps;
  readonly #quotas: QuotaBook;
  readonly holds: FileHolds;
  #attr: Attr;
  /** Writes so far, and how many of them the newest commit covers. */
  #written = 0;
  #committed = 0;
  /** Furthest end of what was written since the newest commit. */
  #pendingEnd = 0;
  readonly #sends: Sends;
  /** Time of the newest write not yet committed. */
  #mtime: Timespec | undefined;
  #ctime: Timespec | undefined;
  readonly #times: WriteTimes;
  /** Allocated, of the commit that is on its way. */
  #allocatedSent = 0;
  readonly #unsynced: UnsyncedWrites;
  readonly #synced: GroupSync;
  #committing: Promise<void> | undefined;
  /** A truncate, or the end being made ready for a gap: no write is taken, nothing is read and no commit begins meanwhile. */
  readonly alone = new Alone();
  /** What lies behind the end is being discarded: to be waited for before anybody else may write there. */
  #discarding = 0;
  readonly tail: FileTail;
  /** How often the size was set so far, here or by a truncate elsewhere. */
  #cuts = 0;
  #writingBack = false;

  /** @param isNew made here just now: nobody else has written to it */
  constructor(attr: Attr, isNew: boolean, deps: DataDeps) {
    assert(attr.chunkSize > 0, 'a regular file has a chunk size');
    this.ino = attr.ino;
    this.chunkSize = attr.chunkSize;
    this.#attr = attr;
    this.#deps = deps;
    this.#times = new WriteTimes(deps.clock, () => deps.tenure(attr.ino));
    this.tail = new FileTail(this, deps);
    this.#unsynced = deps.unsynced.of(attr.ino);
    this.#sends = new Sends(this, deps, this.#unsynced, (error) => this.#fail(error));
    this.#synced = new GroupSync(this.#unsynced, deps.chunks, isNew ? 0 : attr.size, {
      writeAgain: (pieces) => this.#putBack(pieces),
      failed: (error) => this.#fail(error),
    });
    this.#quotas = deps.quotas ?? new QuotaBook();
    this.holds = new FileHolds(this.#quotas);
    this.buffer = new WriteBuffer(unitWithin(attr.chunkSize, SLOT_BYTES_MAX), (extent) =>
      deps.flusher.enqueue(this, extent, true),
    );
  }

  /** The newest from the server: without what was written here since. */
  get attr(): Attr {
    return this.#attr;
  }

  get truncateSeq(): number {
    return this.#attr.truncateSeq;
  }

  /** proto/inode-flags.ts */
  get flags(): number | undefined {
    return this.#attr.flags;
  }

  get truncates(): readonly Truncate[] {
    return this.#attr.truncates;
  }

  /** With what was written here. */
  get size(): number {
    return Math.max(this.#attr.size, this.#pendingEnd);
  }

  /** From here on the servers hold nothing. */
  get serverEnd(): number {
    return Math.max(this.#attr.size, this.#sends.sentEnd);
  }

  /** What was written here reaches beyond the size that is committed. */
  get grows(): boolean {
    return this.#pendingEnd > this.#attr.size;
  }

  /** Nothing to write back or to commit. */
  get clean(): boolean {
    return this.#discarding === 0 && this.#told;
  }

  get #told(): boolean {
    return this.buffer.empty && this.#committed === this.#written && !this.#committing;
  }

  /** The newest attributes with what was written here laid over them. */
  view(): Attr {
    const { size, mtime, ctime, allocated } = this.#attr;
    if (this.clean && this.size === size) return this.#attr;
    const stored = Math.max(0, allocated + this.#sends.allocatedDelta + this.#allocatedSent);
    const seen = copyOfAttr(this.#attr);
    seen.size = this.size;
    seen.mtime = this.#mtime ?? mtime;
    seen.ctime = later(this.#ctime, ctime);
    // What is written over takes no more than there was: a file is never counted beyond its end.
    seen.allocated = Math.max(stored, Math.min(stored + this.buffer.bytes, this.size));
    return seen;
  }

  /** Takes attributes from the server; older ones than known are ignored. @param own they answer a change made here */
  applyAttr(attr: Attr, own: boolean): void {
    const known = this.#attr;
    if (attr.change < known.change) return;
    this.#attr = attr;
    if (attr.truncateSeq > known.truncateSeq) this.#cutOff(attr.size);
    const foreign = own ? attr.change > known.change + 1 : attr.change !== known.change;
    if (foreign) this.#deps.blocks.drop(this.ino);
  }

  /** What was written before a truncate, made here or elsewhere, grows the file no more; from `size` on it is not sent either. */
  #cutOff(size: number): void {
    this.buffer.truncate(size);
    this.#unsynced.cut(size, Number.POSITIVE_INFINITY);
    this.#deps.flusher.recount(this);
    this.#sized();
  }

  /** The size was set: it speaks for all that was written before. */
  #sized(): void {
    this.#cuts++;
    this.#pendingEnd = 0;
    this.#sends.settle();
  }

  /**
   * utimes(2) here: the commit of earlier writes must not set another time, and that of later ones must.
   * @param overtaken whether the next commit goes ahead of it
   */
  timesSet(attr: Attr, mtimeSet: boolean, overtaken = false): void {
    this.#times.forget(mtimeSet && overtaken ? this.#written : undefined);
    if (mtimeSet && this.#mtime) this.#mtime = attr.mtime;
    if (this.#ctime) this.#ctime = attr.ctime;
  }

  /** The write error that this description has not reported yet; it counts as reported now. */
  takeError(mark: ErrorMark): HoldfastError | undefined {
    return this.#unsynced.errors.take(mark);
  }

  /** The session under which it was written is over: what is dirty must never reach the servers. */
  discard(error: HoldfastError): void {
    this.#unsynced.letGo();
    if (this.#told) return;
    this.buffer.abandon();
    this.holds.clear();
    this.#fail(error);
    this.#sends.abandon();
    this.#book(this.#written);
    this.#deps.flusher.recount(this);
  }

  /** As UnsyncedWrites.kept(). */
  kept(start: number, end: number): Buffer[] | undefined {
    return this.#unsynced.kept(start, end);
  }

  /** A new open file description: of errors of the past only those are its own that nobody was told of. */
  newMark(): ErrorMark {
    return this.#unsynced.errors.newMark();
  }

  /**
   * Takes bytes at `offset`, or at the end of the file. They are readable here at once.
   * @param mayPut asked when there is room, the moment before: whether it may be put there, and the end is where it seems from here
   * @param hold what was taken for it; from here on it is the file's, if it was put anywhere
   * @returns where they were put; undefined: nowhere, for they may not
   * @throws HoldfastError EFBIG, as `mayPut`; EINTR when `signal` aborts while too much is dirty
   */
  write(
    offset: number | 'end',
    data: Buffer,
    signal?: Interrupt,
    mayPut: () => boolean = () => true,
    hold: Hold = NO_HOLD,
  ): Answer<number | undefined> {
    const room = (): Promise<void> | undefined =>
      this.alone.running ?? this.#deps.flusher.room(this, data.length, signal);
    return onceFree(room, () => this.#put(offset, data, mayPut, hold));
  }

  /** An append takes the end that it sees: nothing is waited for since there was room. */
  #put(offset: number | 'end', data: Buffer, mayPut: () => boolean, hold: Hold): number | undefined {
    const { flusher, clock } = this.#deps;
    if (!mayPut()) return undefined;
    const start = offset === 'end' ? this.size : offset;
    const end = start + data.length;
    if (end > FILE_SIZE_MAX_BYTES) throw new HoldfastError('EFBIG');
    if (data.length === 0) return start;
    this.#written++;
    this.#pendingEnd = Math.max(this.#pendingEnd, end);
    this.#mtime = this.#ctime = this.#times.next();
    this.dirtySince ??= clock.now();
    const before = this.buffer.bytes;
    this.buffer.write(start, data, (extent) => {
      if (extent.length >= EARLY_SEND_BYTES_MIN) flusher.enqueue(this, extent, false);
    });
    this.holds.add(hold, this.buffer.bytes - before);
    flusher.recount(this);
    return start;
  }

  /** Everything written so far is on the chunkservers and visible to others. Errors: see takeError(). */
  async flush(): Promise<void> {
    while (this.alone.running) await this.alone.running;
    if (this.clean) return;
    const mark = this.#mark();
    await this.#drain();
    await this.#commit(mark);
  }

  /**
   * Everything written so far is on disk: data first, then the size. A change of times alone may go beside the data, or
   * has been committed already; it is committed again later, so that others notice what landed after it.
   * @param dataOnly fdatasync(2): times may follow later
   * @param landed called when the data is on disk and the new size is about to be committed; not when it stays
   */
  async fsync(dataOnly: boolean, landed?: () => void): Promise<void> {
    while (this.alone.running) await this.alone.running;
    await this.#synced.recallHistory(this);
    const mark = this.#mark();
    const grows = mark.end > this.#attr.size;
    const timesDue =
      !dataOnly && this.#committed < mark.written && !this.#times.areDurable(this.#mtime, this.#ctime);
    const { losses } = this.#synced;
    const landing = [this.#synced.all()];
    let committing: Promise<void> | undefined;
    if (!this.buffer.empty) {
      await flagLoneMessages(this, this.buffer.dirtyExtents(), this.#deps.chunks);
      landing.push(this.#drain());
      if (timesDue && !grows) committing = this.#commitTimes();
    } else if (timesDue && !grows) {
      committing = this.#commit(mark); // all data has landed
    }
    await Promise.all(landing);
    if (committing) {
      this.#deps.meta.dataLanded?.(this.ino);
      await committing;
    }
    await this.#synced.settle(losses, () => this.#drain());
    if (!grows) return;
    landed?.();
    await this.#commit(mark);
  }

  /**
   * Changes the size. `setAttr` asks the metaserver; what it answers becomes the known attributes.
   * Goes on to its end even when its caller does not wait for it.
   */
  truncate(size: number, setAttr: () => Promise<Attr>): Promise<Attr> {
    return this.alone.run(() => this.#truncate(size, setAttr));
  }

  /**
   * Before the file grows over a gap up to `end`: discards what a mount that has died may have left there. What is written
   * here it does not touch. The size that is known must be that of the server.
   * @throws HoldfastError EIO, ETIMEDOUT
   */
  clearGap(end: number, tenure: Tenure): Promise<void> {
    this.#discarding++;
    return this.alone
      .run(() => this.tail.discard(end, tenure))
      .finally(() => {
        this.#discarding--;
      });
  }

  async #truncate(size: number, setAttr: () => Promise<Attr>): Promise<Attr> {
    const { flusher, blocks, chunks } = this.#deps;
    await Promise.resolve(); // `alone.running` is set: no write and no commit begins
    const former = this.size;
    this.buffer.truncate(size);
    this.#unsynced.cut(size, Number.POSITIVE_INFINITY);
    flusher.recount(this);
    await this.#sends.beyond(size);
    while (this.#committing) await this.#committing;
    // The server numbers a cut only when it knows of something to cut: tell it what has reached the chunkservers.
    const { sentEnd } = this.#sends;
    if (sentEnd > size && sentEnd > this.#attr.size) await this.#commitOnce(sentEnd);
    const attr = await setAttr();
    this.#sized();
    blocks.drop(this.ino);
    this.applyAttr(attr, true);
    this.timesSet(attr, true);
    if (size < former) {
      const first = Math.floor(size / this.chunkSize);
      chunks.truncateAhead(this, first, Math.floor((former - 1) / this.chunkSize));
    }
    return attr;
  }

  /** [start, end) changed on the servers by other ways than the buffer: there are no bytes here to write again. */
  landed(pg: number, written: Written, start: number, end: number): void {
    this.#unsynced.add(pg, written.version, start, end, undefined);
    this.#sends.landed(written, start, end);
    this.#pendingEnd = Math.max(this.#pendingEnd, end);
    this.touched();
  }

  /** Space was reserved for bytes of it: none has changed, and there are none to write again. */
  reserved(pg: number, written: Written): void {
    this.#unsynced.add(pg, written.version, 0, 0, undefined);
    this.#sends.allocatedDelta += written.allocated;
  }

  /** What it holds has changed: so do its times. */
  touched(): void {
    this.#mtime = this.#ctime = this.#deps.clock.wall();
    this.#changed();
  }

  /** A truncate waits for `work` on bytes before `end`, as for what is being sent. */
  duringSend<T>(end: number, work: Promise<T>): Promise<T> {
    return this.#sends.during(end, work);
  }

  // ---- FlushSource

  send(extents: readonly Extent[]): Promise<void> {
    return this.#sends.send(extents);
  }

  writeBack(): void {
    if (this.#writingBack) return;
    this.#writingBack = true;
    void this.flush()
      .catch((error: unknown) => this.#fail(toHoldfastError(error)))
      .finally(() => {
        this.#writingBack = false;
      });
  }

  /** Sends all that is dirty now and waits until nothing of it is in memory. */
  async #drain(): Promise<void> {
    const generation = this.buffer.closeGeneration();
    this.#deps.flusher.enqueueAll(this, true);
    await this.buffer.drained(generation);
  }

  /** To be written again: the servers do not have it any more. */
  #putBack(pieces: readonly Piece[]): void {
    for (const piece of pieces) this.buffer.fillIn(piece);
    this.#changed();
  }

  #changed(): void {
    this.#written++;
    this.dirtySince ??= this.#deps.clock.now();
    this.#deps.flusher.recount(this);
  }

  #mark(): WriteMark {
    return { written: this.#written, end: this.#pendingEnd, cuts: this.#cuts, holds: this.holds.mark() };
  }

  /** Commits the writes up to the mark, all of which have landed or failed; one commit at a time. */
  async #commit(mark: WriteMark): Promise<void> {
    for (let busy = this.#busy; busy; busy = this.#busy) await busy;
    if (this.#committed >= mark.written) return;
    // A truncate since the mark has set the size itself, to what covers all that is left of those writes.
    const end = mark.cuts === this.#cuts ? mark.end : 0;
    await this.#exclusively(async () => {
      await this.#commitOnce(end, this.holds.take(mark.holds));
      const placeAhead = this.#deps.meta.keepsPlace?.(this.ino) ?? false;
      const again = (): Promise<void> => this.#commitOnce(0, NO_HOLD, true);
      this.#book(await this.#times.tellAgain(mark.written, placeAhead, again));
    });
  }

  /** Times alone, beside data that is still on its way: does not count as the commit of that data. */
  async #commitTimes(): Promise<void> {
    for (let busy = this.#busy; busy; busy = this.#busy) await busy;
    await this.#exclusively(() => this.#commitOnce(0));
  }

  /** What a commit must wait for. */
  get #busy(): Promise<unknown> | undefined {
    return this.#committing ?? this.alone.running;
  }

  async #exclusively(commit: () => Promise<void>): Promise<void> {
    assert(!this.#committing, 'one commit at a time');
    this.#committing = commit().finally(() => {
      this.#committing = undefined;
    });
    await this.#committing;
  }

  /** Failures are booked as write errors. */
  async #commitOnce(end: number, hold: Hold = NO_HOLD, behind = false): Promise<void> {
    await this.#commitUpTo(end, amountsOf(hold), behind).finally(() => this.#quotas.settled(hold));
  }

  async #commitUpTo(end: number, spent: QuotaAmount[] | undefined, behind: boolean): Promise<void> {
    const { meta } = this.#deps;
    const reached = this.#sends.dataLost ? Math.min(end, this.#sends.ackedEnd) : end;
    const newSize = reached > this.#attr.size ? reached : 0;
    const cuts = this.#cuts;
    let { allocatedDelta } = this.#sends;
    this.#sends.allocatedDelta = 0;
    this.#allocatedSent = allocatedDelta;
    for (let attempt = 1; ; attempt++) {
      const { ino, truncateSeq } = this;
      const [mtime, ctime] = [this.#mtime, this.#ctime];
      const committed = this.#times.committing(mtime, ctime);
      try {
        const attr = await meta.commitWrite(
          { ino, newSize: cuts === this.#cuts ? newSize : 0, mtime, ctime, allocatedDelta, truncateSeq },
          attempt === 1 ? spent : undefined,
          behind,
        );
        this.#allocatedSent = 0;
        this.applyAttr(attr, true);
        committed();
        return;
      } catch (error) {
        const failure = ofOpenFile(toHoldfastError(error));
        if (failure.errorName === 'EIO' && attempt < COMMIT_ATTEMPTS_MAX) {
          allocatedDelta = 0; // it may have been counted
          continue;
        }
        this.#allocatedSent = 0;
        this.#fail(failure);
        return;
      }
    }
  }

  /** The first `written` writes are committed. */
  #book(written: number): void {
    this.#committed = Math.max(this.#committed, written);
    if (this.#committed < this.#written) {
      this.dirtySince = this.#deps.clock.now();
      return;
    }
    this.#pendingEnd = 0;
    this.#sends.settle();
    this.#sends.dataLost = false;
    this.#mtime = undefined;
    this.#ctime = undefined;
    this.dirtySince = undefined;
    this.#deps.flusher.recount(this);
  }

  #fail(error: HoldfastError): void {
    this.tail.forget();
    this.#unsynced.errors.add(error);
    this.#deps.log.error({ ino: this.ino, error: error.message }, 'write-back failed');
  }
}
