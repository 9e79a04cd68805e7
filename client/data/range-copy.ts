import { toHoldfastError } from '../../proto/errors.js';
import { type Interrupt, throwIfInterrupted } from '../wait.js';
import type { ChunkApi } from './api.js';
import type { FileData } from './file-data.js';

/** Shorter ranges are copied here: the servers' detour would not pay. */
export const COPY_BY_SERVERS_BYTES_MIN = 128 * 1024;
/** Pieces of one copy that the servers work on at a time. */
const COPY_PIECES_AT_ONCE = 4;

/** What may end a copy before its time. */
export interface CopyEnds {
  readonly signal: Interrupt;
  /** Whether others wait for the target: no further pieces are begun then. */
  isWanted(): boolean;
}

/** Bytes [at, at + length) of the source go to [to, to + length) of the target; within one chunk of each. */
interface Piece {
  at: number;
  to: number;
  length: number;
}

function piecesOf(from: FileData, to: FileData, range: Piece): Piece[] {
  const pieces: Piece[] = [];
  for (let done = 0; done < range.length; ) {
    const [at, target] = [range.at + done, range.to + done];
    const left = [
      range.length - done,
      from.chunkSize - (at % from.chunkSize),
      to.chunkSize - (target % to.chunkSize),
    ];
    const length = Math.min(...left);
    pieces.push({ at, to: target, length });
    done += length;
  }
  return pieces;
}

/**
 * Has the servers copy bytes from file to file. What is dirty of either goes to them first; what they have copied counts as
 * written here and not synced: a sync that finds it lost reports EIO, for there are no bytes here to write again.
 * @returns how many bytes from the start of the range are copied; the rest has to be copied here
 * @throws HoldfastError EINTR when `signal` aborts before anything was copied
 */
export async function copyByServers(
  chunks: ChunkApi,
  from: FileData,
  to: FileData,
  range: Piece,
  { signal, isWanted }: CopyEnds,
): Promise<number> {
  if (!chunks.copy) return 0;
  await from.flush();
  await to.flush();
  let done = 0;
  const pieces = piecesOf(from, to, range);
  for (let next = 0; next < pieces.length; next += COPY_PIECES_AT_ONCE) {
    if (done === 0) throwIfInterrupted(signal);
    else if (signal?.aborted || isWanted()) return done;
    const copies = pieces
      .slice(next, next + COPY_PIECES_AT_ONCE)
      .map((piece) => copyPiece(chunks, from, to, piece));
    const copied = await Promise.all(copies);
    for (const bytes of copied) {
      if (bytes === 0) return done;
      done += bytes;
    }
  }
  return done;
}

/** @returns its length, or 0: it was not copied */
async function copyPiece(chunks: ChunkApi, from: FileData, to: FileData, piece: Piece): Promise<number> {
  const source = {
    file: from,
    chunk: Math.floor(piece.at / from.chunkSize),
    offset: piece.at % from.chunkSize,
  };
  const chunk = Math.floor(piece.to / to.chunkSize);
  const end = piece.to + piece.length;
  const copied = chunks.copy?.(to, chunk, piece.to % to.chunkSize, piece.length, source).then(
    async (written) => {
      to.landed(await chunks.pgOf(to.ino, chunk), written, piece.to, end);
      return piece.length;
    },
    // The copy through this process meets what is wrong again, and reports it.
    (error: unknown) => {
      toHoldfastError(error);
      return 0;
    },
  );
  return copied ? to.duringSend(end, copied) : 0;
}
