import fs from 'node:fs';
import { assert } from './assert.js';

/** Place and length of what goes past the page cache are multiples of it: at least the block size of any usual disk. */
const DIRECT_BLOCK_BYTES = 4096;
/** Smaller pieces of a write stay in the page cache, where they cost less and are read again the soonest. */
export const DIRECT_PART_MIN_BYTES = 256 * 1024;
/** What one system call takes: through memory of this size, which is used again and again. */
const STAGING_BYTES = 1024 * 1024;
/** Writes past the page cache under way in this process at once; more wait for memory. */
const STAGING_SLOTS = 4;
/** Where malloc(3) places memory: the steps in which its right place is looked for. */
const BUFFER_ALIGNMENT_BYTES = 16;

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

/**
 * Memory at an address that the kernel takes for O_DIRECT: on a boundary that depends on the disk, and a Buffer of Node does not
 * tell where it lies.
 */
class StagingMemory {
  private readonly free: Buffer[] = [];
  private readonly waiting: ((slot: Buffer) => void)[] = [];

  private constructor(memory: Buffer, at: number) {
    for (let slot = 0; slot < STAGING_SLOTS; slot++) {
      this.free.push(memory.subarray(at + slot * STAGING_BYTES, at + (slot + 1) * STAGING_BYTES));
    }
  }

  /** Finds such memory by trial. @param takes one block: false where it lies wrong @throws what `takes` throws */
  static async find(takes: (block: Buffer) => Promise<boolean>): Promise<StagingMemory | undefined> {
    const memory = Buffer.allocUnsafeSlow(STAGING_SLOTS * STAGING_BYTES + DIRECT_BLOCK_BYTES);
    for (let at = 0; at < DIRECT_BLOCK_BYTES; at += BUFFER_ALIGNMENT_BYTES) {
      if (await takes(memory.subarray(at, at + DIRECT_BLOCK_BYTES))) return new StagingMemory(memory, at);
    }
    return undefined;
  }

  take(): Promise<Buffer> {
    const slot = this.free.pop();
    return slot ? Promise.resolve(slot) : new Promise((resolve) => this.waiting.push(resolve));
  }

  give(slot: Buffer): void {
    const next = this.waiting.shift();
    if (next) next(slot);
    else this.free.push(slot);
  }
}

/** Of this process, once it is found: by a file whose file system takes such writes. */
let staging: StagingMemory | undefined;

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
    const memory = fd === undefined ? undefined : await stagingFor(fd, bytes, run.position);
    if (fd === undefined || !memory) {
      this.#refused = true;
      return 0;
    }
    const slot = await memory.take();
    try {
      for (let done = 0; done < bytes.length; ) {
        const length = bytes.copy(slot, 0, done);
        const written = await writeOnce(fd, slot, length, run.position + done);
        done += Math.floor(written / DIRECT_BLOCK_BYTES) * DIRECT_BLOCK_BYTES;
        if (written < length) return done;
      }
      return bytes.length;
    } catch (error) {
      if (!isRefusal(error)) throw error;
      this.#refused = true;
      return 0;
    } finally {
      memory.give(slot);
    }
  }

  async close(): Promise<void> {
    const fd = await this.#fd;
    if (fd !== undefined) await new Promise<void>((resolve) => fs.close(fd, () => resolve()));
  }
}

/** It is found by writing the first block of `bytes` to its place. */
async function stagingFor(fd: number, bytes: Buffer, position: number): Promise<StagingMemory | undefined> {
  if (staging) return staging;
  const found = await StagingMemory.find(async (block) => {
    bytes.copy(block);
    try {
      return (await writeOnce(fd, block, DIRECT_BLOCK_BYTES, position)) === DIRECT_BLOCK_BYTES;
    } catch (error) {
      if (isRefusal(error)) return false;
      throw error;
    }
  });
  staging ??= found;
  return staging;
}

/** Not possible here, rather than failed. */
function isRefusal(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'EINVAL' || code === 'EOPNOTSUPP';
}

function openDirect(path: string): Promise<number | undefined> {
  const flags = fs.constants.O_WRONLY | (fs.constants.O_DIRECT ?? 0);
  return new Promise((resolve, reject) =>
    fs.open(path, flags, (error, fd) => {
      if (!error) return resolve(fd);
      return isRefusal(error) ? resolve(undefined) : reject(error);
    }),
  );
}

function writeOnce(fd: number, bytes: Buffer, length: number, position: number): Promise<number> {
  return new Promise((resolve, reject) =>
    fs.write(fd, bytes, 0, length, position, (error, written) => (error ? reject(error) : resolve(written))),
  );
}
