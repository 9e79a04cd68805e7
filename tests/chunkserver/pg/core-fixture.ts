import { PgCore } from '../../../chunkserver/pg/pg-core.js';
import {
  type Ask,
  type Effect,
  type LinkSide,
  type PeerCall,
  type PgEnv,
  type PgEvent,
  type PgRequest,
  RECOVERY_LIMITS,
} from '../../../chunkserver/pg/types.js';
import type { PgState, Version } from '../../../chunkserver/store/chunk-store.js';
import { FRAME_FLAG_END, type FrameFields, type FrameType } from '../../../proto/frame-header.js';
import { type Pg, ReplicaState } from '../../../proto/gen/cluster.js';
import { MemoryStore } from '../support/memory-store.js';
import { frameOf } from './sim/link.js';

export const { REPLICA_OUT: OUT, REPLICA_RECOVERING: RECOVERING, REPLICA_IN_SYNC: IN_SYNC } = ReplicaState;

/** A map entry; replicas as server and state. */
export function pgMap(epoch: number, interval: number, ...replicas: [number, ReplicaState][]): Pg {
  return { id: 0, epoch, interval, replicas: replicas.map(([server, state]) => ({ server, state })) };
}

export function request(kind: PgRequest['kind'], more: Partial<PgRequest> = {}): PgRequest {
  const payload = kind === 'write' ? Buffer.from('data') : Buffer.alloc(0);
  return {
    ...{ kind, epoch: 1, ino: 5, chunk: 0, offset: 0, length: 10, truncateSeq: 0, chunkSize: 100 },
    ...{ payload, payloadCrc: 0, sync: false, deadline: 60_000, patient: true },
    ...more,
  };
}

export function call(
  from: number,
  type: PeerCall['type'],
  fields: FrameFields = {},
  side: LinkSide = 'in',
): PeerCall {
  return { from, side, type, ...frameOf({ type, ...fields }, undefined) };
}

/** One core of server 1 with an environment that the test turns by hand. */
export class CoreFixture {
  readonly core: PgCore;
  readonly store = new MemoryStore();
  readonly links = new Set<string>();
  leaseUntil = 10_000;
  registered = true;
  minInSync = 2;
  free = 2 ** 40;
  /** For writes to where space is reserved. */
  promised = 2 ** 40;
  /** Servers whose disks or links are behind. */
  readonly behind = new Set<number>();
  now = 100;

  constructor(state: PgState = { last: { epoch: 0, seq: 0 }, clean: true }) {
    const env: PgEnv = {
      self: 1,
      limits: RECOVERY_LIMITS,
      leaseUntil: () => this.leaseUntil,
      registered: () => this.registered,
      minInSync: () => this.minInSync,
      linked: (server, side) => this.links.has(`${side}${server}`),
      congested: (server) => this.behind.has(server),
      roomBytes: () => this.free,
      promisedRoomBytes: () => this.promised,
      coverage: (pg, key, ranges) => this.store.coverage(pg, key, ranges),
      truncateSeq: (pg, ino) => this.store.truncateSeq(pg, ino),
      chunkInfo: (pg, key) => this.store.chunkInfo(pg, key),
      holds: (pg, ino) => this.store.holds(pg, ino),
      list: (pg, after, limit) => this.store.list(pg, after, limit),
      listTruncateSeqs: (pg, after, limit) => this.store.listTruncateSeqs(pg, after, limit),
    };
    this.core = new PgCore(0, env, state);
  }

  step(event: PgEvent): Effect[] {
    return this.core.step(event, this.now);
  }

  link(...links: string[]): void {
    for (const link of links) this.links.add(link);
  }

  map(pg: Pg): Effect[] {
    return this.step({ kind: 'map', pg });
  }

  request(kind: PgRequest['kind'], more: Partial<PgRequest> = {}): Effect[] {
    return this.step({ kind: 'request', request: request(kind, more) });
  }

  reply(ask: Ask, fields: FrameFields = {}, payload?: Buffer): Effect[] {
    return this.step({ kind: 'reply', ask, error: undefined, reply: frameOf(fields, payload) });
  }

  /** Primary in epoch 1 with in-sync replicas 2 and 3, active. */
  lead(): this {
    this.link('out2', 'out3');
    const last = { versionEpoch: 0, versionSeq: 0, flags: FRAME_FLAG_END };
    for (const ask of asksOf(this.map(pgMap(1, 1, [1, IN_SYNC], [2, IN_SYNC], [3, IN_SYNC])))) {
      for (const resync of asksOf(this.reply(ask, last))) this.reply(resync);
    }
    return this;
  }
}

export function asksOf(effects: Effect[], type?: FrameType): Ask[] {
  return effects
    .flatMap((effect) => (effect.kind === 'ask' ? [effect.ask] : []))
    .filter((ask) => type === undefined || ask.fields.type === type);
}

export function only<K extends Effect['kind']>(effects: Effect[], kind: K): Extract<Effect, { kind: K }>[] {
  return effects.filter((effect): effect is Extract<Effect, { kind: K }> => effect.kind === kind);
}

export function answers(effects: Effect[]): (string | undefined)[] {
  return only(effects, 'answer').map((effect) => effect.error);
}

export function versionOf(effects: Effect[]): Version {
  return only(effects, 'apply')[0]!.op.version;
}
