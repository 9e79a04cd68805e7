import { crc32c } from '../../common/crc32c.js';
import { unpackCopySource } from '../../proto/copy-source.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import { type FrameFields, FrameType } from '../../proto/frame-header.js';
import type { Frame, FrameReply } from '../../proto/frames.js';
import type { ClusterMap } from '../../proto/gen/cluster.js';
import { ReplicaState } from '../../proto/gen/cluster.js';
import { pgOfChunk } from '../../proto/types.js';
import { CHUNK_BYTES_MAX, DEFAULT_DEADLINE_MS } from './calls.js';
import type { PeerLink } from './links.js';

/** Copies that one server works on at a time, each with the bytes of a chunk at most; beyond it clients come again. */
export const COPIES_AT_ONCE_MAX = 16;

export interface CopyDeps {
  self: number;
  map(): ClusterMap | undefined;
  /** A link to another server that answers requests of clients. */
  link(server: number): PeerLink | undefined;
  /** Answers a client's request here. */
  route(frame: Frame): Promise<FrameReply>;
}

/**
 * COPY: the primary of a chunk reads a range of another one from that one's primary and writes it as if a client had
 * sent it. Whatever stands in the way of the source is EOPNOTSUPP: the client then copies by itself. What is wrong with
 * the destination is answered as a WRITE is.
 */
export class RangeCopies {
  readonly #deps: CopyDeps;
  #running = 0;

  constructor(deps: CopyDeps) {
    this.#deps = deps;
  }

  /** @throws HoldfastError OVERLOADED, EOPNOTSUPP, EINVAL; as a WRITE */
  async serve({ header, payload }: Frame): Promise<FrameReply> {
    const { length, offset } = header;
    if (length === 0 || offset + length > CHUNK_BYTES_MAX)
      throw new HoldfastError('EINVAL', 'a COPY of nothing');
    if (this.#running >= COPIES_AT_ONCE_MAX) throw new HoldfastError('OVERLOADED', 'copies');
    this.#running++;
    try {
      const data = await this.#source(payload, length, header.deadlineMs);
      const bytes = data.reduce((sum, part) => sum + part.length, 0);
      const fields = { ...header, type: FrameType.WRITE };
      // A source without data leaves a hole, the end of one zeros.
      if (bytes === 0) return await this.#deps.route({ header: fields, payload: Buffer.alloc(0) });
      const whole = bytes === length && data.length === 1 ? (data[0] as Buffer) : padded(data, length);
      const sums = { payloadLength: length, payloadCrc: crc32c(whole) };
      return await this.#deps.route({ header: { ...fields, ...sums, length: 0 }, payload: whole });
    } finally {
      this.#running--;
    }
  }

  /** @throws HoldfastError EINVAL, EOPNOTSUPP */
  async #source(payload: Buffer, length: number, deadlineMs: number): Promise<Buffer[]> {
    const { ino, chunk, offset, truncateSeq } = unpackCopySource(payload);
    if (offset + length > CHUNK_BYTES_MAX) throw new HoldfastError('EINVAL', 'a COPY beyond its source');
    const map = this.#deps.map();
    const id = map ? pgOfChunk(ino, chunk, map.pgs.length) : 0;
    const pg = map?.pgs.find((one) => one.id === id);
    const primary = pg?.replicas.find(({ state }) => state === ReplicaState.REPLICA_IN_SYNC)?.server;
    if (!pg || primary === undefined) throw new HoldfastError('EOPNOTSUPP', `group ${id} has no primary`);
    const read = { type: FrameType.READ, pg: id, epoch: pg.epoch, ino, chunk, offset, length, truncateSeq };
    const fields = { ...read, deadlineMs: deadlineMs || DEFAULT_DEADLINE_MS };
    try {
      const answer =
        primary === this.#deps.self ? await this.#readHere(fields) : await this.#ask(primary, fields);
      return Array.isArray(answer) ? answer : [answer];
    } catch (error) {
      throw new HoldfastError('EOPNOTSUPP', `the source of a copy: ${toHoldfastError(error).message}`);
    }
  }

  async #readHere(fields: FrameFields & { type: FrameType }): Promise<Buffer | Buffer[]> {
    const header = { ...NO_FIELDS, ...fields };
    return (await this.#deps.route({ header, payload: Buffer.alloc(0) })).payload ?? [];
  }

  #ask(server: number, fields: FrameFields & { type: FrameType; deadlineMs: number }): Promise<Buffer> {
    const link = this.#deps.link(server);
    if (!link) return Promise.reject(new HoldfastError('UNAVAILABLE', `no link to server ${server}`));
    return new Promise((resolve, reject) => {
      link.request(fields, undefined, fields.deadlineMs, undefined, (error, reply) => {
        if (error) reject(error);
        else resolve((reply as Frame).payload);
      });
    });
  }
}

const NO_FIELDS: Frame['header'] = {
  ...{ type: 0, flags: 0, requestId: 0, status: 0, pg: 0, epoch: 0, ino: 0, chunk: 0, offset: 0, length: 0 },
  ...{ versionEpoch: 0, versionSeq: 0, truncateSeq: 0, aux: 0, deadlineMs: 0 },
  ...{ isReply: false, payloadLength: 0, payloadCrc: 0 },
};

function padded(data: readonly Buffer[], length: number): Buffer {
  const whole = Buffer.alloc(length);
  let at = 0;
  for (const part of data) at += part.copy(whole, at);
  return whole;
}
