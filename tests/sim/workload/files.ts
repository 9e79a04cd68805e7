import { HoldfastError } from '../../../proto/errors.js';
import { ROOT_INO } from '../../../proto/types.js';
import type { Cells } from '../checkers/cells.js';
import { type ClientMachine, simCaller } from '../client.js';
import { type Task, Worker } from './worker.js';

const O_RDWR = 2;
const O_EXCL = 0o200;
const FALLOC_FL_KEEP_SIZE = 1;
const CELLS = 10;
const CELL_BYTES = 8;
/** The cells of a file lie in three chunks. */
const CELL_STRIDE_BYTES = 2300;
const FILE_BYTES = CELLS * CELL_STRIDE_BYTES;
const MODE = 0o644;
const FAILED = ['ENOSPC', 'EIO'];
const GONE = ['ESTALE', 'ENOENT'];

function fileOf(client: string): string {
  return `file-${client}`;
}

interface Written {
  number: number;
  cuts: number;
  /** Of the client, until then. */
  shutOuts: number;
}

/** What every worker may know of the files of all. */
export class Files {
  readonly names: string[] = [];
  nextTemporary = 1;
  readonly cells: Cells;
  /** Made and not yet certain: it goes with its maker's machine if that dies first. */
  readonly #uncertain = new Map<string, ClientMachine>();

  constructor(cells: Cells) {
    this.cells = cells;
  }

  made(name: string, maker: ClientMachine): void {
    if (this.names.includes(name)) return;
    this.names.push(name);
    this.#uncertain.set(name, maker);
  }

  /** It was synced. */
  synced(name: string): void {
    this.#uncertain.delete(name);
  }

  /** Somebody has opened it: what another machine has seen stays. */
  seen(name: string, by: ClientMachine): void {
    if (this.#uncertain.get(name) !== by) this.#uncertain.delete(name);
  }

  /** Somebody does not find it. @returns whether it may be gone */
  missed(name: string): boolean {
    const maker = this.#uncertain.get(name);
    if (!maker || (maker.process.alive && maker.shutOuts === 0)) return false;
    const at = this.names.indexOf(name);
    if (at >= 0) this.names.splice(at, 1);
    return true;
  }

  /** A machine is gone, or shut out, and with it what was closed there, but not synced and not yet written back. */
  sessionOver(client: ClientMachine): void {
    this.cells.writerDied(`${fileOf(client.name)}/`);
  }
}

/** A program that writes one file through the file system, syncs it now and then, and reads those of others. */
export class FilesWorker extends Worker {
  readonly #files: Files;
  readonly #name: string;
  #ino = 0;
  #handle = 0;
  /** The session in which the file was opened: with the next one it may be gone, if it was made then. */
  #openedIn = 0;
  /** What this program wrote last, where nothing went wrong since; with the number of power cuts before it. */
  readonly #written = new Map<number, Written>();

  constructor(client: ClientMachine, files: Files) {
    super(client, 150);
    this.#files = files;
    this.#name = fileOf(client.name);
  }

  protected next(): Task {
    const { prng } = this;
    if (this.#handle === 0) return () => this.#open();
    const kind = prng.int(20);
    if (kind < 8) return () => this.#write();
    if (kind < 10) return () => this.#sync();
    if (kind < 11) return () => this.#allocate();
    if (kind < 12) return () => this.#reopen();
    if (kind < 14) return () => this.#readOwn();
    if (kind < 15) return () => this.#truncate();
    if (kind < 16) return () => this.#temporary();
    const { names } = this.#files;
    const other = names[prng.int(names.length)];
    return other ? () => this.readFile(other) : () => this.#write();
  }

  #cell(index: number, name = this.#name): string {
    return `${name}/${index}`;
  }

  async #open(): Promise<void> {
    const { fs, session } = this.client;
    this.#openedIn = session.id;
    const reply = await fs.create(simCaller(), ROOT_INO, Buffer.from(this.#name), MODE, O_RDWR, 0);
    this.#handle = reply.handle;
    this.#ino = reply.entry.attr.ino;
    this.#files.made(this.#name, this.client);
  }

  /**
   * Disk full and failed writes are reported and lose what was not synced, as the end of the session does, which may also take
   * a file that was not certain; everything else ends the run.
   */
  async #tolerant(call: () => Promise<void>): Promise<void> {
    try {
      await call();
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error;
      const gone = GONE.includes(error.errorName) && this.client.shutOuts > 0;
      if (!gone && !FAILED.includes(error.errorName)) throw error;
      if (gone) this.#handle = 0;
      this.client.world.trace.note(`${this.#name} ${error.errorName}`, undefined);
      this.#written.clear();
    }
  }

  #write(): Promise<void> {
    const { prng, client } = this;
    return this.#tolerant(async () => {
      for (let count = 1 + prng.int(3); count > 0; count--) {
        const index = prng.int(CELLS);
        const number = this.#files.cells.issue(this.#cell(index));
        this.#written.delete(index);
        const data = Buffer.alloc(CELL_BYTES);
        data.writeUInt32LE(number, 0);
        data.writeUInt32LE(~number >>> 0, 4);
        const offset = index * CELL_STRIDE_BYTES;
        const request = { handle: this.#handle, offset, data, fromCache: false, killPriv: false, flags: 0 };
        this.note(() => `${this.#cell(index)} = ${number}`);
        // A power cut while it was written may have taken it.
        const { cuts } = this.#files.cells;
        const { shutOuts } = client;
        await client.fs.write(simCaller(), this.#ino, request);
        this.#written.set(index, { number, cuts, shutOuts });
      }
    });
  }

  #sync(): Promise<void> {
    return this.#tolerant(async () => {
      const written = [...this.#written];
      this.note(() => `fsync ${this.#name} ${JSON.stringify(written)}`);
      await this.client.fs.fsync(simCaller(), this.#ino, this.#handle, false);
      if (this.client.session.id === this.#openedIn) this.#files.synced(this.#name);
      for (const [index, { number }] of written) this.#files.cells.durable(this.#cell(index), number);
      this.note(() => `synced ${this.#name}`);
    });
  }

  /** Closes and opens again: what is closed is there for all. */
  #reopen(): Promise<void> {
    return this.#tolerant(async () => {
      const { fs } = this.client;
      const written = [...this.#written];
      const handle = this.#handle;
      this.#handle = 0;
      try {
        await fs.flush(simCaller(), this.#ino, handle, 0n);
        for (const [index, { number, cuts, shutOuts }] of written) {
          if (!this.#files.cells.wasFull && shutOuts === this.client.shutOuts)
            this.#files.cells.acknowledged(this.#cell(index), number, cuts);
        }
      } finally {
        await fs.release(this.#ino, handle, 0);
      }
    });
  }

  #readOwn(): Promise<void> {
    return this.#tolerant(async () => {
      const data = await this.#read(this.#ino, this.#handle);
      for (const [index, { number, cuts, shutOuts }] of this.#written) {
        if (shutOuts !== this.client.shutOuts || cuts !== this.#files.cells.cuts || this.#files.cells.wasFull)
          continue;
        const found = data.readUInt32LE(index * CELL_STRIDE_BYTES);
        const floor = this.#files.cells.floor(this.#cell(index));
        // A truncate empties a cell under a number of its own.
        floor.visible = Math.max(floor.visible, number);
        const wrong = this.#files.cells.check(this.#cell(index), found, floor);
        if (found !== number && wrong) throw new Error(`${this.client.name} reads its own file: ${wrong}`);
      }
    });
  }

  #truncate(): Promise<void> {
    const { prng, client } = this;
    return this.#tolerant(async () => {
      const from = prng.int(CELLS);
      const emptied: [number, number][] = [];
      for (let index = from; index < CELLS; index++) {
        this.#written.delete(index);
        emptied.push([index, this.#files.cells.empty(this.#cell(index))]);
      }
      const size = from * CELL_STRIDE_BYTES;
      this.note(() => `truncate ${this.#name} from cell ${from}`);
      await client.fs.setattr(simCaller(), this.#ino, { size, handle: this.#handle });
      for (const [index, number] of emptied) this.#files.cells.durable(this.#cell(index), number);
    });
  }

  /** Changes no byte: what is made longer by it reads as zeros, and what is reserved, too. */
  #allocate(): Promise<void> {
    const { prng, client } = this;
    return this.#tolerant(async () => {
      const at = prng.int(FILE_BYTES);
      const length = 1 + prng.int(FILE_BYTES - at);
      const mode = prng.int(2) === 0 ? 0 : FALLOC_FL_KEEP_SIZE;
      this.note(() => `fallocate ${this.#name} ${at}+${length} ${mode}`);
      await client.fs.fallocate(simCaller(), this.#ino, this.#handle, mode, at, length);
    });
  }

  /** A file without a name lives until it is closed. */
  #temporary(): Promise<void> {
    const { client, prng } = this;
    const { fs } = client;
    return this.#tolerant(async () => {
      const name = Buffer.from(`tmp-${this.#files.nextTemporary++}`);
      const flags = O_RDWR | O_EXCL;
      const { entry, handle } = await fs.create(simCaller(), ROOT_INO, name, MODE, flags, 0);
      const { ino } = entry.attr;
      const data = Buffer.alloc(64, prng.int(255) + 1);
      const session = client.session.id;
      try {
        const request = { handle, offset: 0, data, fromCache: false, killPriv: false, flags: 0 };
        await fs.write(simCaller(), ino, request);
        await fs.fsync(simCaller(), ino, handle, false);
        await fs.unlink(simCaller(), ROOT_INO, name);
        await new Promise<void>((resolve) => client.process.clock.after(prng.float() * 1500, resolve));
        const found = Buffer.concat(await fs.read(simCaller(), ino, handle, 0, data.length));
        // Who was shut out has nothing open any more, and nobody keeps a file without a name for it.
        if (session !== client.session.id || client.shutOuts > 0) return;
        if (!found.equals(data)) throw new Error(`${client.name}: an open file without a name lost its data`);
      } finally {
        await fs.release(ino, handle, 0);
      }
    });
  }

  async #read(ino: number, handle: number): Promise<Buffer> {
    const data = Buffer.alloc(FILE_BYTES);
    Buffer.concat(await this.client.fs.read(simCaller(), ino, handle, 0, FILE_BYTES)).copy(data);
    return data;
  }

  /** Opens a file and reads all of it: everything that was closed or synced before the open is there. */
  async readFile(name: string): Promise<void> {
    const { fs, world } = this.client;
    const floors = Array.from({ length: CELLS }, (_, index) =>
      this.#files.cells.floor(this.#cell(index, name)),
    );
    const ino = await this.#lookup(name);
    if (ino === undefined) return;
    const { handle } = await fs.open(simCaller(), ino, 0);
    const data = await this.#read(ino, handle);
    await fs.release(ino, handle, 0);
    floors.forEach((floor, index) => {
      const at = index * CELL_STRIDE_BYTES;
      const found = data.readUInt32LE(at);
      const torn = found !== 0 && data.readUInt32LE(at + 4) !== ~found >>> 0;
      const cell = this.#cell(index, name);
      const wrong = torn ? `cell ${cell} is torn` : this.#files.cells.check(cell, found, floor);
      if (wrong) world.fail(new Error(`${this.client.name} reads ${name}: ${wrong}`));
    });
  }

  /** @returns undefined: it went with its maker, which may be */
  async #lookup(name: string): Promise<number | undefined> {
    const { fs } = this.client;
    try {
      const { attr } = await fs.lookup(simCaller(), ROOT_INO, Buffer.from(name));
      this.#files.seen(name, this.client);
      return attr.ino;
    } catch (error) {
      if (error instanceof HoldfastError && error.errorName === 'ENOENT' && this.#files.missed(name)) {
        return undefined;
      }
      throw error;
    }
  }

  async readAll(): Promise<void> {
    for (const name of [...this.#files.names]) await this.readFile(name);
  }
}
