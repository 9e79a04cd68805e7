import { HoldfastError } from '../../../proto/errors.js';
import { ROOT_INO } from '../../../proto/types.js';
import type { Cells } from '../checkers/cells.js';
import { type ClientMachine, simCaller } from '../client.js';
import { type OpenedFile, readCell, writeCell } from './cell-io.js';
import { type Task, Worker } from './worker.js';

const NAMES = ['turns-0', 'turns-1'];
const O_RDWR = 2;
const MODE = 0o644;
const PAUSE_MS = 500;
/** A file stays open behind a write for so long at most: meanwhile its data may be in this mount alone. */
const OPEN_MAX_MS = 600;
const TOLERATED = new Set(['ENOSPC', 'EIO']);

/** Files that all write, one call at a time: the simulator itself sees to that, so that no message orders the calls. */
export class Turns {
  readonly cells: Cells;
  /** Files of which somebody reads and writes just now. Who dies meanwhile leaves his turn taken: what he sent may yet arrive. */
  readonly taken = new Set<string>();
  readonly isOver: (session: number) => boolean;

  constructor(cells: Cells, isOver: (session: number) => boolean) {
    this.cells = cells;
    this.isOver = isOver;
  }
}

/**
 * A program that opens a file which other mounts write as well, reads it, writes the next number and closes it a little later.
 * Whoever comes next sees that number, though it may still be in the cache of another mount; and what a mount had in its cache
 * when its session ended never comes to light behind what others have written since.
 */
export class TurnsWorker extends Worker {
  readonly #turns: Turns;

  constructor(client: ClientMachine, turns: Turns) {
    super(client, PAUSE_MS);
    this.#turns = turns;
  }

  protected next(): Task {
    const name = NAMES[this.prng.int(NAMES.length)] as string;
    return () => this.#tolerant(() => this.#open(name));
  }

  async #tolerant(call: () => Promise<void>): Promise<void> {
    try {
      await call();
    } catch (error) {
      if (!(error instanceof HoldfastError) || !TOLERATED.has(error.errorName)) throw error;
      this.note(() => `turn: ${error.errorName}`);
    }
  }

  async #open(name: string): Promise<void> {
    const { client, prng } = this;
    const { taken } = this.#turns;
    if (taken.has(name)) return;
    taken.add(name);
    let file: OpenedFile;
    try {
      const { entry, handle } = await client.fs.create(
        simCaller(),
        ROOT_INO,
        Buffer.from(name),
        MODE,
        O_RDWR,
        0,
      );
      file = { ino: entry.attr.ino, handle };
    } catch (error) {
      taken.delete(name);
      throw error;
    }
    try {
      try {
        await this.#turn(name, file);
      } finally {
        taken.delete(name);
      }
      await new Promise<void>((resolve) => client.process.clock.after(prng.float() * OPEN_MAX_MS, resolve));
      await client.fs.flush(simCaller(), file.ino, file.handle, 0n);
    } finally {
      await client.fs.release(file.ino, file.handle, 0);
    }
  }

  async #turn(name: string, file: OpenedFile): Promise<void> {
    const { client, prng } = this;
    const { cells, isOver } = this.#turns;
    const { shutOuts, session } = client;
    const { id } = session;
    const lives = (): boolean => client.shutOuts === shutOuts && id !== 0 && !isOver(id);
    const floor = cells.floor(name);
    const { cuts } = cells;
    const found = await readCell(client, file, 0);
    if (!lives()) return;
    const wrong = cells.check(name, found, floor);
    if (wrong) client.world.fail(new Error(`${client.name} in its turn: ${wrong}`));
    const number = cells.issue(name);
    this.note(() => `${name} = ${number}`);
    await writeCell(client, file, 0, number);
    if (lives() && !cells.wasFull) cells.acknowledged(name, number, cuts);
    if (prng.int(4) > 0) return;
    await client.fs.fsync(simCaller(), file.ino, file.handle, false);
    if (lives()) cells.durable(name, number);
  }

  /** Reads all files once more. */
  async readAll(): Promise<void> {
    for (const name of NAMES) await this.#tolerant(() => this.#open(name));
  }
}
