import fs from 'node:fs';
import { LruMap } from './lru-map.js';
import { DIRECT_BLOCK_BYTES, isDirectRefusal, STAGING_BYTES, StagingMemory } from './staging-memory.js';

/** Smaller reads are made through the page cache, which has what was written in small pieces. */
export const DIRECT_READ_MIN_BYTES = 256 * 1024;
/** What is read again within this time is read through the page cache, and stays there. */
export const READ_AGAIN_MS = 600_000;
/** It is remembered by pieces of this size, so many of a file, of so many files; beyond that it is forgotten. */
const PIECE_BYTES = 1024 * 1024;
const PIECES_MAX = 1024;
const FILES_MAX = 1024;

/** Of this process. */
const staging = new StagingMemory();
/** When pieces were read, ms, by path: files are closed and opened again while they are read. */
const recentReads = new LruMap<string, Map<number, number>>();

/**
 * Large reads of one file past the page cache (open(2), O_DIRECT): the kernel would read ahead behind each of them, up to
 * megabytes, of which a server that keeps many chunks in one file needs little. As in the 2Q algorithm (Johnson and
 * Shasha, 1994) only what is asked for a second time is worth a place in the cache.
 */
export class DirectReader {
  readonly #path: string;
  #fd?: Promise<number | undefined>;
  /** This file system, or this kernel, does not do it. */
  #refused = false;

  constructor(path: string) {
    this.#path = path;
  }

  /** Whether to read here, at this moment; else it is to be read through the page cache. */
  wants(length: number, position: number, now: number): boolean {
    if (length < DIRECT_READ_MIN_BYTES) return false;
    const piece = Math.floor((position + length / 2) / PIECE_BYTES);
    const pieces = recentReads.get(this.#path) ?? new Map<number, number>();
    const before = pieces.get(piece);
    if (pieces.size >= PIECES_MAX) pieces.clear();
    pieces.set(piece, now);
    recentReads.set(this.#path, pieces);
    if (recentReads.size > FILES_MAX) recentReads.shift();
    return !this.#refused && (before === undefined || now - before >= READ_AGAIN_MS);
  }

  /**
   * Fills `target` from `position` on.
   * @returns bytes read, fewer only at the end of the file; undefined: the page cache has to do it
   * @throws the disk's error
   */
  async read(target: Buffer, position: number): Promise<number | undefined> {
    if (this.#refused) return undefined;
    this.#fd ??= openDirect(this.#path);
    const fd = await this.#fd;
    const slot = fd === undefined ? undefined : await slotFor(fd, position);
    if (fd === undefined || !slot) {
      this.#refused = true;
      return undefined;
    }
    try {
      let done = 0;
      while (done < target.length) {
        const wanted = Math.min(STAGING_BYTES, target.length - done);
        const got = await readBlocks(fd, slot, target.subarray(done, done + wanted), position + done);
        done += got;
        if (got < wanted) break;
      }
      return done;
    } catch (error) {
      if (!isDirectRefusal(error)) throw error;
      this.#refused = true;
      return undefined;
    } finally {
      staging.give(slot);
    }
  }

  async close(): Promise<void> {
    const fd = await this.#fd;
    if (fd !== undefined) await new Promise<void>((resolve) => fs.close(fd, () => resolve()));
  }
}

/** Reads the whole blocks that hold what is wanted. @returns bytes of `target` filled */
async function readBlocks(fd: number, slot: Buffer, target: Buffer, position: number): Promise<number> {
  const begin = Math.floor(position / DIRECT_BLOCK_BYTES) * DIRECT_BLOCK_BYTES;
  const end = Math.ceil((position + target.length) / DIRECT_BLOCK_BYTES) * DIRECT_BLOCK_BYTES;
  const skip = position - begin;
  let got = 0;
  while (got < skip + target.length) {
    const read = await readOnce(fd, slot, got, end - begin - got, begin + got);
    got += read;
    // The rest of a block is not to be had in this way: it is where the file ends.
    if (read === 0 || got % DIRECT_BLOCK_BYTES !== 0) break;
  }
  return slot.copy(target, 0, skip, Math.min(got, skip + target.length));
}

/** Its right place is found by reading the block at `position`. */
function slotFor(fd: number, position: number): Promise<Buffer | undefined> {
  const at = Math.floor(position / DIRECT_BLOCK_BYTES) * DIRECT_BLOCK_BYTES;
  return staging.take(async (block) => {
    try {
      // Behind the end of a file the kernel does not look where the memory lies.
      return (await readOnce(fd, block, 0, DIRECT_BLOCK_BYTES, at)) > 0;
    } catch (error) {
      if (isDirectRefusal(error)) return false;
      throw error;
    }
  });
}

/** Whatever is in the way: the file is open already, so that it can be read through the page cache. */
function openDirect(path: string): Promise<number | undefined> {
  const flags = fs.constants.O_RDONLY | (fs.constants.O_DIRECT ?? 0);
  return new Promise((resolve) => fs.open(path, flags, (error, fd) => resolve(error ? undefined : fd)));
}

function readOnce(fd: number, target: Buffer, at: number, length: number, position: number): Promise<number> {
  return new Promise((resolve, reject) =>
    fs.read(fd, target, at, length, position, (error, got) => (error ? reject(error) : resolve(got))),
  );
}
