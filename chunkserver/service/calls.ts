import { HoldfastError } from '../../proto/errors.js';
import type { DataRange } from '../../proto/extents.js';
import {
  EXTENTS_RESERVED,
  FRAME_FLAG_SYNC,
  type FrameFields,
  type FrameHeader,
  FrameType,
} from '../../proto/frame-header.js';
import { type Frame, FrameError, type FrameReply } from '../../proto/frames.js';
import { lineageFields } from '../../proto/lineage.js';
import { DEFAULT_CHUNK_SIZE_BYTES } from '../../proto/types.js';
import type { Effect, LinkSide, Op, PeerCall, PgRequest } from '../pg/types.js';
import type { ReadResult } from '../store/chunk-store.js';
import { INO_MAX } from '../store/index-db.js';

/** Chunks may be so large: FETCH carries one whole, in one frame. */
export const CHUNK_BYTES_MAX = DEFAULT_CHUNK_SIZE_BYTES;
/** A request without a deadline gets this one. */
export const DEFAULT_DEADLINE_MS = 30_000;

/** A request on its way through the core, with who waits for its answer. */
export interface ClientCall extends PgRequest {
  result: ReadResult | undefined;
  /** A read that asks where data is, not what. */
  ranges?: 'stored' | 'stored or reserved';
  /** Called once. */
  answer(error: HoldfastError | undefined, reply: FrameReply): void;
}

export interface IncomingCall extends PeerCall {
  /** Called once. */
  answer(error: HoldfastError | undefined, reply: FrameReply): void;
}

const KINDS: Partial<Record<FrameType, PgRequest['kind']>> = {
  [FrameType.READ]: 'read',
  [FrameType.WRITE]: 'write',
  [FrameType.WRITE_EXTENTS]: 'write',
  [FrameType.RESERVE]: 'write',
  [FrameType.SYNC]: 'sync',
  [FrameType.TRUNCATE]: 'truncate',
  [FrameType.EXTENTS]: 'read',
};

/** Whether a frame type is a client's. */
export function isClientType(type: FrameType): boolean {
  return KINDS[type] !== undefined;
}

/** @throws HoldfastError EINVAL what no client should send */
export function clientCall(
  { header, payload, blockCrcs, runs }: Frame,
  now: number,
  answer: ClientCall['answer'],
): ClientCall {
  const kind = KINDS[header.type as FrameType];
  if (!kind) throw new HoldfastError('PROTOCOL', `frame type ${header.type}`);
  if (header.type === FrameType.WRITE_EXTENTS) checkRuns(header, runs);
  else check(kind, header, payload.length);
  if (header.type === FrameType.RESERVE && payload.length > 0)
    throw new HoldfastError('EINVAL', 'bytes where space is to be reserved');
  return {
    kind,
    ranges: rangesOf(header),
    reserves: header.type === FrameType.RESERVE,
    epoch: header.epoch,
    ino: header.ino,
    chunk: header.chunk,
    offset: kind === 'truncate' ? header.aux : header.offset,
    length: header.length,
    truncateSeq: header.truncateSeq,
    chunkSize: header.length,
    payload,
    payloadCrc: header.payloadCrc,
    blockCrcs,
    runs,
    sync: (header.flags & FRAME_FLAG_SYNC) !== 0,
    deadline: now + (header.deadlineMs || DEFAULT_DEADLINE_MS),
    patient: true,
    result: undefined,
    answer,
  };
}

function rangesOf({ type, offset }: FrameHeader): ClientCall['ranges'] {
  if (type !== FrameType.EXTENTS) return undefined;
  return offset === EXTENTS_RESERVED ? 'stored or reserved' : 'stored';
}

const EMPTY = Buffer.alloc(0);

/** A change that the metaserver asks for: durable when it is answered, and refused at once where it would have to wait. */
export function orderedCall(
  kind: 'truncate' | 'delete' | 'discard',
  target: { ino: number; from: number; truncateSeq: number; chunkSize: number },
  now: number,
  answer: (error: HoldfastError | undefined) => void,
): ClientCall {
  return {
    kind,
    epoch: 0,
    ino: target.ino,
    chunk: 0,
    offset: target.from,
    length: 0,
    truncateSeq: target.truncateSeq,
    chunkSize: target.chunkSize,
    payload: EMPTY,
    payloadCrc: 0,
    // The metaserver forgets it then: a power cut must not bring the data back.
    sync: true,
    deadline: now + DEFAULT_DEADLINE_MS,
    patient: false,
    result: undefined,
    answer,
  };
}

function check(kind: PgRequest['kind'], header: FrameHeader, payloadBytes: number): void {
  const sized = kind === 'write' || header.type === FrameType.READ;
  const bytes = sized ? payloadBytes || header.length : 1;
  const inode = isInode(header.ino) || (kind === 'sync' && header.ino === 0);
  const range = kind === 'truncate' || kind === 'sync' || header.offset + bytes <= CHUNK_BYTES_MAX;
  const truncate = kind !== 'truncate' || (header.length > 0 && header.truncateSeq > 0 && isSize(header.aux));
  if (inode && range && truncate && bytes > 0) return;
  throw new HoldfastError('EINVAL', `${kind} of inode ${header.ino}: ${bytes} bytes at ${header.offset}`);
}

/** The store has no key for any other. */
function isInode(ino: number): boolean {
  return ino > 0 && ino <= INO_MAX;
}

function isSize(bytes: number): boolean {
  return Number.isSafeInteger(bytes) && bytes >= 0;
}

function checkRuns({ ino }: FrameHeader, runs: readonly DataRange[] | undefined): void {
  const end = runs?.at(-1)?.end ?? Number.POSITIVE_INFINITY;
  if (isInode(ino) && end <= CHUNK_BYTES_MAX) return;
  throw new HoldfastError('EINVAL', `write of inode ${ino}: ${runs?.length ?? 0} runs up to ${end}`);
}

const REPLICATE_TYPES = {
  write: FrameType.REPLICATE_WRITE,
  truncate: FrameType.REPLICATE_TRUNCATE,
  delete: FrameType.REPLICATE_DELETE,
} as const;

function replicateType({ kind, runs, reserves }: Op): FrameType {
  if (runs) return FrameType.REPLICATE_EXTENTS;
  return reserves ? FrameType.REPLICATE_RESERVE : REPLICATE_TYPES[kind];
}

/** The header of a forwarded operation; of one shape, for it is made for each write. */
export function replicateFields(pg: number, op: Op): FrameFields & { type: FrameType } {
  const { kind, version } = op;
  return {
    type: replicateType(op),
    flags: op.sync ? FRAME_FLAG_SYNC : 0,
    pg,
    epoch: version.epoch,
    ino: op.ino,
    chunk: op.chunk,
    offset: kind === 'write' ? op.offset : 0,
    length: kind === 'truncate' ? op.chunkSize : (op.hole ?? 0),
    versionEpoch: version.epoch,
    versionSeq: version.seq,
    truncateSeq: op.truncateSeq,
    aux: kind === 'truncate' ? op.offset : 0,
  };
}

const PEER_TYPES = new Set<number>([
  FrameType.REPLICATE_WRITE,
  FrameType.REPLICATE_EXTENTS,
  FrameType.REPLICATE_RESERVE,
  FrameType.REPLICATE_TRUNCATE,
  FrameType.REPLICATE_DELETE,
  FrameType.PG_INFO,
  FrameType.LIST,
  FrameType.FETCH,
  FrameType.RESYNC,
  FrameType.CAUGHT_UP,
]);

/** @throws HoldfastError PROTOCOL a type that servers do not send */
export function incomingCall(
  frame: Frame,
  from: number,
  side: LinkSide,
  answer: IncomingCall['answer'],
): IncomingCall {
  const { header, payload, blockCrcs, runs } = frame;
  if (!PEER_TYPES.has(header.type)) throw new HoldfastError('PROTOCOL', `frame type ${header.type}`);
  return { from, side, type: header.type as PeerCall['type'], header, payload, blockCrcs, runs, answer };
}

/** NEED_TRUNCATE tells the number that is known here. */
export function needTruncate(truncateSeq: number): FrameError {
  return new FrameError('NEED_TRUNCATE', { truncateSeq });
}

/**
 * Carries out what the core has decided on a request.
 * @param truncateSeq the newest truncate of the inode here: a reader that knows of none so new has an old size
 */
export function answerClient(effect: Extract<Effect, { kind: 'answer' }>, truncateSeq: number): void {
  const call = effect.request as ClientCall;
  const { error, version, lineage } = effect;
  if (error === 'NEED_TRUNCATE') call.answer(needTruncate(effect.truncateSeq ?? 0), {});
  else if (error) call.answer(new HoldfastError(error, effect.detail), {});
  else if (lineage) call.answer(undefined, { fields: lineageFields(lineage) });
  else {
    const { epoch = 0, seq = 0 } = version ?? {};
    const fields = { versionEpoch: epoch, versionSeq: seq, aux: effect.aux ?? 0, truncateSeq };
    const { data: payload, crc: payloadCrc } = call.result ?? {};
    call.answer(undefined, { fields, payload, payloadCrc });
  }
}
