import type { LinkSide } from '../../../../chunkserver/pg/types.js';
import type { PeerLink } from '../../../../chunkserver/service/links.js';
import { HoldfastError, toHoldfastError } from '../../../../proto/errors.js';
import type { FrameFields, FrameHeader } from '../../../../proto/frame-header.js';
import { type Frame, FrameError, type FrameReply, type ReplySink } from '../../../../proto/frames.js';

const NO_FIELDS: Omit<FrameHeader, 'isReply' | 'payloadLength' | 'payloadCrc'> = {
  ...{ type: 0, flags: 0, requestId: 0, status: 0, pg: 0, epoch: 0, ino: 0, chunk: 0, offset: 0, length: 0 },
  ...{ versionEpoch: 0, versionSeq: 0, truncateSeq: 0, aux: 0, deadlineMs: 0 },
};

/** A frame as the other side would receive it. */
export function frameOf(fields: FrameFields, payload: Buffer | Buffer[] | undefined): Frame {
  const bytes =
    payload === undefined ? Buffer.alloc(0) : Array.isArray(payload) ? Buffer.concat(payload) : payload;
  const lengths = { isReply: false, payloadLength: bytes.length, payloadCrc: 0 };
  return { header: { ...NO_FIELDS, ...fields, ...lengths }, payload: bytes };
}

/** Delivers at the other server, in order, unless that died meanwhile. */
export type Pipe = (deliver: () => void) => void;

/** One end of a simulated connection between two chunkservers. */
export class SimLink implements PeerLink {
  ended = false;
  readonly queuedBytes = 0;
  readonly server: number;
  readonly side: LinkSide;
  other!: SimLink;
  readonly #pipe: Pipe;
  readonly #handle: (frame: Frame, link: SimLink) => Promise<FrameReply>;
  readonly #onEnd: (link: SimLink, reason: string) => void;
  #pending = new Set<ReplySink>();

  /** @param server at the other end; `handle` serves what that asks */
  constructor(
    server: number,
    side: LinkSide,
    pipe: Pipe,
    handle: (frame: Frame, link: SimLink) => Promise<FrameReply>,
    onEnd: (link: SimLink, reason: string) => void,
  ) {
    this.server = server;
    this.side = side;
    this.#pipe = pipe;
    this.#handle = handle;
    this.#onEnd = onEnd;
  }

  request(
    fields: FrameFields,
    payload: Buffer | Buffer[] | undefined,
    _deadlineMs: number,
    _payloadCrc: number | undefined,
    sink: ReplySink,
  ): void {
    if (this.ended) {
      sink(new HoldfastError('CONNECTION_LOST'), undefined);
      return;
    }
    this.#pending.add(sink);
    this.#pipe(() => this.other.#serve(frameOf(fields, payload), fields, sink));
  }

  #serve(frame: Frame, fields: FrameFields, sink: ReplySink): void {
    if (this.ended) return;
    const { type, pg, epoch, ino, chunk, offset } = fields;
    const same = { type, pg, epoch, ino, chunk, offset };
    this.#handle(frame, this).then(
      (reply) => this.#reply(sink, undefined, frameOf({ ...same, ...reply.fields }, reply.payload)),
      (cause: unknown) => {
        if (!(cause instanceof HoldfastError)) throw cause;
        const error = cause instanceof FrameError ? cause : toHoldfastError(cause);
        this.#reply(sink, error, undefined);
      },
    );
  }

  #reply(sink: ReplySink, error: HoldfastError | undefined, frame: Frame | undefined): void {
    if (this.ended) return;
    this.#pipe(() => {
      if (this.other.#pending.delete(sink)) sink(error, frame);
    });
  }

  /** Ends this side; the other notices later. */
  close(reason: string): void {
    if (this.ended) return;
    this.ended = true;
    const pending = [...this.#pending];
    this.#pending.clear();
    for (const sink of pending) sink(new HoldfastError('CONNECTION_LOST', reason), undefined);
    this.#onEnd(this, reason);
  }
}
