import { type Deferred, deferred } from '../../../common/deferred.js';
import { HoldfastError } from '../../../proto/errors.js';
import { ROOT_INO } from '../../../proto/types.js';
import { type CellsInput, DONE, HOLE } from '../../histories/cells-model.js';
import { History } from '../checkers/linearizability.js';
import { type ClientMachine, simCaller } from '../client.js';
import { CHUNK_SIZE_BYTES, type Cluster } from '../cluster.js';
import { CELL_BYTES, type OpenedFile } from './cell-io.js';
import { type Task, Worker } from './worker.js';

const O_RDWR = 2;
const O_APPEND = 0o2000;
const MODE = 0o644;
const PAUSE_MS = 15;
/** Then another file takes its place: longer histories take longer to decide. */
const OPERATIONS_OF_A_FILE = 120;
/** Two in the first chunk, and one in the next. */
const PLACES = [0, 16, CHUNK_SIZE_BYTES + 64];
const SIZES = [0, 8, CHUNK_SIZE_BYTES + 72, CHUNK_SIZE_BYTES + 72];
const HELD_UP_MS = 150;
const HELD_UP_PAUSE_MS = 100;
const NOTHING = '\0'.repeat(CELL_BYTES);
/** What becomes of the call is not known then. */
const OPEN_ENDED = new Set(['EIO', 'ENOSPC', 'ESTALE']);

/** A file that all mounts have open at the same time, and what each call on it was answered. */
interface SharedFile {
  readonly name: string;
  readonly history: History<CellsInput, string>;
  /** What was acknowledged may be gone: power or a session was lost, or a disk was full. */
  void: boolean;
  /** By whoever uses it first: calls at once that make one name on one mount are not a kernel's. */
  made: Deferred<void> | undefined;
}

/** Files that all mounts write, append to, truncate and read at once. */
export class Shared {
  readonly #files: SharedFile[] = [];
  #full = false;
  #values = 0;

  /** The one to work on now. */
  get present(): SharedFile {
    const last = this.#files.at(-1);
    if (last && (!last.void || this.#full) && last.history.operations.length < OPERATIONS_OF_A_FILE)
      return last;
    const file = {
      name: `shared-${this.#files.length}`,
      history: new History<CellsInput, string>(),
      void: this.#full,
      made: undefined,
    };
    this.#files.push(file);
    return file;
  }

  /** Those whose histories can be judged. */
  get sound(): SharedFile[] {
    return this.#files.filter((file) => !file.void);
  }

  /** A disk is full: from now on a write may fail behind its call. */
  diskFull(): void {
    this.#full = true;
    this.lost();
  }

  /** What is not synced may be gone. */
  lost(): void {
    for (const file of this.#files) {
      file.void = true;
      // Its maker may be gone.
      file.made?.reject(new HoldfastError('ESTALE'));
    }
  }

  /** A value that nobody else writes. */
  value(): string {
    return (++this.#values).toString().padStart(CELL_BYTES, '.');
  }

  /** Calls in histories that can be judged. */
  get judged(): number {
    return this.sound.reduce((sum, { history }) => sum + history.operations.length, 0);
  }
}

/** Again and again what one client sends to one chunkserver is held up for a while, and meanwhile others truncate the file. */
export function holdWritesUp({ world, clients, chunks }: Cluster): void {
  const { prng, time, network } = world;
  const again = (): void => {
    const client = clients[prng.int(clients.length)]?.name;
    const server = chunks[prng.int(chunks.length)]?.name;
    if (client && server) time.after(prng.float() * HELD_UP_MS, network.cut(client, server));
    time.after(prng.float() * HELD_UP_PAUSE_MS, again);
  };
  again();
}

/** A program that makes one random call after the other on the file that all use, and notes what it was answered. */
export class SharedWorker extends Worker {
  readonly #shared: Shared;
  readonly #readOnly: boolean;
  readonly #id: string;
  #open: { file: SharedFile; opened: OpenedFile } | undefined;
  #lastSize = 0;

  /** @param readOnly it only looks */
  constructor(client: ClientMachine, shared: Shared, readOnly: boolean) {
    super(client, PAUSE_MS);
    this.#shared = shared;
    this.#readOnly = readOnly;
    this.#id = `${client.name}${readOnly ? ' reading' : ''}`;
  }

  protected next(): Task {
    return () => this.#tolerant(() => this.#work());
  }

  /** Reads all of each file whose history can be judged. */
  async readAll(): Promise<void> {
    for (const file of this.#shared.sound) {
      await this.#tolerant(async () => {
        const { opened } = await this.#opened(file);
        await this.#call(file, opened, { kind: 'size' });
        for (const at of PLACES) await this.#call(file, opened, { kind: 'pread', at });
      });
    }
    await this.#tolerant(() => this.#close());
  }

  async #tolerant(call: () => Promise<unknown>): Promise<void> {
    try {
      await call();
    } catch (error) {
      if (!(error instanceof HoldfastError) || !OPEN_ENDED.has(error.errorName)) throw error;
      this.note(() => `${this.#id}: ${error.message}`);
      // What belongs to a session that is over is opened anew.
      if (this.client.shutOuts > 0) this.#open = undefined;
    }
  }

  async #work(): Promise<void> {
    if (this.prng.int(20) === 0) await this.#close();
    const { file, opened } = await this.#opened(this.#shared.present);
    await this.#call(file, opened, this.#choose());
  }

  #choose(): CellsInput {
    const { prng } = this;
    const at = prng.int(3) === 0 ? Math.max(0, this.#lastSize - CELL_BYTES) : this.#pick(PLACES);
    const choice = prng.int(12);
    if (this.#readOnly) return choice < 8 ? { kind: 'pread', at } : { kind: 'size' };
    if (choice < 6) return { kind: 'pwrite', at, value: this.#shared.value() };
    if (choice < 7) return { kind: 'append', value: this.#shared.value() };
    return choice < 11 ? { kind: 'truncate', size: this.#pick(SIZES) } : { kind: 'size' };
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.prng.int(list.length)] as T;
  }

  async #opened(file: SharedFile): Promise<{ file: SharedFile; opened: OpenedFile }> {
    if (this.#open?.file === file) return this.#open;
    await this.#close();
    const { fs } = this.client;
    const name = Buffer.from(file.name);
    if (!file.made) {
      file.made = deferred();
      this.#make(name).then(file.made.resolve, file.made.reject);
    }
    await file.made.promise;
    const { ino } = (await fs.lookup(simCaller(), ROOT_INO, name)).attr;
    const { handle } = await fs.open(simCaller(), ino, O_RDWR, false);
    this.#open = { file, opened: { ino, handle } };
    return this.#open;
  }

  async #make(name: Buffer): Promise<void> {
    const { fs } = this.client;
    const { entry, handle } = await fs.create(simCaller(), ROOT_INO, name, MODE, O_RDWR, 0);
    await fs.fsync(simCaller(), entry.attr.ino, handle, false);
    await fs.release(entry.attr.ino, handle, 0);
  }

  async #close(): Promise<void> {
    const open = this.#open?.opened;
    this.#open = undefined;
    if (!open) return;
    try {
      await this.client.fs.flush(simCaller(), open.ino, open.handle, 0n);
    } finally {
      await this.client.fs.release(open.ino, open.handle, 0);
    }
  }

  async #call({ name, history }: SharedFile, opened: OpenedFile, input: CellsInput): Promise<void> {
    const answered = history.call(this.#id, input);
    this.note(() => `${this.#id} ${name} ${JSON.stringify(input)}`);
    const output = await this.#ask(opened, input);
    answered(output);
    this.note(() => `${this.#id} ${name} ${JSON.stringify(input)} -> ${output}`);
  }

  async #ask(opened: OpenedFile, input: CellsInput): Promise<string> {
    const { fs } = this.client;
    const { ino, handle } = opened;
    switch (input.kind) {
      case 'pwrite':
        await this.#write(opened, input.at, input.value, 0);
        return DONE;
      case 'append':
        await this.#write(opened, 0, input.value, O_APPEND);
        return DONE;
      case 'truncate':
        await fs.setattr(simCaller(), ino, { size: input.size, handle });
        return DONE;
      case 'pread': {
        const parts = await fs.read(simCaller(), ino, handle, input.at, CELL_BYTES);
        const found = Buffer.concat(parts).toString('latin1');
        return found === NOTHING ? HOLE : found;
      }
      case 'size': {
        const { attr } = await fs.getattr(simCaller(), ino, handle);
        this.#lastSize = attr.size;
        return String(attr.size);
      }
    }
  }

  async #write({ ino, handle }: OpenedFile, offset: number, value: string, flags: number): Promise<void> {
    const data = Buffer.from(value);
    const request = { handle, offset, data, fromCache: false, killPriv: false, flags };
    await this.client.fs.write(simCaller(), ino, request);
  }
}
