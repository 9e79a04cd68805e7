import type { Timer } from '../../common/clock.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import { errorFromCode, HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { ClusterMap } from '../../proto/gen/cluster.js';
import {
  type CommandResult,
  type HelloReply,
  type Lease,
  LeaseMode,
  type MutationReply,
  type QuotaAmount,
  type QuotaRules,
  type ServerEnvelope,
} from '../../proto/gen/meta.js';
import { LeaseTable, type RecallOrder } from '../leases/lease-table.js';
import { type Interrupt, throwIfInterrupted } from '../wait.js';
import type {
  Change,
  LeaseEvents,
  MetaApi,
  MutationAnswer,
  MutationOp,
  ReadAnswer,
  ReadOp,
  ReadResult,
} from './api.js';
import type { ClientBody, MetaConnection } from './dialer.js';
import { bodyOf, helloOf, nameOf, randomUuid } from './envelopes.js';
import { type FoundLeader, LeaderFinder } from './leader-finder.js';
import { LockClient } from './locks.js';
import { CLOSED_BATCH_MAX, OpenFileCounts } from './open-files.js';
import { unpack } from './packed-page.js';
import { type PendingRequest, RequestLedger } from './request-ledger.js';
import type { SessionDeps, SessionOptions } from './session-options.js';

/** One attempt of a request; it is repeated after that. */
const ATTEMPT_DEADLINE_MS = 5_000;
const WATCHDOG_INTERVAL_MS = 250;
/** With requests in flight, a leader that is silent for so long is asked whether it lives. */
const SILENCE_BUSY_MS = 500;
/** .. and so often while idle: a new leader serves nobody before every client that may hold leases has found it. */
const SILENCE_IDLE_MS = 1_000;
const KEEP_ALIVE_DEADLINE_MS = 1_500;
/** Last closes wait so long for a request to leave with, which costs no message, and for the file to be opened again. */
const CLOSED_DELAY_MS = 50;

/**
 * The mount's session with the metadata service: finds the leader, numbers mutations, repeats what was not answered.
 * The leader is found by LeaderFinder, what is sent and repeated is RequestLedger's; here are the stream and the timers.
 */
export class MetaSession implements MetaApi {
  readonly #deps: SessionDeps;
  readonly #finder: LeaderFinder;
  readonly #ledger: RequestLedger;
  readonly #opens = new OpenFileCounts();
  readonly leases = new LeaseTable();
  readonly locks: LockClient;
  #leaseEvents: LeaseEvents | undefined;
  #quotaRules: QuotaRules | undefined;
  #leaseMs = 0;
  /** Requests sent so far, repetitions included; what keeps the session alive does not count. */
  readonly requests = { read: 0, mutation: 0, batch: 0 };
  readonly #mapListeners: ((map: ClusterMap) => void)[] = [];
  #connection: MetaConnection | undefined;
  #leader = '';
  #session = 0;
  #clientUuid: string;
  #clusterId: string;
  #lastHeardAt = 0;
  #keepAliveSent = false;
  #watchdog: Timer | undefined;
  #wake: Timer | undefined;
  #wakeAt = Infinity;
  #closedTimer: Timer | undefined;
  #started: Deferred<HelloReply> | undefined;
  #closed = false;

  constructor(options: SessionOptions, deps: SessionDeps) {
    this.#deps = deps;
    this.#finder = new LeaderFinder(options, deps, {
      hello: () => {
        const who = { session: this.#session, clientUuid: this.#clientUuid, clusterId: this.#clusterId };
        return helloOf(who, options, this.#opens, this.locks);
      },
      leases: () => this.leases.announce(),
      onFound: (leader) => this.#adopt(leader),
      onRefused: (address, hello, error) => this.#refused(address, hello, error),
      onPush: (connection, push) => this.#onPush(connection, push),
      // A probe's end shows as the failure of its Hello.
      onEnd: (connection, reason) => this.#lose(connection, reason, undefined),
    });
    this.#ledger = new RequestLedger(options.softTimeoutMs ?? Infinity);
    this.#clientUuid = randomUuid(deps.prng);
    this.#clusterId = options.clusterId;
    this.locks = new LockClient({
      clock: deps.clock,
      call: (body) => this.#callOnce(body),
      push: (body) => this.#connection?.push(body),
    });
  }

  /** The number that servers know this mount by; 0 before the first connection. */
  get id(): number {
    return this.#session;
  }

  get clusterId(): string {
    return this.#clusterId;
  }

  /** host:port of the leader that serves this session now; empty: none. */
  get leader(): string {
    return this.#connection ? this.#leader : '';
  }

  /** Called with the map of each Hello and with each push. */
  onMap(listener: (map: ClusterMap) => void): void {
    this.#mapListeners.push(listener);
  }

  /**
   * Connects for the first time.
   * @throws HoldfastError ETIMEDOUT with the reason of each address; VERSION or WRONG_CLUSTER at once
   */
  async start(timeoutMs: number): Promise<HelloReply> {
    const { clock } = this.#deps;
    const started = deferred<HelloReply>();
    this.#started = started;
    const timer = clock.after(timeoutMs, () => {
      started.reject(new HoldfastError('ETIMEDOUT', `no metaserver answered: ${this.#finder.tried}`));
    });
    this.#watchdog = clock.every(WATCHDOG_INTERVAL_MS, () => this.#watch(), { weak: true });
    this.#finder.begin();
    try {
      return await started.promise;
    } catch (error) {
      this.#shutDown('not connected');
      throw error;
    } finally {
      timer.cancel();
      this.#started = undefined;
    }
  }

  async read(op: ReadOp, signal?: Interrupt): Promise<ReadResult> {
    const { result, error } = await this.ask(op, signal);
    if (!result) throw error ?? new HoldfastError('PROTOCOL', 'an empty answer');
    return result;
  }

  async ask(op: ReadOp, signal?: Interrupt): Promise<ReadAnswer> {
    throwIfInterrupted(signal);
    this.#refuseClosed();
    if (op.$case === 'open' && op.value.write) this.#opens.write(op.value.ino);
    const request = this.#ledger.addRead(op, this.#deps.clock.now());
    this.#pump();
    return this.#await(request, request.result.promise, signal);
  }

  async mutate(op: MutationOp, signal?: Interrupt, spent?: QuotaAmount[]): Promise<MutationAnswer> {
    throwIfInterrupted(signal);
    this.#refuseClosed();
    const request = this.#ledger.addMutation(op, this.#deps.clock.now(), spent);
    this.#pump();
    return this.#await(request, request.result.promise, signal);
  }

  get orphansSettled(): Promise<void> | undefined {
    return this.#ledger.orphansSettled;
  }

  mutateBatch(changes: readonly Change[]): Promise<CommandResult[]> {
    this.#refuseClosed();
    const request = this.#ledger.addBatch(changes, this.#deps.clock.now());
    this.#pump();
    return request.result.promise;
  }

  listenToLeases(events: LeaseEvents): void {
    this.#leaseEvents = events;
    this.#learnQuotas(this.#quotaRules);
  }

  returnLeases(leases: readonly Lease[]): void {
    if (leases.length > 0)
      this.#connection?.push({ $case: 'leaseReturn', value: { leases: leases as Lease[] } });
  }

  announceOpen(inos: readonly number[]): void {
    const opened = this.#opens.openAmong(inos);
    if (opened.length > 0) this.#connection?.push({ $case: 'openFiles', value: { opened, closed: [] } });
  }

  retainOpen(ino: number): void {
    this.#opens.retain(ino);
  }

  releaseOpen(ino: number): void {
    if (!this.#opens.release(ino)) return;
    if (this.#opens.closedPending >= CLOSED_BATCH_MAX) this.#tellClosed();
    else
      this.#closedTimer ??= this.#deps.clock.after(CLOSED_DELAY_MS, () => this.#tellClosed(), { weak: true });
  }

  /**
   * Ends the session at the server, for at most `timeoutMs`, and all connections. Idempotent.
   * @param unfinished writes that were given up may still be on their way: others get what was leased behind them
   */
  async close(timeoutMs: number, unfinished = false): Promise<void> {
    if (this.#closed) return;
    if (this.#connection && this.#session !== 0) {
      const controller = new AbortController();
      const timer = this.#deps.clock.after(timeoutMs, () => controller.abort());
      try {
        await this.mutate({ $case: 'closeSession', value: { unfinished } }, controller.signal);
      } catch (error) {
        // The server expires the session by itself.
        this.#deps.log.warn({ error: toHoldfastError(error).message }, 'the session was not closed');
      } finally {
        timer.cancel();
      }
    }
    this.#shutDown('unmounted');
  }

  #refused(address: string, hello: ClientBody, error: HoldfastError): void {
    if (error.errorName === 'VERSION' || error.errorName === 'WRONG_CLUSTER') {
      this.#started?.reject(new HoldfastError(error.errorName, `${address}: ${error.message}`));
    }
    const session = hello.$case === 'hello' ? hello.value.session : 0;
    if (error.errorName === 'SESSION_EXPIRED' && session !== 0 && session === this.#session) this.#expire();
  }

  #adopt({ address, connection, hello, sentAt, pushes }: FoundLeader): void {
    const { clock, log } = this.#deps;
    this.#connection = connection;
    this.#leader = address;
    this.#session = hello.session;
    this.#clusterId = hello.clusterId;
    this.#lastHeardAt = clock.now();
    this.#keepAliveSent = false;
    this.#leaseMs = hello.leaseMs ?? 0;
    this.leases.setLeaseMs(this.#leaseMs);
    this.leases.answered(sentAt);
    log.info({ leader: address, session: hello.session, repeated: this.#ledger.pending }, 'connected');
    if (hello.map) for (const listener of this.#mapListeners) listener(hello.map);
    this.#learnQuotas(hello.quotas);
    for (const push of pushes) this.#onPush(connection, push);
    this.#started?.resolve(hello);
    this.#pump();
    this.#tellClosed();
  }

  /** The session is no more: a new one, under a new name. Open files go on by inode number. */
  #expire(): void {
    const { log, prng } = this.#deps;
    const unknown = this.#ledger.expired();
    log.error({ session: this.#session, unknown: unknown.map(nameOf) }, 'the session expired');
    this.#session = 0;
    this.#clientUuid = randomUuid(prng);
    this.locks.sessionLost();
    this.#leaseEvents?.onSessionLost(this.leases.lost());
  }

  #pump(): void {
    const { clock } = this.#deps;
    const connection = this.#connection;
    if (connection) {
      const now = clock.now();
      for (let request = this.#ledger.next(now); request; request = this.#ledger.next(now)) {
        void this.#send(connection, request);
        if (this.#connection !== connection) break;
      }
    }
    this.#schedule();
  }

  async #send(connection: MetaConnection, request: PendingRequest): Promise<void> {
    const sentAt = this.#deps.clock.now();
    this.requests[request.kind]++;
    this.#tellClosed();
    try {
      const reply = await connection.call(
        bodyOf(request, this.#session, this.#ledger.ackedBelow),
        ATTEMPT_DEADLINE_MS,
      );
      if (connection !== this.#connection) return;
      this.#heard(sentAt);
      this.#take(request, reply.body);
    } catch (error) {
      if (connection === this.#connection)
        this.#attemptFailed(connection, request, toHoldfastError(error), sentAt);
    }
    this.#pump();
  }

  /** One attempt, on the present connection. @throws HoldfastError UNAVAILABLE without one; as the call */
  async #callOnce(body: ClientBody): Promise<ServerEnvelope['body']> {
    const connection = this.#connection;
    this.#refuseClosed();
    if (!connection) throw new HoldfastError('UNAVAILABLE', 'not connected');
    try {
      return (await connection.call(body, ATTEMPT_DEADLINE_MS)).body;
    } catch (cause) {
      const error = toHoldfastError(cause);
      if (error.errorName === 'NOT_LEADER') this.#lose(connection, 'no longer the leader', error.leaderHint);
      throw error;
    }
  }

  #take(request: PendingRequest, body: ServerEnvelope['body']): void {
    if (request.kind === 'read' && body?.$case === 'read' && body.value.result) {
      const { result } = body.value;
      this.#grant(body.value.leases);
      if (result.$case === 'dir') this.#grant(unpack(result.value));
      this.#ledger.answeredRead(request, { result, error: undefined, asOf: this.leases.stamp() });
    } else if (request.kind === 'mutation' && body?.$case === 'mutation') {
      this.#grant(body.value.leases);
      const answer = Object.assign(body.value, { asOf: this.leases.stamp() });
      if (!this.#ledger.answeredMutation(request, answer)) this.#settleOpen(request.op, answer);
    } else if (request.kind === 'batch' && body?.$case === 'batch') {
      for (const [at, { mutation }] of body.value.results.entries()) {
        this.#grant(mutation?.leases ?? []);
        const change = request.changes[at];
        if (change && mutation) this.#settleOpen(change.op, mutation);
      }
      this.#ledger.answeredBatch(request, body.value.results);
    } else throw new HoldfastError('PROTOCOL', `unexpected answer ${body?.$case}`);
  }

  /** @param sentAt of the request that was answered */
  #heard(sentAt: number): void {
    this.#lastHeardAt = this.#deps.clock.now();
    this.leases.answered(sentAt);
  }

  #grant(leases: readonly Lease[]): void {
    for (const lease of leases) this.leases.granted(lease);
  }

  #attemptFailed(
    connection: MetaConnection,
    request: PendingRequest,
    error: HoldfastError,
    sentAt: number,
  ): void {
    const reply = error.reply as ServerEnvelope | undefined;
    if (reply) this.#heard(sentAt);
    if (request.kind === 'read' && request.op.$case === 'lookup' && error.errorName === 'ENOENT') {
      if (reply?.body?.$case === 'read') this.#grant(reply.body.value.leases);
      this.#ledger.answeredRead(request, { result: undefined, error, asOf: this.leases.stamp() });
    } else if (error.errorName === 'NOT_LEADER') {
      this.#lose(connection, 'no longer the leader', error.leaderHint);
    } else if (error.errorName === 'SESSION_EXPIRED') {
      this.#expire();
      this.#lose(connection, 'session expired', this.#leader);
    } else {
      this.#ledger.failed(request, error, this.#deps.clock.now());
    }
  }

  /**
   * A MakeNode has registered an open at the server. When nobody here has the file open any more (its caller went away, or it was
   * closed before the batch was sent), the last close has to be told again: a file that counts as open is not reclaimed.
   */
  #settleOpen(op: MutationOp, { result }: MutationReply): void {
    if (op.$case !== 'makeNode' || !op.value.open || result?.$case !== 'attr') return;
    this.retainOpen(result.value.ino);
    this.releaseOpen(result.value.ino);
  }

  #learnQuotas(rules: QuotaRules | undefined): void {
    if (!rules) return;
    this.#quotaRules = rules;
    this.#leaseEvents?.onQuotaRules?.(rules);
  }

  #onPush(connection: MetaConnection, push: ServerEnvelope): void {
    if (connection !== this.#connection) return;
    this.#lastHeardAt = this.#deps.clock.now();
    if (push.error !== 0) {
      const error = errorFromCode(push.error, push.errorText);
      this.#lose(connection, error.message, push.leaderHint);
    } else if (push.body?.$case === 'map') {
      for (const listener of this.#mapListeners) listener(push.body.value);
    } else if (push.body?.$case === 'recall') {
      const orders = push.body.value.leases.map((lease) => this.leases.recalled(lease));
      if (this.#leaseEvents) this.#leaseEvents.onRecall(orders);
      else this.#returnAtOnce(orders);
    } else if (push.body?.$case === 'quotaRules') {
      this.#learnQuotas(push.body.value);
    } else if (push.body?.$case === 'quotaRecall') {
      this.#leaseEvents?.onQuotaRecall?.(push.body.value.amounts);
    } else if (push.body?.$case === 'sessionExpired') {
      this.#expire();
      this.#lose(connection, 'session expired', undefined);
    }
  }

  /** Nobody keeps anything under leases. */
  #returnAtOnce(orders: readonly RecallOrder[]): void {
    for (const order of orders) {
      const { ino, seq } = order;
      if (this.leases.returned(order)) this.returnLeases([{ ino, mode: LeaseMode.LEASE_NONE, seq }]);
    }
  }

  #lose(connection: MetaConnection, reason: string, hint: string | undefined): void {
    const { log } = this.#deps;
    if (connection !== this.#connection) return;
    this.#connection = undefined;
    this.#ledger.disconnected();
    connection.close(reason);
    if (this.#closed) return;
    log.warn(
      { leader: this.#leader, reason, pending: this.#ledger.pending },
      'connection to the leader lost',
    );
    this.#finder.begin(hint);
  }

  /** Finds a leader that no longer answers, keeps the session alive, ends waits with a soft time-out. */
  #watch(): void {
    const now = this.#deps.clock.now();
    this.#ledger.expireCallers(now);
    const connection = this.#connection;
    if (!connection || this.#keepAliveSent) return;
    const silence = this.#ledger.inFlight > 0 ? SILENCE_BUSY_MS : SILENCE_IDLE_MS;
    // Pushes tell that the leader lives, but only an answer prolongs the leases.
    const leasesAge = this.#leaseMs > 0 && this.leases.believedUntil - now < this.#leaseMs / 2;
    if (now - this.#lastHeardAt < silence && !leasesAge) return;
    this.#keepAliveSent = true;
    connection.call({ $case: 'keepAlive', value: {} }, KEEP_ALIVE_DEADLINE_MS).then(
      () => {
        if (connection !== this.#connection) return;
        this.#keepAliveSent = false;
        this.#heard(now);
      },
      (error: unknown) => {
        this.#lose(connection, `no answer to keep-alive: ${toHoldfastError(error).message}`, undefined);
      },
    );
  }

  #schedule(): void {
    const { clock } = this.#deps;
    const now = clock.now();
    const at = (this.#connection && this.#ledger.nextWakeAt()) ?? Infinity;
    if (at >= this.#wakeAt || this.#closed) return;
    this.#wake?.cancel();
    this.#wakeAt = at;
    this.#wake = clock.after(Math.max(0, at - now), () => {
      this.#wakeAt = Infinity;
      this.#pump();
    });
  }

  #tellClosed(): void {
    this.#closedTimer?.cancel();
    this.#closedTimer = undefined;
    while (this.#connection && this.#opens.closedPending > 0) {
      this.#connection.push({ $case: 'openFiles', value: { opened: [], closed: this.#opens.takeClosed() } });
    }
  }

  #await<T>(request: PendingRequest, promise: Promise<T>, signal: Interrupt | undefined): Promise<T> {
    if (!signal) return promise;
    const onAbort = (): void => this.#ledger.abandon(request, new HoldfastError('EINTR'));
    signal.addEventListener('abort', onAbort, { once: true });
    return promise.finally(() => signal.removeEventListener('abort', onAbort));
  }

  #refuseClosed(): void {
    if (this.#closed) throw new HoldfastError('EIO', 'the mount has ended');
  }

  #shutDown(reason: string): void {
    this.#closed = true;
    this.#watchdog?.cancel();
    this.#wake?.cancel();
    this.#closedTimer?.cancel();
    const connection = this.#connection;
    this.#connection = undefined;
    this.#ledger.close(new HoldfastError('EIO', reason));
    connection?.close(reason);
    this.#finder.close(reason);
  }
}
