import { crc32c } from '../common/crc32c.js';
import { appendBlockCrcs, blockCrcs } from './block-crc.js';
import { HoldfastError } from './errors.js';
import { appendTableCrcs, runCrcs, unpackTable } from './extent-table.js';
import type { DataRange } from './extents.js';
import { FRAME_HEADER_BYTES, type FrameHeader, FrameType, readHeader } from './frame-header.js';
import { MAX_FRAME_PAYLOAD_BYTES } from './types.js';

/** A received frame; `payload` is empty when there is none. It belongs to the receiver. */
export interface Frame {
  header: FrameHeader;
  payload: Buffer;
  /** Of the bytes that a WRITE or REPLICATE_WRITE brings: CRC-32C of each block of the chunk that they touch. */
  blockCrcs?: Uint32Array;
  /** Where the bytes of a WRITE_EXTENTS or REPLICATE_EXTENTS belong; `blockCrcs` has those of each, one after the other. */
  runs?: readonly DataRange[];
}

const EMPTY = Buffer.alloc(0);
/** Bytes that are read while it is not known what they belong to. */
const STAGING_BYTES = 64 * 1024;
/** Payloads up to this size are gathered in slabs: an allocation of its own costs more than the copy. */
const SLAB_PAYLOAD_BYTES_MAX = 16 * 1024;
const SLAB_BYTES = 64 * 1024;

/** Cuts a byte stream into frames and checks them. Bytes are pushed, or read into what room() gives. */
export class FrameParser {
  readonly #onFrame: (frame: Frame) => void;
  readonly #headerBuffer = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  #headerFilled = 0;
  #header: FrameHeader | undefined;
  #payload: Buffer | undefined;
  #payloadFilled = 0;
  /** What room() gives at the begin of a frame, used again and again. */
  #staging: Buffer | undefined;
  /** The last room() was the rest of a payload. */
  #inPayload = false;
  #slab = EMPTY;
  #slabUsed = 0;

  constructor(onFrame: (frame: Frame) => void) {
    this.#onFrame = onFrame;
  }

  /** Where the next bytes of the stream may be read to: the payload that they belong to when that is known. */
  room(): Buffer {
    this.#inPayload = this.#payload !== undefined;
    if (this.#payload) return this.#payload.subarray(this.#payloadFilled);
    this.#staging ??= Buffer.allocUnsafeSlow(STAGING_BYTES);
    return this.#staging;
  }

  /** So many bytes were read to room(). @throws HoldfastError as push() */
  filled(bytes: number): void {
    if (!this.#inPayload) {
      this.#take((this.#staging as Buffer).subarray(0, bytes), true);
      return;
    }
    this.#inPayload = false;
    this.#payloadFilled += bytes;
    this.#deliverWhole();
  }

  /**
   * Takes bytes that were read elsewhere; they must not change afterwards.
   * @throws HoldfastError PROTOCOL or CORRUPT: the stream cannot be trusted further
   */
  push(chunk: Buffer): void {
    this.#take(chunk, false);
  }

  /** @param reused the chunk's memory takes other bytes later */
  #take(chunk: Buffer, reused: boolean): void {
    let at = 0;
    while (at < chunk.length) {
      if (!this.#header) {
        const taken = Math.min(FRAME_HEADER_BYTES - this.#headerFilled, chunk.length - at);
        chunk.copy(this.#headerBuffer, this.#headerFilled, at, at + taken);
        this.#headerFilled += taken;
        at += taken;
        if (this.#headerFilled < FRAME_HEADER_BYTES) return;
        this.#headerFilled = 0;
        this.#header = readHeader(this.#headerBuffer);
        if (this.#header.payloadLength > MAX_FRAME_PAYLOAD_BYTES) {
          throw new HoldfastError('PROTOCOL', `frame of ${this.#header.payloadLength} bytes`);
        }
      }
      const header: FrameHeader = this.#header;
      const wanted = header.payloadLength;
      if (wanted === 0) {
        this.#deliver(header, EMPTY);
        continue;
      }
      if (!reused && !this.#payload && chunk.length - at >= wanted) {
        // The common small frame: a view into the socket's buffer, no copy.
        this.#deliver(header, chunk.subarray(at, at + wanted));
        at += wanted;
        continue;
      }
      this.#payload ??= this.#allocate(wanted);
      const taken = Math.min(wanted - this.#payloadFilled, chunk.length - at);
      chunk.copy(this.#payload, this.#payloadFilled, at, at + taken);
      this.#payloadFilled += taken;
      at += taken;
      this.#deliverWhole();
    }
  }

  #allocate(bytes: number): Buffer {
    if (bytes > SLAB_PAYLOAD_BYTES_MAX) return Buffer.allocUnsafeSlow(bytes);
    if (this.#slabUsed + bytes > this.#slab.length) {
      this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
      this.#slabUsed = 0;
    }
    this.#slabUsed += bytes;
    return this.#slab.subarray(this.#slabUsed - bytes, this.#slabUsed);
  }

  #deliverWhole(): void {
    const { payloadLength } = this.#header as FrameHeader;
    if (this.#payloadFilled === payloadLength)
      this.#deliver(this.#header as FrameHeader, this.#payload as Buffer);
  }

  #deliver(header: FrameHeader, payload: Buffer): void {
    this.#header = undefined;
    this.#payload = undefined;
    this.#payloadFilled = 0;
    const frame: Frame = { header, payload };
    if (payload.length > 0 && checksum(frame) !== header.payloadCrc) {
      throw new HoldfastError('CORRUPT', `checksum of the payload of frame type ${header.type}`);
    }
    this.#onFrame(frame);
  }
}

/** CRC-32C of the payload. What is to be stored needs the checksums of its blocks, too: one pass gives both. */
function checksum(frame: Frame): number {
  const { header, payload } = frame;
  if (header.isReply) return crc32c(payload);
  switch (header.type) {
    case FrameType.WRITE:
    case FrameType.REPLICATE_WRITE:
      frame.blockCrcs = blockCrcs(header.offset, payload);
      return appendBlockCrcs(0, header.offset, payload.length, frame.blockCrcs);
    case FrameType.WRITE_EXTENTS:
    case FrameType.REPLICATE_EXTENTS:
      frame.runs = unpackTable(payload);
      frame.blockCrcs = runCrcs(payload, frame.runs);
      return appendTableCrcs(0, payload, frame.runs, frame.blockCrcs);
    default:
      return crc32c(payload);
  }
}
