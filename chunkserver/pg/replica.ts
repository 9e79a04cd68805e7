import type { ErrorName, HoldfastError } from '../../proto/errors.js';
import { FRAME_FLAG_END, FRAME_FLAG_SYNC, type FrameFields, FrameType } from '../../proto/frame-header.js';
import { ReplicaState } from '../../proto/gen/cluster.js';
import type { PgContext } from './context.js';
import { Pull } from './recovery.js';
import type { Op, OpKind, OpOwner, PeerCall } from './types.js';

/** A forwarded operation, with the call to answer. */
interface ReplicaOp extends Op {
  readonly call: PeerCall;
}

/**
 * The role of a server that is not the group's primary: it takes the operations of the primary that its map names, each
 * the next of the order, answers what a new primary asks, and copies from the primary what it lacks.
 */
export class Replica implements OpOwner {
  readonly #ctx: PgContext;
  #pull: Pull | undefined;
  /** A RESYNC that the pull works for. */
  #resync: PeerCall | undefined;
  /** An operation is missing here: nothing is taken until the primary peers, or the map says to recover. */
  #behind = false;

  constructor(ctx: PgContext) {
    this.#ctx = ctx;
  }

  get pull(): Pull | undefined {
    return this.#pull;
  }

  /** The map names another primary or state, or for the first time one. */
  mapChanged(newInterval: boolean): void {
    const state = this.#ctx.selfState;
    if (state === ReplicaState.REPLICA_RECOVERING) {
      // A copy for RESYNC takes no operations meanwhile: it is no recovery.
      const recovers = this.#pull?.source === this.#ctx.primary && !this.#resync;
      if (newInterval || !recovers) this.#recover();
      else this.#pull?.announceAgain();
      return;
    }
    if (state === ReplicaState.REPLICA_IN_SYNC && this.#pull && !this.#resync) {
      this.#becomeInSync();
      return;
    }
    if (newInterval || state !== ReplicaState.REPLICA_IN_SYNC) this.#stopPull();
  }

  /** The primary vouches that this copy is complete; one that was begun anew meanwhile is not. */
  #becomeInSync(): void {
    const complete = this.#pull?.announced === true;
    this.#stopPull();
    this.#behind = !complete;
    if (complete) this.#ctx.setState(this.#ctx.last, true);
  }

  /** This server leads the group now, or left it. */
  stop(): void {
    if (this.#ctx.selfState === ReplicaState.REPLICA_IN_SYNC && this.#pull && !this.#resync)
      this.#becomeInSync();
    this.#stopPull();
    this.#behind = false;
  }

  linkUp(server: number): void {
    if (server === this.#ctx.primary && this.#ctx.selfState === ReplicaState.REPLICA_RECOVERING)
      this.#recover();
  }

  /** What was left here of an earlier membership is gone. */
  dropped(): void {
    if (this.#ctx.selfState === ReplicaState.REPLICA_RECOVERING) this.#recover();
  }

  linkDown(server: number): void {
    if (this.#pull?.source === server) this.#stopPull();
  }

  tick(now: number): void {
    this.#pull?.tick(now);
  }

  /** A call of the server that the map names primary; the map is at least as new as the call. */
  call(call: PeerCall): void {
    switch (call.type) {
      case FrameType.PG_INFO:
        this.#info(call);
        break;
      case FrameType.RESYNC:
        this.#startResync(call);
        break;
      case FrameType.REPLICATE_WRITE:
      case FrameType.REPLICATE_EXTENTS:
      case FrameType.REPLICATE_RESERVE:
        this.#operation(this.#op(call, 'write'));
        break;
      case FrameType.REPLICATE_TRUNCATE:
        this.#operation(this.#op(call, 'truncate'));
        break;
      case FrameType.REPLICATE_DELETE:
        this.#operation(this.#op(call, 'delete'));
        break;
      default:
        this.#answer(call, 'PROTOCOL');
    }
  }

  applied(op: Op, error: HoldfastError | undefined): void {
    const { call } = op as ReplicaOp;
    if (error) this.#behind = true;
    this.#answer(call, error?.errorName, error?.message);
  }

  /** The store refused an operation, whoever's it was. */
  refusedByStore(now: number): void {
    if (this.#pull) this.#pull.refusedByStore(now);
    else this.#behind = true;
  }

  #op(call: PeerCall, kind: OpKind): ReplicaOp {
    const { header, payload } = call;
    return {
      kind,
      version: { epoch: header.versionEpoch, seq: header.versionSeq },
      ino: header.ino,
      chunk: header.chunk,
      offset: kind === 'truncate' ? header.aux : header.offset,
      payload,
      hole: kind === 'write' ? header.length : 0,
      reserves: call.type === FrameType.REPLICATE_RESERVE,
      payloadCrc: header.payloadCrc,
      blockCrcs: call.blockCrcs,
      runs: call.runs,
      truncateSeq: header.truncateSeq,
      chunkSize: header.length,
      sync: (header.flags & FRAME_FLAG_SYNC) !== 0,
      owner: this,
      call,
    };
  }

  #operation(op: ReplicaOp): void {
    const ctx = this.#ctx;
    if (ctx.selfState === ReplicaState.REPLICA_RECOVERING) {
      this.#forwarded(op);
      return;
    }
    if (ctx.selfState !== ReplicaState.REPLICA_IN_SYNC) this.#answer(op.call, 'STALE_EPOCH', 'not a replica');
    else if (this.#behind || this.#pull || op.version.seq !== ctx.last.seq + 1) {
      this.#behind = true;
      const detail = `operation ${op.version.seq} after ${ctx.last.seq}`;
      this.#answer(op.call, 'PROTOCOL', detail);
    } else {
      ctx.last = op.version;
      ctx.emit({ kind: 'apply', op });
    }
  }

  #forwarded(op: ReplicaOp): void {
    const pull = this.#pull;
    if (!pull) {
      this.#answer(op.call, undefined);
      return;
    }
    const verdict = pull.forwarded(op);
    if (verdict === 'apply') {
      this.#ctx.emit({ kind: 'apply', op });
      return;
    }
    if (verdict === 'taken') this.#answer(op.call, undefined);
    else {
      // Told as an error, so that a primary which counts on this replica stops to.
      this.#answer(op.call, 'PROTOCOL', `operation ${op.version.seq} after ${this.#ctx.last.seq}`);
      this.#recover();
    }
  }

  #info(call: PeerCall): void {
    const ctx = this.#ctx;
    if (ctx.selfState !== ReplicaState.REPLICA_IN_SYNC) {
      this.#answer(call, 'STALE_EPOCH', 'not in-sync');
      return;
    }
    this.#stopPull();
    this.#behind = false;
    const { since, boundary } = ctx.lineage;
    this.#answer(call, undefined, undefined, {
      versionEpoch: ctx.last.epoch,
      versionSeq: ctx.last.seq,
      flags: ctx.clean ? FRAME_FLAG_END : 0,
      truncateSeq: ctx.map?.epoch ?? 0,
      length: since,
      chunk: boundary.epoch,
      ino: boundary.seq,
    });
  }

  /** With the flag END the content is the primary's already, and only the version is taken over. */
  #startResync(call: PeerCall): void {
    const ctx = this.#ctx;
    const { header } = call;
    if (ctx.selfState !== ReplicaState.REPLICA_IN_SYNC) {
      this.#answer(call, 'STALE_EPOCH', 'not in-sync');
      return;
    }
    this.#stopPull();
    this.#behind = false;
    const target = { epoch: header.versionEpoch, seq: header.versionSeq };
    if ((header.flags & FRAME_FLAG_END) !== 0) {
      ctx.setState(target, true);
      this.#answer(call, undefined);
      return;
    }
    this.#resync = call;
    this.#pull = new Pull(ctx, 'resync', call.from, target, () => {
      this.#pull = undefined;
      this.#resync = undefined;
      this.#answer(call, undefined);
    });
    this.#pull.start();
  }

  /** Begins to copy from the primary; without a connection from it, when that comes. */
  #recover(): void {
    this.#stopPull();
    const { primary, env, dropping } = this.#ctx;
    if (primary === 0 || dropping || !env.linked(primary, 'in')) return;
    const done = (): void => {};
    this.#pull = new Pull(this.#ctx, 'recover', primary, undefined, done, () => this.#recover());
    this.#pull.start();
  }

  #stopPull(): void {
    this.#pull?.cancel();
    this.#pull = undefined;
    if (this.#resync) this.#answer(this.#resync, 'STALE_EPOCH', 'the group has moved on');
    this.#resync = undefined;
  }

  #answer(call: PeerCall, error: ErrorName | undefined, detail?: string, fields?: FrameFields): void {
    this.#ctx.emit({ kind: 'answerCall', call, error, detail, fields });
  }
}
