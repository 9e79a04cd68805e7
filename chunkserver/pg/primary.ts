import type { ErrorName, HoldfastError } from '../../proto/errors.js';
import type { Version } from '../store/chunk-store.js';
import type { PgContext } from './context.js';
import { type Held, HeldAnswers } from './held-answers.js';
import {
  type Op,
  type OpOwner,
  opKind,
  PENDING_OPS_MAX,
  type PeerCall,
  type PgRequest,
  REPLICA_OP_TIMEOUT_MS,
  REPORT_INTERVAL_MS,
  SPACE_MARGIN_BYTES,
  type SyncBarrier,
} from './types.js';

/** An operation on its way to the replicas. */
interface PendingOp extends Op {
  /** Undefined: answered already (its deadline passed). */
  request: PgRequest | undefined;
  readonly issuedAt: number;
  local: boolean;
  allocatedDelta: number;
  readonly acked: Set<number>;
  /** On every in-sync replica: whatever becomes of this server, it is not lost. */
  settled: boolean;
  waiters: Held[] | undefined;
}

interface Barrier extends SyncBarrier {
  readonly request: PgRequest | undefined;
  /** Removals that were issued before it, and so are on disk behind it; 0: it is not of all members. */
  readonly removals: number;
  /** Of a replica that caught up: its disk must hold everything before it counts as in-sync. */
  readonly caughtUp: number;
}

/** A recovering replica that has everything; `synced` once its disk has. */
interface CaughtUp {
  synced: boolean;
  reportedEpoch: number;
  reportedAt: number;
}

/**
 * The role of the primary while the group is active: it orders the operations, forwards each to all replicas at once,
 * and answers when its own store and every in-sync replica have it.
 *
 * Invariants: a version is given to one operation only. An answer to a write means that every member has it; members are
 * the map's in-sync replicas and those that caught up.
 */
export class Primary implements OpOwner {
  readonly #ctx: PgContext;
  /** Answers cannot be given now, but soon: the request is put aside. */
  readonly #park: (request: PgRequest, error: ErrorName) => void;
  readonly #pending = new Map<number, PendingOp>();
  readonly #held: HeldAnswers;
  readonly #barriers = new Set<Barrier>();
  /** Replicas known to hold everything: in-sync when this server became active, or caught up since. */
  readonly #members = new Set<number>();
  readonly #caughtUp = new Map<number, CaughtUp>();
  /** Recovering replicas that get every operation from this number on. */
  readonly #forwarding = new Map<number, number>();
  /** Removals (truncates, deletes) that may not be on every disk: those issued without a sync, and all of earlier intervals. */
  #removals = 1;
  /** So many of them are on the disk of every member. */
  #removalsSynced = 0;

  constructor(ctx: PgContext, park: (request: PgRequest, error: ErrorName) => void) {
    this.#ctx = ctx;
    this.#park = park;
    this.#held = new HeldAnswers(ctx);
  }

  get busy(): boolean {
    return this.#pending.size > 0 || this.#barriers.size > 0;
  }

  /** Peering is done: all in-sync replicas are identical. */
  activate(now: number): void {
    this.#removals++;
    this.#members.clear();
    for (const server of this.#ctx.inSyncPeers) this.#members.add(server);
    this.mapChanged(now);
  }

  /** This server is not the primary any more, or peers anew: what is not answered may or may not have happened. */
  stop(): void {
    const requests = new Set<PgRequest>();
    for (const op of this.#pending.values()) if (op.request) requests.add(op.request);
    for (const request of this.#held.requests) requests.add(request);
    for (const barrier of this.#barriers) if (barrier.request) requests.add(barrier.request);
    this.#pending.clear();
    this.#held.clear();
    this.#barriers.clear();
    this.#members.clear();
    this.#caughtUp.clear();
    this.#forwarding.clear();
    for (const request of requests) this.#answer(request, 'NOT_PRIMARY', 'the group has moved on');
  }

  /** The map changed within this server's interval. */
  mapChanged(now: number): void {
    const { inSyncPeers, recoveringPeers, env, last } = this.#ctx;
    for (const server of [...this.#members]) {
      if (inSyncPeers.includes(server) || this.#caughtUp.has(server)) continue;
      this.#members.delete(server);
    }
    for (const server of [...this.#caughtUp.keys()]) {
      if (inSyncPeers.includes(server)) this.#caughtUp.delete(server);
      else if (!recoveringPeers.includes(server)) this.#forget(server);
    }
    for (const server of [...this.#forwarding.keys()]) {
      if (!recoveringPeers.includes(server)) this.#forwarding.delete(server);
    }
    for (const server of recoveringPeers) {
      if (env.linked(server, 'out') && !this.#forwarding.has(server))
        this.#forwarding.set(server, last.seq + 1);
    }
    for (const server of inSyncPeers) {
      if (!this.#members.has(server)) this.#ctx.lose(server, 'in-sync without having caught up', now);
      else if (!env.linked(server, 'out')) this.#ctx.lose(server, 'not connected', now);
    }
    this.evaluate(now);
  }

  linkUp(server: number): void {
    if (this.#ctx.recoveringPeers.includes(server)) this.#forwarding.set(server, this.#ctx.last.seq + 1);
  }

  linkDown(server: number, reason: string, now: number): void {
    this.#forget(server);
    this.#ctx.lose(server, reason, now);
    this.evaluate(now);
  }

  /** The replica begins to copy anew. */
  beginsAnew(server: number): void {
    if (this.#caughtUp.has(server)) this.#forget(server);
    if (!this.#forwarding.has(server) && this.#ctx.env.linked(server, 'out'))
      this.#forwarding.set(server, this.#ctx.last.seq + 1);
  }

  #forget(server: number): void {
    if (this.#caughtUp.delete(server)) this.#members.delete(server);
    this.#forwarding.delete(server);
    for (const barrier of this.#barriers) {
      if (barrier.caughtUp === server) this.#barriers.delete(barrier);
      else if (!this.#members.has(server)) barrier.waits.delete(server);
    }
  }

  /** @returns false: it has to begin anew, an operation was not forwarded to it */
  takeCaughtUp(call: PeerCall): boolean {
    const server = call.from;
    const since = this.#forwarding.get(server);
    if (since === undefined || call.header.versionSeq < since - 1) return false;
    if (this.#caughtUp.has(server)) return true;
    this.#caughtUp.set(server, { synced: false, reportedEpoch: 0, reportedAt: 0 });
    this.#members.add(server);
    // What it copied holds operations that were never forwarded to it, or whose answer was lost.
    for (const op of this.#pending.values())
      if (op.version.seq <= call.header.versionSeq) op.acked.add(server);
    const waits = new Set([server]);
    const barrier: Barrier = { request: undefined, removals: 0, waits, caughtUp: server };
    this.#barriers.add(barrier);
    this.#ctx.emit({ kind: 'sync', barrier, servers: [server] });
    return true;
  }

  /** A request of this interval, under a lease. */
  request(request: PgRequest, now: number): void {
    switch (request.kind) {
      case 'read':
        this.#read(request);
        break;
      case 'sync':
        this.#sync(request);
        break;
      case 'truncate':
        this.#truncate(request, now);
        break;
      case 'delete':
        this.#delete(request, now);
        break;
      default:
        this.#change(request, now);
    }
  }

  #read(request: PgRequest): void {
    if (this.#needsTruncate(request)) return;
    const held = this.#held.hold(request, false);
    this.#ctx.emit({ kind: 'read', request });
    this.#waitFor(
      held,
      (op) => op.ino === request.ino && (op.kind !== 'write' || op.chunk === request.chunk),
    );
  }

  readDone(
    request: PgRequest,
    error: HoldfastError | undefined,
    version: Version | undefined,
    now: number,
  ): void {
    this.#held.readDone(request, error, version, now);
  }

  repaired(request: PgRequest, error: HoldfastError | undefined): void {
    this.#held.repaired(request, error);
  }

  #truncate(request: PgRequest, now: number): void {
    const known = this.#ctx.env.truncateSeq(this.#ctx.id, request.ino);
    if (request.truncateSeq > known) {
      this.#change(request, now);
      return;
    }
    // A repetition. The first one may have asked for less: a power cut must not bring back what was cut.
    if (request.sync) {
      this.#sync(request);
      return;
    }
    // Done when the first one is.
    const held = this.#held.hold(request, true);
    this.#waitFor(held, (op) => op.ino === request.ino && op.kind !== 'write');
    this.#held.release(held, now);
  }

  /** Most files lie in few groups: where nothing is, only what removed it has to be durable. */
  #delete(request: PgRequest, now: number): void {
    if (this.#holds(request.ino)) this.#change(request, now);
    else if (this.#removalsSynced < this.#removals || !this.#enough()) this.#sync(request);
    else this.#answer(request, undefined);
  }

  #sync(request: PgRequest): void {
    if (this.#tooFew(request)) return;
    const servers = [this.#ctx.env.self, ...this.#members];
    const barrier: Barrier = { request, removals: this.#removals, waits: new Set(servers), caughtUp: 0 };
    this.#barriers.add(barrier);
    // A lost one is waited for until the map drops it: a server that is reached again may have another disk by now.
    this.#ctx.emit({ kind: 'sync', barrier, servers: servers.filter((server) => !this.#ctx.isLost(server)) });
  }

  #holds(ino: number): boolean {
    if (this.#ctx.env.holds(this.#ctx.id, ino)) return true;
    for (const op of this.#pending.values()) if (op.ino === ino) return true;
    return false;
  }

  /** A write, truncate or delete gets the next version and goes to everyone. */
  #change(request: PgRequest, now: number): void {
    const ctx = this.#ctx;
    if (request.kind === 'write' && (this.#needsTruncate(request) || this.#wasCut(request))) return;
    if (this.#tooFew(request)) return;
    if (this.#pending.size >= PENDING_OPS_MAX) {
      this.#answer(request, 'OVERLOADED', 'too many operations of this group');
      return;
    }
    if (ctx.env.congested(ctx.env.self)) {
      this.#answer(request, 'OVERLOADED', 'the disk is behind');
      return;
    }
    for (const server of ctx.inSyncPeers) {
      if (!ctx.env.congested(server)) continue;
      this.#answer(request, 'OVERLOADED', `the link to server ${server} is behind`);
      return;
    }
    const takes = request.kind === 'write' ? this.#takes(request) : 0;
    if (!this.#hasRoom(takes, request.payload.length)) {
      this.#answer(request, 'ENOSPC');
      return;
    }
    const version = { epoch: ctx.map?.epoch ?? 0, seq: ctx.last.seq + 1 };
    ctx.last = version;
    const op: PendingOp = {
      kind: opKind(request.kind),
      version,
      ino: request.ino,
      chunk: request.chunk,
      offset: request.offset,
      payload: request.payload,
      hole: request.kind === 'write' ? request.length : 0,
      reserves: request.reserves,
      takes,
      payloadCrc: request.payloadCrc,
      blockCrcs: request.blockCrcs,
      runs: request.runs,
      truncateSeq: request.kind === 'truncate' ? request.truncateSeq : 0,
      chunkSize: request.chunkSize,
      sync: request.sync,
      owner: this,
      request,
      issuedAt: now,
      local: false,
      allocatedDelta: 0,
      acked: new Set(),
      settled: false,
      waiters: undefined,
    };
    this.#pending.set(version.seq, op);
    if (op.kind !== 'write' && !op.sync) this.#removals++;
    ctx.emit({ kind: 'apply', op });
    const to = ctx.inSyncPeers.filter((server) => this.#members.has(server) && !ctx.isLost(server));
    to.push(...this.#forwarding.keys());
    if (to.length > 0) ctx.emit({ kind: 'replicate', op, to });
  }

  applied(op: Op, error: HoldfastError | undefined, allocatedDelta: number, now: number): void {
    const pending = this.#pending.get(op.version.seq);
    if (pending !== op || error) return;
    pending.local = true;
    pending.allocatedDelta = allocatedDelta;
    this.#settle(pending, now);
  }

  acked(op: Op, server: number, error: HoldfastError | undefined, now: number): void {
    const pending = this.#pending.get(op.version.seq);
    if (pending !== op) return;
    if (!error) {
      pending.acked.add(server);
      this.#settle(pending, now);
      return;
    }
    // Each operation in flight tells of one failure.
    if (this.#forwarding.has(server) || (this.#members.has(server) && !this.#ctx.isLost(server))) {
      this.linkDown(server, error.message, now);
    }
  }

  synced(barrier: SyncBarrier, server: number, error: HoldfastError | undefined, now: number): void {
    const known = barrier as Barrier;
    if (!this.#barriers.has(known)) return;
    if (error) {
      this.linkDown(server, error.message, now);
      return;
    }
    if (this.#ctx.isLost(server)) return;
    known.waits.delete(server);
    this.#passBarrier(known, now);
  }

  /** Looks at everything again: the map, the lease or the members changed. */
  evaluate(now: number): void {
    for (const op of [...this.#pending.values()]) this.#settle(op, now);
    for (const barrier of [...this.#barriers]) this.#passBarrier(barrier, now);
    for (const [server, state] of this.#caughtUp) this.#report(server, state, now);
  }

  tick(now: number): void {
    for (const op of [...this.#pending.values()]) {
      if (!op.settled && now - op.issuedAt > REPLICA_OP_TIMEOUT_MS) {
        for (const server of this.#members) {
          if (!op.acked.has(server)) this.linkDown(server, 'an operation is not answered', now);
        }
      }
      if (op.request && op.request.deadline <= now) {
        this.#answer(op.request, 'DEADLINE_EXCEEDED');
        op.request = undefined;
        if (op.settled) this.#settle(op, now);
      }
    }
    this.#held.expire(now);
    for (const barrier of [...this.#barriers]) {
      if (!barrier.request || barrier.request.deadline > now) continue;
      this.#barriers.delete(barrier);
      this.#answer(barrier.request, 'DEADLINE_EXCEEDED');
    }
    for (const [server, state] of this.#caughtUp) this.#report(server, state, now);
  }

  #settle(op: PendingOp, now: number): void {
    if (!op.settled) {
      if (!op.local) return;
      for (const server of this.#ctx.inSyncPeers) if (!op.acked.has(server)) return;
      for (const server of this.#members) if (!op.acked.has(server)) return;
      op.settled = true;
      for (const held of op.waiters ?? []) this.#held.settled(held, now);
      op.waiters = undefined;
    }
    if (op.request) {
      if (!this.#enough() || !this.#ctx.hasLease(now)) return;
      const { request, version } = op;
      this.#answer(request, undefined, undefined, op.allocatedDelta, version);
    }
    this.#pending.delete(op.version.seq);
  }

  #passBarrier(barrier: Barrier, now: number): void {
    if (barrier.waits.size > 0) {
      const needed = [this.#ctx.env.self, ...this.#members, ...this.#ctx.inSyncPeers, barrier.caughtUp];
      for (const server of barrier.waits) if (!needed.includes(server)) barrier.waits.delete(server);
      if (barrier.waits.size > 0) return;
    }
    this.#removalsSynced = Math.max(this.#removalsSynced, barrier.removals);
    const state = this.#caughtUp.get(barrier.caughtUp);
    if (state) {
      state.synced = true;
      this.#report(barrier.caughtUp, state, now);
    }
    if (barrier.request) {
      if (!this.#enough() || !this.#ctx.hasLease(now)) return;
      const lineage = barrier.request.kind === 'sync' ? this.#ctx.lineage : undefined;
      this.#ctx.emit({ kind: 'answer', request: barrier.request, error: undefined, lineage });
    }
    this.#barriers.delete(barrier);
  }

  /** Asks the metaserver to make it in-sync, until the map shows it. */
  #report(server: number, state: CaughtUp, now: number): void {
    const epoch = this.#ctx.map?.epoch ?? 0;
    if (!state.synced || (state.reportedEpoch === epoch && now - state.reportedAt < REPORT_INTERVAL_MS))
      return;
    state.reportedEpoch = epoch;
    state.reportedAt = now;
    this.#ctx.emit({ kind: 'reportCaughtUp', server, epoch });
  }

  #waitFor(held: Held, touches: (op: PendingOp) => boolean): void {
    for (const op of this.#pending.values()) {
      if (op.settled || !touches(op)) continue;
      held.waits++;
      op.waiters ??= [];
      op.waiters.push(held);
    }
  }

  #needsTruncate(request: PgRequest): boolean {
    if (request.truncateSeq === 0) return false;
    const truncateSeq = this.#ctx.env.truncateSeq(this.#ctx.id, request.ino);
    if (request.truncateSeq <= truncateSeq) return false;
    this.#ctx.emit({ kind: 'answer', request, error: 'NEED_TRUNCATE', truncateSeq });
    return true;
  }

  /**
   * Bytes that were sent before a truncate which is in the order already could stay behind the end, and so could reserved
   * space. A hole cannot.
   * @returns whether the write was refused
   */
  #wasCut(request: PgRequest): boolean {
    const known = this.#ctx.env.truncateSeq(this.#ctx.id, request.ino);
    if (request.truncateSeq >= known || isHole(request)) return false;
    this.#answer(request, 'CUT');
    return true;
  }

  #enough(): boolean {
    return this.#ctx.copies >= this.#ctx.env.minInSync();
  }

  #tooFew(request: PgRequest): boolean {
    if (this.#enough()) return false;
    this.#park(request, 'NOT_ENOUGH_REPLICAS');
    return true;
  }

  /** Room that a write needs and that no earlier one was promised. A promise takes as much as the bytes that it is for. */
  #takes(request: PgRequest): number {
    if (isHole(request)) return 0;
    const { payload, reserves, runs, offset, length } = request;
    const ranges = runs ?? [{ start: offset, end: offset + (payload.length || length) }];
    const { stored, reserved } = this.#ctx.env.coverage(this.#ctx.id, request, ranges);
    const bytes = ranges.reduce((sum, { start, end }) => sum + end - start, 0);
    return bytes - reserved - (reserves ? stored : 0);
  }

  /** Whether all disks have it. What was promised is so on every replica, and this is all that keeps others from it. */
  #hasRoom(takes: number, payloadBytes: number): boolean {
    const { env, inSyncPeers } = this.#ctx;
    const has = (server: number): boolean =>
      (takes === 0 || env.roomBytes(server) >= takes + SPACE_MARGIN_BYTES) &&
      (payloadBytes === 0 || env.promisedRoomBytes(server) >= payloadBytes);
    return has(env.self) && inSyncPeers.every(has);
  }

  #answer(
    request: PgRequest,
    error: ErrorName | undefined,
    detail?: string,
    aux?: number,
    version?: Version,
  ): void {
    this.#ctx.emit({ kind: 'answer', request, error, detail, aux, version });
  }
}

function isHole({ payload, reserves }: PgRequest): boolean {
  return payload.length === 0 && !reserves;
}
