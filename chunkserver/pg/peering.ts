import { FRAME_FLAG_END, type FrameFields, FrameType } from '../../proto/frame-header.js';
import { compareVersions, type Version } from '../store/chunk-store.js';
import type { PgContext } from './context.js';
import { Pull } from './recovery.js';
import { type Ask, type AskReply, PEERING_CONNECT_TIMEOUT_MS, SEQ_JUMP, sameVersion } from './types.js';

/** A question that was refused (the replica's map is older) is asked again after so long. */
const ASK_RETRY_MS = 100;

interface PeerState {
  server: number;
  phase: 'connecting' | 'asked' | 'known' | 'copying' | 'done';
  last: Version;
  clean: boolean;
  askAt: number;
  ask: Ask | undefined;
}

/**
 * How a new primary makes all in-sync replicas identical before it serves: it asks each for its last operation, copies
 * from the one that is ahead, and has those that differ copy from itself. Every acknowledged operation is on every
 * in-sync replica, so the one that is ahead lacks nothing; what only some of them have was never acknowledged.
 * While the map drops a replica the peering begins anew (the core makes another one).
 */
export class Peering {
  readonly #ctx: PgContext;
  readonly #peers: PeerState[];
  readonly #jump: boolean;
  readonly #done: (now: number) => void;
  readonly #startedAt: number;
  #pull: Pull | undefined;
  #phase: 'infos' | 'pulling' | 'resyncing' | 'ended' = 'infos';

  /** @param jump an earlier process may have given versions in this interval that nobody here knows of */
  constructor(ctx: PgContext, jump: boolean, now: number, done: (now: number) => void) {
    this.#ctx = ctx;
    this.#jump = jump;
    this.#done = done;
    this.#startedAt = now;
    this.#peers = ctx.inSyncPeers.map((server) => ({
      server,
      phase: 'connecting',
      last: { epoch: 0, seq: 0 },
      clean: false,
      askAt: 0,
      ask: undefined,
    }));
  }

  get pull(): Pull | undefined {
    return this.#pull;
  }

  /** Whether in-sync replicas may copy from here: this server's own copy is settled. */
  get serves(): boolean {
    return this.#phase === 'resyncing';
  }

  start(now: number): void {
    this.tick(now);
    this.#decide(now);
  }

  /** Nothing that was asked is heard any more. */
  cancel(): void {
    this.#phase = 'ended';
    this.#pull?.cancel();
    for (const peer of this.#peers) if (peer.ask) peer.ask.cancelled = true;
  }

  linkUp(now: number): void {
    this.tick(now);
  }

  /**
   * A replica that has answered in this interval serves nothing as the primary of before. One that has not may still do
   * so under its lease: it is asked again, and not reported before the lease is over.
   */
  linkDown(server: number, reason: string, now: number): void {
    const peer = this.#peers.find((candidate) => candidate.server === server);
    if (!peer || peer.phase === 'connecting') return;
    if (peer.phase !== 'asked') this.#ctx.lose(server, reason, now);
    else if (peer.ask) {
      peer.ask.cancelled = true;
      peer.phase = 'connecting';
    }
  }

  tick(now: number): void {
    this.#pull?.tick(now);
    if (this.#phase !== 'infos') return;
    for (const peer of this.#peers) {
      if (peer.phase !== 'connecting') continue;
      if (this.#ctx.env.linked(peer.server, 'out')) {
        if (now >= peer.askAt) this.#askInfo(peer);
      }
      if (now - this.#startedAt >= PEERING_CONNECT_TIMEOUT_MS)
        this.#ctx.lose(peer.server, 'cannot be reached', now);
    }
  }

  #ask(peer: PeerState, fields: FrameFields & { type: FrameType }, done: Ask['done']): void {
    const ask: Ask = {
      to: peer.server,
      side: 'out',
      fields: { ...fields, pg: this.#ctx.id, epoch: this.#ctx.map?.epoch ?? 0 },
      pace: undefined,
      cancelled: false,
      done,
    };
    peer.ask = ask;
    this.#ctx.emit({ kind: 'ask', ask });
  }

  #askInfo(peer: PeerState): void {
    peer.phase = 'asked';
    this.#ask(peer, { type: FrameType.PG_INFO }, (error, reply, now) => {
      if (error || !reply) {
        peer.phase = 'connecting';
        peer.askAt = now + ASK_RETRY_MS;
        return;
      }
      this.#takeInfo(peer, reply, now);
    });
  }

  #takeInfo(peer: PeerState, { header }: AskReply, now: number): void {
    // A map that shows how this replica was started again is on its way.
    if (header.truncateSeq > (this.#ctx.map?.epoch ?? 0)) {
      peer.phase = 'connecting';
      peer.askAt = now + ASK_RETRY_MS;
      return;
    }
    peer.phase = 'known';
    this.#ctx.takeBoundary({ since: header.length, boundary: { epoch: header.chunk, seq: header.ino } });
    peer.last = { epoch: header.versionEpoch, seq: header.versionSeq };
    peer.clean = (header.flags & FRAME_FLAG_END) !== 0;
    this.#decide(now);
  }

  /** All are known: copy from the one that is ahead; clean ones, and this server itself, come first among equals. */
  #decide(now: number): void {
    if (this.#phase !== 'infos' || this.#peers.some((peer) => peer.phase !== 'known')) return;
    const { last, clean } = this.#ctx;
    let best: PeerState | undefined;
    let bestLast = last;
    let bestClean = clean;
    for (const peer of this.#peers) {
      const order = compareVersions(peer.last, bestLast);
      if (order < 0 || (order === 0 && (bestClean || !peer.clean))) continue;
      best = peer;
      bestLast = peer.last;
      bestClean = peer.clean;
    }
    if (!best) {
      this.#resync(last, clean, now);
      return;
    }
    this.#phase = 'pulling';
    const source = best;
    this.#pull = new Pull(this.#ctx, 'peering', source.server, source.last, () => {
      this.#pull = undefined;
      this.#resync(source.last, source.clean, now);
    });
    this.#pull.start();
  }

  /** @param trusted those that are clean and at `last` hold the same as this server */
  #resync(last: Version, trusted: boolean, now: number): void {
    this.#phase = 'resyncing';
    const { map } = this.#ctx;
    const agreed = this.#jump ? { epoch: map?.epoch ?? 0, seq: last.seq + SEQ_JUMP } : last;
    this.#ctx.learnBoundary(last);
    // Nobody has more than this copy now.
    this.#ctx.trustAll();
    this.#ctx.setState(agreed, true);
    for (const peer of this.#peers) {
      const identical = trusted && peer.clean && sameVersion(peer.last, last);
      if (identical && !this.#jump) {
        peer.phase = 'done';
        continue;
      }
      peer.phase = 'copying';
      this.#askResync(peer, agreed, identical);
    }
    this.#finish(now);
  }

  #askResync(peer: PeerState, agreed: Version, identical: boolean): void {
    const fields = {
      type: FrameType.RESYNC,
      versionEpoch: agreed.epoch,
      versionSeq: agreed.seq,
      flags: identical ? FRAME_FLAG_END : 0,
    };
    this.#ask(peer, fields, (error, _reply, now) => {
      if (error) {
        this.#ctx.lose(peer.server, error.message, now);
        return;
      }
      peer.phase = 'done';
      this.#finish(now);
    });
  }

  #finish(now: number): void {
    if (this.#peers.some((peer) => peer.phase !== 'done')) return;
    this.#phase = 'ended';
    this.#done(now);
  }
}
