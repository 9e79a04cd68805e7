/** A run of bytes in memory, in one or more buffers, and where it lies in the file. */
export interface Piece {
  start: number;
  end: number;
  parts: Buffer[];
}

/** Bytes [from, to) of a run of buffers, without copying. */
export function sliceParts(parts: readonly Buffer[], from: number, to: number): Buffer[] {
  const result: Buffer[] = [];
  let at = 0;
  for (const part of parts) {
    const end = at + part.length;
    if (end > from && at < to) {
      result.push(
        at >= from && end <= to
          ? part
          : part.subarray(Math.max(0, from - at), Math.min(part.length, to - at)),
      );
    }
    at = end;
    if (at >= to) break;
  }
  return result;
}

/** What of these runs lies before `end`. */
export function piecesBefore(pieces: readonly Piece[], end: number): Piece[] {
  const left: Piece[] = [];
  for (const piece of pieces) {
    if (piece.start >= end) continue;
    if (piece.end <= end) left.push(piece);
    else left.push({ start: piece.start, end, parts: sliceParts(piece.parts, 0, end - piece.start) });
  }
  return left;
}

/** Payloads from here on are kept by reference, smaller ones are gathered into an arena. */
const REFERENCE_BYTES_MIN = 32 * 1024;
const ARENA_BYTES_MIN = 4096;

export type ExtentState = 'dirty' | 'queued' | 'sending' | 'gone';

/**
 * Dirty bytes [start, end) within one slot. Bytes that are in it are never overwritten in place: readers and frames hold
 * views of them.
 */
export class Extent implements Piece {
  start: number;
  end: number;
  parts: Buffer[];
  /** The oldest write in it: see WriteBuffer.closeGeneration. */
  generation: number;
  state: ExtentState = 'dirty';
  /** To be sent as soon as what overlaps it has landed. */
  wanted = false;
  /** To be sent with the SYNC flag. */
  sync = false;
  /** On its way under a session that is over: whether it lands is the servers' to say, and nobody reads it here. */
  unseen = false;
  #arena: Buffer | undefined;
  #arenaUsed = 0;

  constructor(start: number, parts: Buffer[], bytes: number, generation: number) {
    this.start = start;
    this.end = start + bytes;
    this.parts = parts;
    this.generation = generation;
  }

  get length(): number {
    return this.end - this.start;
  }

  /** Adds bytes behind the end. @param room how much this extent may still grow, bytes, these included */
  append(data: Buffer, room: number): void {
    if (data.length >= REFERENCE_BYTES_MIN && data.buffer.byteLength <= 2 * data.length) {
      this.parts.push(data);
      this.#arena = undefined;
    } else {
      this.#appendCopy(data, room);
    }
    this.end += data.length;
  }

  /** A small payload would hold the whole buffer that it came in: it is copied behind the last one. */
  #appendCopy(data: Buffer, room: number): void {
    let arena = this.#arena;
    if (arena && this.#arenaUsed + data.length <= arena.length) {
      const last = this.parts.length - 1;
      const from = this.#arenaUsed - (this.parts[last] as Buffer).length;
      data.copy(arena, this.#arenaUsed);
      this.#arenaUsed += data.length;
      this.parts[last] = arena.subarray(from, this.#arenaUsed);
      return;
    }
    const size = Math.min(room, Math.max(ARENA_BYTES_MIN, data.length, this.length));
    arena = Buffer.allocUnsafeSlow(Math.max(size, data.length));
    data.copy(arena);
    this.#arena = arena;
    this.#arenaUsed = data.length;
    this.parts.push(arena.subarray(0, data.length));
  }

  /** Takes over the bytes of an extent that begins where this one ends. */
  absorb(next: Extent): void {
    this.parts.push(...next.parts);
    this.end = next.end;
    this.#arena = undefined;
  }

  /** Keeps only [start, end). */
  trim(start: number, end: number): void {
    this.parts = sliceParts(this.parts, start - this.start, end - this.start).map(unshared);
    this.start = start;
    this.end = end;
    this.#arena = undefined;
  }
}

/** A small rest of a large buffer is copied, so that the large one can go. */
function unshared(part: Buffer): Buffer {
  return part.length < REFERENCE_BYTES_MIN && part.buffer.byteLength > 4 * part.length
    ? Buffer.from(part)
    : part;
}
