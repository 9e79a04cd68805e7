import { assert } from '../../common/assert.js';
import { backOffMs } from '../../common/backoff.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import { HoldfastError } from '../../proto/errors.js';
import type { CommandResult, QuotaAmount } from '../../proto/gen/meta.js';
import { BATCH_MUTATIONS_MAX } from '../../proto/types.js';
import type { Change, MutationAnswer, MutationOp, ReadAnswer, ReadOp } from './api.js';

/**
 * What a session has asked and not got answered. Pure: time and connection come in as calls, requests to send come out
 * of next().
 *
 * Exactly once: a mutation gets its number when it is sent first, keeps it for every repetition, and is repeated until
 * it is answered, even when its caller has gone. Numbers below `ackedBelow` are answered, all of them.
 */

/** Sent and unanswered mutations; the state machine keeps the results of at least as many for each session. */
export const MUTATIONS_IN_FLIGHT_MAX = 256;
export const READS_IN_FLIGHT_MAX = 1024;
/** Requests that wait to be sent; a further one is refused with OVERLOADED. FUSE itself allows far fewer. */
export const REQUESTS_WAITING_MAX = 65_536;
export const RETRY_MIN_MS = 20;
export const RETRY_MAX_MS = 500;

interface Common {
  attempts: number;
  /** Not to be sent before; clock ms. */
  notBefore: number;
  /** The caller gets ETIMEDOUT then; Infinity: never. */
  readonly giveUpAt: number;
  /** The caller has its answer, or went away. */
  settled: boolean;
  /** A copy is on its way on the present connection. */
  inFlight: boolean;
}

export interface PendingRead extends Common {
  readonly kind: 'read';
  readonly op: ReadOp;
  readonly result: Deferred<ReadAnswer>;
}

export interface PendingMutation extends Common {
  readonly kind: 'mutation';
  readonly op: MutationOp;
  readonly spent: QuotaAmount[] | undefined;
  /** 0: never sent. */
  seq: number;
  readonly result: Deferred<MutationAnswer>;
}

/** Changes made here already, in their order, that travel together: their numbers are `seq` and those behind it. */
export interface PendingBatch extends Common {
  readonly kind: 'batch';
  readonly changes: readonly Change[];
  /** Number of the first; 0: never sent. */
  seq: number;
  readonly result: Deferred<CommandResult[]>;
}

export type PendingChange = PendingMutation | PendingBatch;
export type PendingRequest = PendingRead | PendingChange;

export class RequestLedger {
  #mutationQueue: PendingChange[] = [];
  #readQueue: PendingRead[] = [];
  /** Failed for now: each waits for its notBefore. */
  readonly #delayed = new Set<PendingRequest>();
  readonly #readsInFlight = new Set<PendingRead>();
  /** Numbered and unanswered, in the order of their numbers. */
  readonly #unanswered = new Map<number, PendingChange>();
  /** Of those, the ones whose callers have gone. */
  readonly #orphans = new Set<PendingChange>();
  #orphansSettled: Deferred<void> | undefined;
  readonly #softTimeoutMs: number;
  #nextSeq = 1;
  #mutationsInFlight = 0;

  /** @param softTimeoutMs callers get ETIMEDOUT after it; Infinity: they wait for ever */
  constructor(softTimeoutMs: number) {
    this.#softTimeoutMs = softTimeoutMs;
  }

  addRead(op: ReadOp, now: number): PendingRead {
    const request: PendingRead = { kind: 'read', op, ...this.#common(now), result: deferred() };
    this.#refuseFlood(this.#readQueue.length);
    this.#readQueue.push(request);
    return request;
  }

  addMutation(op: MutationOp, now: number, spent?: QuotaAmount[]): PendingMutation {
    const request: PendingMutation = {
      kind: 'mutation',
      op,
      spent,
      seq: 0,
      ...this.#common(now),
      result: deferred(),
    };
    this.#refuseFlood(this.#mutationQueue.length);
    this.#mutationQueue.push(request);
    return request;
  }

  addBatch(changes: readonly Change[], now: number): PendingBatch {
    assert(changes.length > 0 && changes.length <= BATCH_MUTATIONS_MAX, 'a batch has a bounded size');
    const request: PendingBatch = {
      kind: 'batch',
      changes,
      seq: 0,
      ...this.#common(now),
      giveUpAt: Infinity, // nobody waits for it alone
      result: deferred(),
    };
    this.#refuseFlood(this.#mutationQueue.length);
    this.#mutationQueue.push(request);
    return request;
  }

  /** Every number below is answered. */
  get ackedBelow(): number {
    for (const seq of this.#unanswered.keys()) return seq;
    return this.#nextSeq;
  }

  /** Resolves when every change whose caller has gone without an answer is answered; undefined: there is none. */
  get orphansSettled(): Promise<void> | undefined {
    return this.#orphansSettled?.promise;
  }

  #settleOrphan(request: PendingChange): void {
    if (!this.#orphans.delete(request) || this.#orphans.size > 0) return;
    this.#orphansSettled?.resolve();
    this.#orphansSettled = undefined;
  }

  /** Requests on the present connection. */
  get inFlight(): number {
    return this.#mutationsInFlight + this.#readsInFlight.size;
  }

  /** All that is not answered yet, sent or not. */
  get pending(): number {
    return this.#mutationQueue.length + this.#readQueue.length + this.#delayed.size + this.inFlight;
  }

  /** The next request to send now; it counts as in flight. Mutations come out in the order of their numbers. */
  next(now: number): PendingRequest | undefined {
    if (this.#delayed.size > 0) this.#wakeDelayed(now);
    if (this.#mutationsInFlight < MUTATIONS_IN_FLIGHT_MAX) {
      const mutation = this.#mutationQueue.shift();
      if (mutation) {
        if (mutation.seq === 0) {
          mutation.seq = this.#nextSeq;
          this.#nextSeq += mutation.kind === 'batch' ? mutation.changes.length : 1;
          this.#unanswered.set(mutation.seq, mutation);
        }
        this.#mutationsInFlight++;
        return started(mutation);
      }
    }
    if (this.#readsInFlight.size >= READS_IN_FLIGHT_MAX) return undefined;
    const read = this.#readQueue.shift();
    if (!read) return undefined;
    this.#readsInFlight.add(read);
    return started(read);
  }

  answeredRead(request: PendingRead, result: ReadAnswer): void {
    if (!this.#landed(request) || request.settled) return;
    request.settled = true;
    request.result.resolve(result);
  }

  /** @returns true when the caller took the answer; false: it had gone, the answer is the session's to clean up */
  answeredMutation(request: PendingMutation, reply: MutationAnswer): boolean {
    if (!this.#landed(request)) return true;
    this.#unanswered.delete(request.seq);
    this.#settleOrphan(request);
    if (request.settled) return false;
    request.settled = true;
    request.result.resolve(reply);
    return true;
  }

  answeredBatch(request: PendingBatch, results: CommandResult[]): void {
    if (!this.#landed(request)) return;
    this.#unanswered.delete(request.seq);
    if (request.settled) return;
    request.settled = true;
    request.result.resolve(results);
  }

  /** One attempt failed; a retriable error is repeated with the same number after a back-off. */
  failed(request: PendingRequest, error: HoldfastError, now: number): void {
    if (!this.#landed(request)) return;
    if (error.retriable) {
      if (request.kind === 'read' && request.settled) return;
      request.notBefore = now + backOffMs(request.attempts, RETRY_MIN_MS, RETRY_MAX_MS);
      this.#delayed.add(request);
      return;
    }
    if (request.kind !== 'read') {
      this.#unanswered.delete(request.seq);
      this.#settleOrphan(request);
    }
    this.#reject(request, error);
  }

  /** The connection is gone: everything in flight is to be sent again, in the old order, before anything new. */
  disconnected(): void {
    const reads = [...this.#readsInFlight].filter((read) => !read.settled);
    for (const read of this.#readsInFlight) read.inFlight = false;
    this.#readsInFlight.clear();
    this.#readQueue = [...reads, ...this.#readQueue];
    for (const request of this.#delayed) {
      if (request.kind === 'read') this.#readQueue.unshift(request);
    }
    this.#delayed.clear();
    const fresh = this.#mutationQueue.filter((mutation) => mutation.seq === 0);
    for (const mutation of this.#unanswered.values()) mutation.inFlight = false;
    this.#mutationQueue = [...this.#unanswered.values(), ...fresh];
    this.#mutationsInFlight = 0;
  }

  /**
   * The session is gone; numbers begin again. Mutations that were sent have an unknown outcome.
   * @returns those, rejected with EIO
   */
  expired(): PendingChange[] {
    this.disconnected();
    // A batch speaks for leases that are gone, sent or not.
    const batches = this.#mutationQueue.filter((one) => one.kind === 'batch' && one.seq === 0);
    const unknown = [...this.#unanswered.values(), ...batches];
    this.#unanswered.clear();
    this.#mutationQueue = this.#mutationQueue.filter((one) => one.seq === 0 && one.kind !== 'batch');
    this.#nextSeq = 1;
    for (const mutation of unknown) {
      this.#reject(mutation, new HoldfastError('EIO', 'the session expired, the outcome is unknown'));
      this.#settleOrphan(mutation);
    }
    return unknown;
  }

  /** The caller goes without an answer. A mutation that was sent goes on to be repeated; all else is dropped. */
  abandon(request: PendingRequest, error: HoldfastError): void {
    if (request.settled) return;
    this.#reject(request, error);
    if (request.kind !== 'read') {
      if (request.seq === 0) this.#mutationQueue = this.#mutationQueue.filter((one) => one !== request);
      else {
        this.#orphans.add(request);
        this.#orphansSettled ??= deferred();
      }
    } else if (!request.inFlight) {
      this.#delayed.delete(request);
      this.#readQueue = this.#readQueue.filter((one) => one !== request);
    }
  }

  /** Ends the wait of callers whose soft time-out has passed. */
  expireCallers(now: number): void {
    if (this.#softTimeoutMs === Infinity) return;
    const waiting = [
      ...this.#mutationQueue,
      ...this.#readQueue,
      ...this.#delayed,
      ...this.#readsInFlight,
      ...this.#unanswered.values(),
    ];
    for (const request of waiting) {
      if (!request.settled && request.giveUpAt <= now) this.abandon(request, new HoldfastError('ETIMEDOUT'));
    }
  }

  /** When next() may have something that it has not now; undefined: not by time alone. */
  nextWakeAt(): number | undefined {
    let wake: number | undefined;
    for (const request of this.#delayed) {
      if (wake === undefined || request.notBefore < wake) wake = request.notBefore;
    }
    return wake;
  }

  /** Rejects every caller: the mount is gone. */
  close(error: HoldfastError): void {
    this.disconnected();
    for (const request of [...this.#mutationQueue, ...this.#readQueue]) this.#reject(request, error);
    this.#mutationQueue = [];
    this.#readQueue = [];
    for (const mutation of this.#unanswered.values()) this.#settleOrphan(mutation);
    this.#unanswered.clear();
  }

  #common(now: number): Common {
    const giveUpAt = now + this.#softTimeoutMs;
    return { attempts: 0, notBefore: 0, giveUpAt, settled: false, inFlight: false };
  }

  #refuseFlood(waiting: number): void {
    if (waiting >= REQUESTS_WAITING_MAX) throw new HoldfastError('OVERLOADED', 'too many requests wait');
  }

  /** @returns false when the attempt is one of a former connection: it does not count any more */
  #landed(request: PendingRequest): boolean {
    if (!request.inFlight) return false;
    request.inFlight = false;
    if (request.kind === 'read') this.#readsInFlight.delete(request);
    else this.#mutationsInFlight--;
    return true;
  }

  #reject(request: PendingRequest, error: HoldfastError): void {
    if (request.settled) return;
    request.settled = true;
    request.result.reject(error);
  }

  #wakeDelayed(now: number): void {
    const mutations: PendingChange[] = [];
    for (const request of this.#delayed) {
      if (request.notBefore > now) continue;
      this.#delayed.delete(request);
      if (request.kind !== 'read') mutations.push(request);
      else this.#readQueue.unshift(request);
    }
    mutations.sort((a, b) => a.seq - b.seq);
    this.#mutationQueue.unshift(...mutations);
  }
}

function started<R extends PendingRequest>(request: R): R {
  assert(!request.inFlight, 'a request is in flight once');
  request.inFlight = true;
  request.attempts++;
  return request;
}
