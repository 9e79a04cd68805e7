import fs from 'node:fs';
import { assert } from './assert.js';
import { DIRECT_BLOCK_BYTES, isDirectRefusal, STAGING_BYTES, StagingMemory } from './staging-memory.js';

/** Smaller pieces of a write stay in the page cache, where they cost less and are read again the soonest. */
export const DIRECT_PART_MIN_BYTES = 256 * 1024;

/** Consecutive bytes of a write that take the same way to the disk; of one part alone where they are `direct`. */
export interface WriteRun {
  position: number;
  parts: Buffer[];
  /** Past the page cache: position and length are whole blocks. */
  direct: boolean;
}

/**
 * Splits a write into what is large and lies on whole blocks, to go past the page cache, and the rest. No page has bytes of
 * both, so neither way ever sees half a page of the other.
 */
export function writeRuns(parts: readonly Buffer[], position: number): WriteRun[] {
  const runs: WriteRun[] = [];
  let at = position;
  const add = (bytes: Buffer, direct: boolean): void => {
    if (bytes.length === 0) return;
    const last = runs.at(-1);
    if (last && !last.direct && !direct) last.parts.push(bytes);
    else runs.push({ position: at, parts: [bytes], direct });
    at += bytes.length;
  };
  for (const part of parts) {
    const end = at + part.length;
    const from = Math.ceil(at / DIRECT_BLOCK_BYTES) * DIRECT_BLOCK_BYTES - at;
    const to = Math.floor(end / DIRECT_BLOCK_BYTES) * DIRECT_BLOCK_BYTES - at;
    if (part.length < DIRECT_PART_MIN_BYTES) add(part, false);
    else {
      add(part.subarray(0, from), false);
      add(part.subarray(from, to), true);
      add(part.subarray(to), false);
    }
  }
  return runs;
}

/** Of this process. */
const staging = new StagingMemory();

/**
 * Writes of one file past the page cache (open(2), O_DIRECT). They end when the device has the bytes, in its cache at least:
 * only fdatasync makes them durable, as for all others.
 */
export class DirectWriter {
  #fd?: Promise<number | undefined>;
  /** This file system, or this kernel, does not do it. */
  #refused = false;

  constructor(private readonly path: string) {}

  /**
   * Writes the run and resolves to the bytes that were written: all of them, or fewer where the page cache has to take the rest.
   * @throws the disk's error
   */
  async write(run: WriteRun): Promise<number> {
    const [bytes] = run.parts;
    assert(run.direct && bytes && run.parts.length === 1, 'a direct run is a piece of one part');
    if (this.#refused) return 0;
    this.#fd ??= openDirect(this.path);
    const fd = await this.#fd;
    const slot = fd === undefined ? undefined : await slotFor(fd, bytes, run.position);
    if (fd === undefined || !slot) {
      this.#refused = true;
      return 0;
    }
    try {
      for (let done = 0; done < bytes.length; ) {
        const length = bytes.copy(slot, 0, done, done + STAGING_BYTES);
        const written = await writeOnce(fd, slot, length, run.position + done);
        done += Math.floor(written / DIRECT_BLOCK_BYTES) * DIRECT_BLOCK_BYTES;
        if (written < length) return done;
      }
      return bytes.length;
    } catch (error) {
      if (!isDirectRefusal(error)) throw error;
      this.#refused = true;
      return 0;
    } finally {
      staging.give(slot);
    }
  }

  async close(): Promise<void> {
    const fd = await this.#fd;
    if (fd !== undefined) await new Promise<void>((resolve) => fs.close(fd, () => resolve()));
  }
}

/** Its right place is found by writing the first block of `bytes` to theirs. */
function slotFor(fd: number, bytes: Buffer, position: number): Promise<Buffer | undefined> {
  return staging.take(async (block) => {
    bytes.copy(block);
    try {
      return (await writeOnce(fd, block, DIRECT_BLOCK_BYTES, position)) === DIRECT_BLOCK_BYTES;
    } catch (error) {
      if (isDirectRefusal(error)) return false;
      throw error;
    }
  });
}

function openDirect(path: string): Promise<number | undefined> {
  const flags = fs.constants.O_WRONLY | (fs.constants.O_DIRECT ?? 0);
  return new Promise((resolve, reject) =>
    fs.open(path, flags, (error, fd) => {
      if (!error) return resolve(fd);
      return isDirectRefusal(error) ? resolve(undefined) : reject(error);
    }),
  );
}

function writeOnce(fd: number, bytes: Buffer, length: number, position: number): Promise<number> {
  return new Promise((resolve, reject) =>
    fs.write(fd, bytes, 0, length, position, (error, written) => (error ? reject(error) : resolve(written))),
  );
}
