import { assert } from '../../common/assert.js';
import { backOffMs } from '../../common/backoff.js';
import { HoldfastError } from '../../proto/errors.js';
import { FRAME_FLAG_END, type FrameFields, FrameType } from '../../proto/frame-header.js';
import type { ChunkInfo, ChunkKey, Version } from '../store/chunk-store.js';
import type { PgContext } from './context.js';
import { unpackContent, unpackList, unpackTruncateSeqs } from './pack.js';
import { comparePage, END_OF_KEYS, Page, START_OF_KEYS } from './recovery-page.js';
import {
  type Ask,
  type AskReply,
  compareKeys,
  FETCH_SALVAGED,
  FULL_RETRY_MAX_MS,
  FULL_RETRY_MS,
  LIST_CHUNKS,
  LIST_TRUNCATE_SEQS,
  type LinkSide,
  type Op,
  type OpOwner,
  PULL_RETRY_MAX_MS,
  PULL_RETRY_MS,
} from './types.js';

/**
 * Makes this server's copy of a group equal to another's: truncate numbers first, then pages of chunks in the order of
 * their keys. Three uses: a primary that peers pulls from a replica that is ahead; a replica is told to by RESYNC (in
 * both the group is at rest); a recovering replica pulls from the primary while the group serves.
 *
 * Forwarded operations during recovery, by the cursor (all keys up to it are settled):
 *  - a write up to the cursor is applied; behind the page that is being copied it is left out, for the page that will
 *    hold it is listed later; within the page it waits, and is applied behind the page when what was copied lacks it;
 *  - truncate and delete are applied at once. The boundary chunk of a truncate is removed before when it lies behind
 *    the cursor: stale content must not get the version of the truncate. What they cut off whole is left out of the page
 *    that is being copied; one in which the boundary chunk lies is begun anew.
 * Invariant: a local chunk with the source's version has the source's content at that version.
 * Replies and forwarded operations travel over one ordered connection; each reply names the source's last operation at
 * the moment of the answer, so that nothing depends on when exactly it left.
 */
export class Pull implements OpOwner {
  readonly source: number;
  readonly #ctx: PgContext;
  readonly #side: LinkSide;
  readonly #mode: 'peering' | 'resync' | 'recover';
  /** The version the group has afterwards; recovery: that of the last forwarded operation. */
  readonly #target: Version | undefined;
  readonly #done: () => void;
  readonly #refused: () => void;
  #state: 'seqs' | 'listing' | 'page' | 'retry' | 'finishing' | 'caughtUp' | 'cancelled' = 'seqs';
  /** Whether ctx.last is known to follow the source's order: set by the first reply. */
  #based = false;
  #cursor: ChunkKey = START_OF_KEYS;
  #seqCursor = 0;
  #seqsDone = false;
  #page: Page | undefined;
  #ask: Ask | undefined;
  #retryAt = 0;
  /** Attempts without progress. */
  #failures = 0;
  #queue: Op[] = [];
  #queueBytes = 0;
  /** Of the last truncate or delete that was applied, and of each inode since the present question was asked. */
  #rangeSeq = 0;
  #rangeInos = new Map<number, number>();
  #announced = false;
  #settledBytes = 0;
  #totalBytes = 0;

  /** @param refused the primary says that this copy lacks something: it has to be begun anew */
  constructor(
    ctx: PgContext,
    mode: 'peering' | 'resync' | 'recover',
    source: number,
    target: Version | undefined,
    done: () => void,
    refused: () => void = () => {},
  ) {
    this.#ctx = ctx;
    this.#refused = refused;
    this.#mode = mode;
    this.#side = mode === 'peering' ? 'out' : 'in';
    this.source = source;
    this.#target = target;
    this.#done = done;
  }

  /** The primary was told that nothing is missing, whether its answer has arrived or not. */
  get announced(): boolean {
    return this.#announced;
  }

  get doneBytes(): number {
    return this.#settledBytes + (this.#page?.doneBytes ?? 0);
  }

  get leftBytes(): number {
    return Math.max(0, this.#totalBytes - this.doneBytes);
  }

  start(): void {
    this.#ctx.setState(this.#ctx.last, false);
    this.#continue();
  }

  /** Nothing that was asked for is heard any more. */
  cancel(): void {
    this.#state = 'cancelled';
    if (this.#ask) this.#ask.cancelled = true;
    this.#dropPage();
  }

  tick(now: number): void {
    if (this.#state === 'retry' && now >= this.#retryAt) this.#continue();
  }

  /** The primary may have seen a map between, by which this replica was out, and does not count on it any more. */
  announceAgain(): void {
    if (!this.#announced || this.#state === 'cancelled') return;
    if (this.#ask) this.#ask.cancelled = true;
    this.#state = 'finishing';
    this.#announce();
  }

  /** The store refused an operation: what it missed is found by comparing everything again. */
  refusedByStore(now: number): void {
    if (this.#state === 'cancelled') return;
    if (this.#ask) this.#ask.cancelled = true;
    this.#cursor = START_OF_KEYS;
    this.#seqCursor = 0;
    this.#seqsDone = false;
    this.#announced = false;
    this.#settledBytes = 0;
    this.#retryLater(now, true);
  }

  /**
   * A forwarded operation; recovery only.
   * @returns 'apply': the caller applies it and answers then; 'taken': answer now; 'gap': it does not follow the last one
   */
  forwarded(op: Op): 'apply' | 'taken' | 'gap' {
    if (!this.#based) {
      this.#enqueue(op);
      return 'taken';
    }
    if (op.version.seq !== this.#ctx.last.seq + 1) return 'gap';
    this.#ctx.last = op.version;
    if (this.#state === 'finishing' || this.#state === 'caughtUp') return 'apply';
    this.#route(op);
    return 'taken';
  }

  applied(): void {
    // Forwarded operations were answered when they came; one that the store refused begins the copy anew.
  }

  #route(op: Op): void {
    if (op.kind !== 'write') {
      this.#applyRange(op);
      return;
    }
    if (compareKeys(op, this.#cursor) <= 0) this.#apply(op);
    else if (this.#state === 'listing') this.#enqueue(op);
    else if (this.#state === 'page' && compareKeys(op, (this.#page as Page).end) <= 0) this.#enqueue(op);
  }

  #apply(op: Op): void {
    this.#ctx.emit({ kind: 'apply', op: { ...op, sync: false, owner: this } });
  }

  #applyRange(op: Op): void {
    if (op.kind === 'truncate') {
      const boundary = { ino: op.ino, chunk: Math.floor(op.offset / op.chunkSize) };
      if (compareKeys(boundary, this.#cursor) > 0 && this.#ctx.env.chunkInfo(this.#ctx.id, boundary)) {
        this.#ctx.emit({ kind: 'install', key: boundary, content: undefined });
      }
    }
    this.#apply(op);
    this.#rangeSeq = op.version.seq;
    this.#rangeInos.set(op.ino, op.version.seq);
    if (this.#page) this.#cutPage(this.#page, op);
  }

  /** Not begun anew wherever that can be avoided: files that are cut and removed all the time would never let it end. */
  #cutPage(page: Page, { kind, ino, offset, chunkSize, version }: Op): void {
    const keptBytes = kind === 'truncate' ? offset : 0;
    const from = kind === 'truncate' ? Math.ceil(offset / chunkSize) : 0;
    const boundary = { ino, chunk: from - 1 };
    const trimmed = keptBytes % chunkSize !== 0 && compareKeys(boundary, this.#cursor) > 0;
    if (trimmed && compareKeys(boundary, page.end) <= 0) {
      this.#listAnew();
      return;
    }
    page.cut(ino, from, version.seq);
    this.#keepQueued((op) => op.ino !== ino || op.chunk < from);
  }

  /** Leaves the others out. */
  #keepQueued(keep: (op: Op) => boolean): void {
    this.#queue = this.#queue.filter(keep);
    this.#queueBytes = this.#queue.reduce((sum, op) => sum + queuedBytes(op), 0);
  }

  /** Keeps a write until it is known whether what is copied holds it. */
  #enqueue(op: Op): void {
    this.#queue.push(op);
    this.#queueBytes += queuedBytes(op);
    if (this.#queueBytes <= this.#ctx.env.limits.queueBytes) return;
    if (this.#ask) this.#ask.cancelled = true;
    this.#listAnew();
  }

  #dropPage(): void {
    for (const ask of this.#page?.asks ?? []) ask.cancelled = true;
    this.#page = undefined;
    this.#queue = [];
    this.#queueBytes = 0;
  }

  /** What waits is left out: the list that is asked for now comes later, and holds it. */
  #listAnew(): void {
    this.#dropPage();
    this.#continue();
  }

  #continue(): void {
    if (this.#seqsDone) this.#listChunks();
    else this.#listSeqs();
  }

  /** `taken` gets the reply; an error, or a reply that makes no sense, is tried again later. */
  #send(fields: FrameFields & { type: FrameType }, pace: Ask['pace'], taken: (reply: AskReply) => void): Ask {
    const ask: Ask = {
      to: this.source,
      side: this.#side,
      fields: { ...fields, pg: this.#ctx.id, epoch: this.#ctx.map?.epoch ?? 0 },
      pace,
      cancelled: false,
      done: (error, reply, now) => {
        if (error || !reply) {
          if (fields.type === FrameType.CAUGHT_UP && error?.errorName === 'STALE_EPOCH') this.#refused();
          else this.#retryLater(now);
          return;
        }
        try {
          taken(reply);
        } catch (failure) {
          if (!(failure instanceof HoldfastError)) throw failure;
          this.#retryLater(now);
        }
      },
    };
    this.#ctx.emit({ kind: 'ask', ask });
    return ask;
  }

  #retryLater(now: number, full = false): void {
    this.#dropPage();
    this.#state = 'retry';
    const [first, most] = full ? [FULL_RETRY_MS, FULL_RETRY_MAX_MS] : [PULL_RETRY_MS, PULL_RETRY_MAX_MS];
    this.#retryAt = now + backOffMs(++this.#failures, first, most);
  }

  /** The first reply fixes where in the source's order this copy stands. @returns false: begun anew */
  #base(header: AskReply['header']): boolean {
    if (this.#based || this.#mode !== 'recover') return true;
    const waiting = this.#queue.filter((op) => op.version.seq > header.versionSeq);
    this.#queue = [];
    this.#queueBytes = 0;
    if (waiting.some((op, index) => op.version.seq !== header.versionSeq + 1 + index)) {
      this.#continue();
      return false;
    }
    this.#based = true;
    this.#ctx.last = { epoch: header.versionEpoch, seq: header.versionSeq };
    for (const op of waiting) {
      this.#ctx.last = op.version;
      this.#route(op);
    }
    return true;
  }

  #listSeqs(): void {
    this.#state = 'seqs';
    this.#rangeInos.clear();
    const fields = {
      type: FrameType.LIST,
      ino: this.#seqCursor,
      length: this.#ctx.env.limits.listEntries,
      aux: LIST_TRUNCATE_SEQS,
    };
    this.#ask = this.#send(fields, undefined, (reply) => {
      if (!this.#base(reply.header)) return;
      this.#takeSeqs(reply);
    });
  }

  #takeSeqs({ header, payload }: AskReply): void {
    const { env, id } = this.#ctx;
    const limit = env.limits.listEntries;
    const entries = unpackTruncateSeqs(payload);
    const complete = (header.flags & FRAME_FLAG_END) !== 0;
    const end = complete ? Number.POSITIVE_INFINITY : (entries.at(-1)?.ino ?? Number.POSITIVE_INFINITY);
    // A truncate that came in meanwhile is newer than the list.
    const newer = (ino: number) => (this.#rangeInos.get(ino) ?? 0) > header.versionSeq;
    const theirs = new Map(entries.map((entry) => [entry.ino, entry.truncateSeq]));
    for (let after = this.#seqCursor; ; ) {
      const mine = env.listTruncateSeqs(id, after, limit).filter((entry) => entry.ino <= end);
      for (const { ino, truncateSeq } of mine) {
        if (theirs.get(ino) === truncateSeq) theirs.delete(ino);
        else if (!theirs.has(ino)) theirs.set(ino, 0);
      }
      if (mine.length < limit) break;
      after = mine.at(-1)?.ino as number;
    }
    for (const [ino, truncateSeq] of theirs) {
      if (!newer(ino)) this.#ctx.emit({ kind: 'setTruncateSeq', ino, truncateSeq });
    }
    this.#seqCursor = end;
    this.#seqsDone = complete;
    this.#continue();
  }

  #listChunks(): void {
    if (this.#cursor === END_OF_KEYS) {
      this.#finish();
      return;
    }
    this.#state = 'listing';
    const fields = {
      type: FrameType.LIST,
      ino: this.#cursor.ino,
      chunk: this.#cursor.chunk,
      length: this.#ctx.env.limits.listEntries,
      aux: LIST_CHUNKS,
    };
    this.#ask = this.#send(fields, undefined, (reply) => this.#takePage(reply));
  }

  #takePage({ header, payload }: AskReply): void {
    if (this.#rangeSeq > header.versionSeq && this.#mode === 'recover') {
      this.#listAnew();
      return;
    }
    if (this.#cursor === START_OF_KEYS) this.#totalBytes = header.aux;
    const { env, id } = this.#ctx;
    const complete = (header.flags & FRAME_FLAG_END) !== 0;
    const difference = comparePage(env, id, this.#cursor, unpackList(payload), complete, (key) =>
      this.#ctx.isSuspect(key),
    );
    const { end, fetch, remove, bytes } = difference;
    const fetchBytes = fetch.reduce((sum, info) => sum + info.bytes, 0);
    const page = new Page(end, header.versionSeq, fetch.length, bytes - fetchBytes);
    this.#page = page;
    this.#state = 'page';
    this.#keepQueued((op) => page.lacks(op) && compareKeys(op, end) <= 0);
    for (const key of remove) this.#ctx.emit({ kind: 'install', key, content: undefined });
    for (const info of fetch) page.asks.push(this.#fetch(page, info));
    if (page.left === 0) this.#finishPage(page);
  }

  #fetch(page: Page, info: ChunkInfo): Ask {
    const key = { ino: info.ino, chunk: info.chunk };
    const pace =
      this.#mode === 'recover' ? { bytes: info.bytes, copies: this.#ctx.inSyncPeers.length } : undefined;
    return this.#send({ type: FrameType.FETCH, ...key, aux: FETCH_SALVAGED }, pace, (reply) => {
      const exists = page.fetched(key, reply.header.versionSeq) && reply.header.aux === 1;
      const content = exists ? unpackContent(reply.payload) : undefined;
      this.#ctx.emit({
        kind: 'install',
        key,
        content,
        done: (failure, at) => {
          if (page !== this.#page) return;
          if (failure) this.#retryLater(at, failure.errorName === 'ENOSPC');
          else this.#installed(page, info.bytes);
        },
      });
    });
  }

  #installed(page: Page, bytes: number): void {
    page.doneBytes += bytes;
    page.left--;
    if (page.left === 0) this.#finishPage(page);
  }

  #finishPage(page: Page): void {
    this.#page = undefined;
    this.#failures = 0;
    this.#settledBytes += page.doneBytes;
    const waiting = this.#queue;
    this.#queue = [];
    this.#queueBytes = 0;
    this.#cursor = page.end;
    for (const op of waiting) if (page.lacks(op)) this.#apply(op);
    this.#listChunks();
  }

  #finish(): void {
    this.#state = 'finishing';
    this.#ctx.trustAll();
    const recovering = this.#mode === 'recover';
    assert(recovering || this.#target !== undefined, 'a copy at rest has a version to reach');
    if (this.#target) this.#ctx.last = this.#target;
    this.#ctx.clean = !recovering;
    this.#ctx.emit({
      kind: 'setState',
      state: { last: this.#ctx.last, clean: !recovering },
      sync: true,
      done: (error: HoldfastError | undefined) => {
        if (error || this.#state !== 'finishing') return;
        if (recovering) this.#announce();
        else this.#done();
      },
    });
  }

  /** Tells the primary, until it hears; from its answer on it waits for this replica's acknowledgements too. */
  #announce(): void {
    this.#announced = true;
    const { epoch, seq } = this.#ctx.last;
    const fields = { type: FrameType.CAUGHT_UP, versionEpoch: epoch, versionSeq: seq };
    this.#ask = this.#send(fields, undefined, () => {
      if (this.#state !== 'finishing') return;
      this.#state = 'caughtUp';
      this.#done();
    });
  }
}

/** What an operation that waits is counted as. */
function queuedBytes({ payload }: Op): number {
  return payload.length + 256;
}
