import type { FrameFields, FrameType } from '../../proto/frame-header.js';
import type { ReplySink } from '../../proto/frames.js';
import type { LinkSide } from '../pg/types.js';
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

/** A link that this server dialed, as primary, with what it knows of the disk behind it. */
export interface OutLink {
  readonly link: PeerLink;
  /** One REPLICATE_SYNC serves all that ask meanwhile. */
  readonly syncs: SyncGroup;
  /** As the server last said. */
  roomBytes: number;
  /** Payload sent and not answered: not in `roomBytes` yet. */
  inFlightBytes: number;
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
      const roomBytes = Number.POSITIVE_INFINITY;
      this.#out.set(server, { link, syncs: new SyncGroup(sync), roomBytes, inFlightBytes: 0 });
    }
  }

  delete(server: number, side: LinkSide): void {
    if (side === 'in') this.#in.delete(server);
    else this.#out.delete(server);
  }

  roomBytes(server: number): number {
    const out = this.#out.get(server);
    return out ? out.roomBytes - out.inFlightBytes : Number.POSITIVE_INFINITY;
  }

  congested(server: number): boolean {
    return (this.#out.get(server)?.link.queuedBytes ?? 0) > LINK_BACKLOG_BYTES_MAX;
  }
}
