import type { FileLayout } from '../../../client/data/api.js';
import { HoldfastError } from '../../../proto/errors.js';
import { survived } from '../../../proto/lineage.js';
import { pgOfChunk } from '../../../proto/types.js';
import type { Cells, Floor } from '../checkers/cells.js';
import type { ClientMachine } from '../client.js';
import { CHUNK_SIZE_BYTES } from '../cluster.js';
import { type Task, Worker } from './worker.js';

/** Inode numbers that the namespace does not reach. */
const FIRST_INO = 2 ** 40;
const CHUNKS = 2;
const CELLS_PER_CHUNK = 4;
const CELL_BYTES = 8;
const CELL_STRIDE_BYTES = 1700;

function layout(writer: number): FileLayout {
  return { ino: FIRST_INO + writer, chunkSize: CHUNK_SIZE_BYTES, truncateSeq: 0, truncates: [] };
}

/**
 * Reads and writes chunks without the file system and its caches: what one reader has seen, every later reader must see.
 * Each writer has chunks of its own; readers, programs of their own, read everybody's.
 */
export class BlocksWorker extends Worker {
  readonly #cells: Cells;
  /** 0: it only reads. */
  readonly #id: number;
  readonly #writers: readonly number[];
  readonly #pgs: number;

  constructor(client: ClientMachine, id: number, writers: readonly number[], cells: Cells, pgs: number) {
    super(client, 180);
    this.#id = id;
    this.#writers = writers;
    this.#cells = cells;
    this.#pgs = pgs;
  }

  protected next(): Task {
    const { prng } = this;
    const chunk = prng.int(CHUNKS);
    if (this.#id > 0) return () => this.#write(chunk);
    const writer = this.#writers[prng.int(this.#writers.length)] as number;
    return () => this.beside(() => this.read(writer, chunk));
  }

  static cellName(writer: number, chunk: number, cell: number): string {
    return `blocks ${writer}/${chunk}/${cell}`;
  }

  async #write(chunk: number): Promise<void> {
    const { prng, client } = this;
    const cell = prng.int(CELLS_PER_CHUNK);
    const name = BlocksWorker.cellName(this.#id, chunk, cell);
    const sync = prng.int(3) === 0;
    const { cuts } = this.#cells;
    const number = this.#cells.issue(name);
    const data = Buffer.alloc(CELL_BYTES);
    data.writeUInt32LE(number, 0);
    data.writeUInt32LE(~number >>> 0, 4);
    const file = layout(this.#id);
    try {
      // No byte changes by it.
      if (number % 8 === 0) await client.chunks.reserve(file, chunk, 0, 1 + prng.int(CHUNK_SIZE_BYTES));
      const { version } = await client.chunks.write(file, chunk, cell * CELL_STRIDE_BYTES, [data], sync);
      if (sync) this.#cells.durable(name, number);
      else this.#cells.acknowledged(name, number, cuts);
      if (sync || prng.int(4) > 0) return;
      const lineage = await client.chunks.sync(pgOfChunk(file.ino, chunk, this.#pgs));
      // What all replicas lost before the sync is for the writer to write again: the file system does, this program does not.
      if (survived(version, lineage)) this.#cells.durable(name, number);
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.errorName !== 'ENOSPC') throw error;
    }
  }

  /** Reads a whole chunk. @throws Error when it shows what it must not */
  async read(writer: number, chunk: number): Promise<void> {
    const names = Array.from({ length: CELLS_PER_CHUNK }, (_, cell) =>
      BlocksWorker.cellName(writer, chunk, cell),
    );
    const { cuts } = this.#cells;
    const floors = names.map((name) => this.#cells.floor(name));
    const data = Buffer.alloc(CHUNK_SIZE_BYTES);
    const got = await this.client.chunks.read(layout(writer), chunk, 0, CHUNK_SIZE_BYTES);
    got.copy(data);
    names.forEach((name, cell) => {
      const at = cell * CELL_STRIDE_BYTES;
      const found = data.readUInt32LE(at);
      const torn = found !== 0 && data.readUInt32LE(at + 4) !== ~found >>> 0;
      const wrong = torn ? `cell ${name} is torn` : this.#cells.check(name, found, floors[cell] as Floor);
      if (wrong) throw new Error(`${this.client.name} reads blocks: ${wrong}`);
      this.#cells.seen(name, found, cuts);
    });
  }

  /** Everything that anybody wrote. */
  async readAll(): Promise<void> {
    for (const writer of this.#writers) {
      for (let chunk = 0; chunk < CHUNKS; chunk++) await this.read(writer, chunk);
    }
  }
}
