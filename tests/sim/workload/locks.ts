import { HoldfastError } from '../../../proto/errors.js';
import { ROOT_INO } from '../../../proto/types.js';
import type { Cells } from '../checkers/cells.js';
import { type ClientMachine, simCaller } from '../client.js';
import { CELL_BYTES, readCell, writeCell } from './cell-io.js';
import { type Task, Worker } from './worker.js';

const NAME = Buffer.from('locked');
const O_RDWR = 2;
const MODE = 0o644;
const HOLD_MAX_MS = 300;
/** One cell for each kind of lock: they do not see each other. */
const KINDS = ['flock', 'fcntl'] as const;
const TOLERATED = new Set(['ENOSPC', 'EIO']);

type Kind = (typeof KINDS)[number];

interface Holder {
  client: ClientMachine;
  /** The session in which it was granted. */
  session: number;
}

/** One file for all, and who believes to hold which lock on it. */
export class Locks {
  readonly cells: Cells;
  readonly holders = new Map<Kind, Holder>();
  granted = 0;
  /** Whether a session is over: its locks went with it. */
  readonly isOver: (session: number) => boolean;

  constructor(cells: Cells, isOver: (session: number) => boolean) {
    this.cells = cells;
    this.isOver = isOver;
  }

  /**
   * @returns false: it was granted in a session that is over by now, which its client has not heard yet
   * @throws Error somebody else holds it
   */
  take(kind: Kind, client: ClientMachine): boolean {
    const session = client.session.id;
    if (session === 0 || this.isOver(session)) return false;
    const other = this.holders.get(kind);
    if (other && other.client !== client && other.client.process.alive && !this.isOver(other.session)) {
      throw new Error(`${client.name} was granted the ${kind} lock that ${other.client.name} holds`);
    }
    this.holders.set(kind, { client, session });
    this.granted++;
    return true;
  }

  release(kind: Kind, client: ClientMachine): void {
    if (this.holders.get(kind)?.client === client) this.holders.delete(kind);
  }
}

/**
 * A program that changes a cell which all mounts change, under a lock: it sees what the last holder wrote, whether that was
 * synced or not, and what it writes itself is there for the next one.
 */
export class LocksWorker extends Worker {
  readonly #locks: Locks;
  readonly #owner: bigint;
  #ino = 0;
  #handle = 0;
  /** The client's shutOuts when the file was opened. */
  #openedAt = 0;

  constructor(client: ClientMachine, locks: Locks, owner: number) {
    super(client, 300);
    this.#locks = locks;
    this.#owner = BigInt(owner);
  }

  protected next(): Task {
    const kind = KINDS[this.prng.int(KINDS.length)] as Kind;
    return () => this.#underLock(kind);
  }

  async #underLock(kind: Kind): Promise<void> {
    if (this.#handle === 0 || this.#openedAt !== this.client.shutOuts) await this.#open();
    await this.#lock(kind, 'write');
    const { shutOuts } = this.client;
    // A file that was made in a session which is over may never have come to the servers: it is another one than everybody's.
    if (this.#openedAt !== shutOuts) {
      await this.#lock(kind, 'unlock');
      return;
    }
    const granted = this.#locks.take(kind, this.client);
    try {
      if (granted) await this.#change(kind, shutOuts);
    } catch (error) {
      if (!(error instanceof HoldfastError) || !TOLERATED.has(error.errorName)) throw error;
      this.note(() => `locked ${kind}: ${error.errorName}`);
    } finally {
      this.#locks.release(kind, this.client);
      await this.#lock(kind, 'unlock');
    }
  }

  async #open(): Promise<void> {
    const { fs, shutOuts } = this.client;
    if (this.#handle !== 0) await fs.release(this.#ino, this.#handle, 0);
    this.#handle = 0;
    const { entry, handle } = await fs.create(simCaller(), ROOT_INO, NAME, MODE, O_RDWR, 0);
    this.#ino = entry.attr.ino;
    this.#handle = handle;
    this.#openedAt = shutOuts;
  }

  #lock(kind: Kind, type: 'write' | 'unlock'): Promise<void> {
    const lock = { start: 0, end: Number.MAX_SAFE_INTEGER, type, pid: 1 };
    const how = { wait: true, flock: kind === 'flock' };
    return this.client.fs.setlk(simCaller(), this.#ino, this.#handle, this.#owner, lock, how);
  }

  /** @param shutOuts of this client when the lock was granted: a lock that went with a session guards nothing */
  async #change(kind: Kind, shutOuts: number): Promise<void> {
    const { prng, client } = this;
    const { fs } = client;
    const { cells } = this.#locks;
    const name = `locked ${kind}`;
    const offset = KINDS.indexOf(kind) * CELL_BYTES;
    const floor = cells.floor(name);
    const { cuts } = cells;
    const file = { ino: this.#ino, handle: this.#handle };
    const found = await readCell(client, file, offset);
    if (client.shutOuts !== shutOuts) return;
    const wrong = cells.check(name, found, floor);
    if (wrong) client.world.fail(new Error(`${client.name} reads under a lock: ${wrong}`));
    const number = cells.issue(name);
    this.note(() => `locked ${kind} = ${number}`);
    await writeCell(client, file, offset, number);
    if (!cells.wasFull) cells.acknowledged(name, number, cuts);
    await new Promise<void>((resolve) => client.process.clock.after(prng.float() * HOLD_MAX_MS, resolve));
    if (prng.int(3) > 0) return;
    await fs.fsync(simCaller(), this.#ino, this.#handle, false);
    cells.durable(name, number);
  }
}
