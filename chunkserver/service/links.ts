import type { FrameFields, FrameHeader, FrameType } from '../../proto/frame-header.js';
import type { ReplySink } from '../../proto/frames.js';
import type { LinkSide } from '../pg/types.js';
import type { ChunkStore } from '../store/chunk-store.js';
import { SyncGroup } from './sync-group.js';

/** One ordered connection to another chunkserver; FrameConnection is one. */
export interface PeerLink {
  readonly ended: boolean;
  /** Bytes that wait to be sent. */
  readonly queuedBytes: number;
  /** The sink runs while the bytes are read, in the order of the connection. */
  request(
    fields: FrameFields & { type: FrameType },
    payload: Buffer | Buffer[] | undefined,
    deadlineMs: number,
    payloadCrc: number | undefined,
    sink: ReplySink,
  ): void;
  close(reason: string): void;
}

/** What a disk may take now, in bytes. */
export interface Room {
  /** Of anything. */
  any: number;
  /** Of writes to where space is reserved. */
  promised: number;
}

/** A link that this server dialed, as primary, with what it knows of the disk behind it. */
export interface OutLink {
  readonly link: PeerLink;
  /** One REPLICATE_SYNC serves all that ask meanwhile. */
  readonly syncs: SyncGroup;
  /** As the server last said. */
  room: Room;
  /** What of it operations will take that were sent and not answered: not in `room` yet. */
  readonly inFlight: Room;
}

/** More unsent bytes than this on a link: clients are asked to come again later. */
export const LINK_BACKLOG_BYTES_MAX = 64 * 1024 * 1024;

/** The links of this server: at most one per other server and direction; a new one replaces the old one. */
export class LinkTable {
  readonly #out = new Map<number, OutLink>();
  readonly #in = new Map<number, PeerLink>();

  out(server: number): OutLink | undefined {
    return this.#out.get(server);
  }

  in(server: number): PeerLink | undefined {
    return this.#in.get(server);
  }

  get(server: number, side: LinkSide): PeerLink | undefined {
    return side === 'in' ? this.#in.get(server) : this.#out.get(server)?.link;
  }

  /** Whoever dialed it. */
  any(server: number): PeerLink | undefined {
    return this.#out.get(server)?.link ?? this.#in.get(server);
  }

  set(server: number, side: LinkSide, link: PeerLink, sync: (done: (error?: Error) => void) => void): void {
    if (side === 'in') this.#in.set(server, link);
    else {
      const room = { any: Number.POSITIVE_INFINITY, promised: Number.POSITIVE_INFINITY };
      this.#out.set(server, { link, syncs: new SyncGroup(sync), room, inFlight: { any: 0, promised: 0 } });
    }
  }

  delete(server: number, side: LinkSide): void {
    if (side === 'in') this.#in.delete(server);
    else this.#out.delete(server);
  }

  roomBytes(server: number, of: keyof Room = 'any'): number {
    const out = this.#out.get(server);
    return out ? out.room[of] - out.inFlight[of] : Number.POSITIVE_INFINITY;
  }

  congested(server: number): boolean {
    return (this.#out.get(server)?.link.queuedBytes ?? 0) > LINK_BACKLOG_BYTES_MAX;
  }
}

/** What the disk of this server may take now, as replies to operations and pings tell it. */
export function roomFields(store: ChunkStore): FrameFields {
  const { roomBytes, promisedRoomBytes } = store.usage();
  return { aux: Math.max(0, roomBytes), versionSeq: Math.max(0, promisedRoomBytes) };
}

/** The same at the other end. */
export function roomOf({ aux, versionSeq }: FrameHeader): Room {
  return { any: aux, promised: versionSeq };
}
