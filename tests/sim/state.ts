import { assert } from '../../common/assert.js';
import { type Disk, readWholeFile } from '../../common/disk.js';
import type { MemoryDisk } from '../../common/memory-disk.js';
import type { Prng } from '../../common/prng.js';
import type { KvEntry, KvTransaction, KvView } from '../../metaserver/store/kv.js';
import { MemoryKv } from '../../metaserver/store/memory-kv.js';
import { type OverlayEntry, overlayKey } from '../../metaserver/store/overlay.js';
import { SEAL_BYTES, seal, unseal } from '../../metaserver/store/seal.js';
import type { FailureListener, StoreFiles } from '../../metaserver/store/store-files.js';
import { HoldfastError } from '../../proto/errors.js';
import type { SimProcess } from './process.js';

const FLUSH_MAX_MS = 300;

export interface SimStoreDeps {
  process: SimProcess;
  /** As the process sees it. */
  disk: Disk;
  /** Behind it. */
  memoryDisk: MemoryDisk;
  prng: Prng;
  /** A planted bug: values are believed whatever their seals say. */
  believesAll: boolean;
}

/** A state as a life of a metaserver leaves it. */
export interface LeftState {
  image: Buffer;
  /** Bits of it have changed by themselves. */
  isDamaged: boolean;
}

/** A record of which a bit has changed where it lies. */
interface Damage {
  entry: OverlayEntry;
  /** Value and seal. */
  stored: Buffer;
}

function damaged(what: string): HoldfastError {
  return new HoldfastError('CORRUPT', `the store of the simulation holds ${what}`);
}

/** A store in memory that is flushed behind, is copied to the simulated disk, and seals its values as LMDB's does. */
class SimKv extends MemoryKv {
  readonly #deps: SimStoreDeps;
  readonly #onFailure: FailureListener | undefined;
  readonly #badCopies: Set<string>;
  /** By the key of the overlay; void once the record is another one. */
  readonly #damage = new Map<string, Damage>();
  #failure: HoldfastError | undefined;

  /** @param badCopies is told which copies are those of a damaged state */
  constructor(
    deps: SimStoreDeps,
    image: Buffer | undefined,
    badCopies: Set<string>,
    onFailure: FailureListener | undefined,
  ) {
    super(image);
    this.#deps = deps;
    this.#badCopies = badCopies;
    this.#onFailure = onFailure;
  }

  override get(key: Buffer): Buffer | undefined {
    if (this.#damage.size === 0) return super.get(key);
    const entry = this.entries.get(overlayKey(key));
    return entry && this.#opened(entry);
  }

  override range(
    start: Buffer,
    end: Buffer,
    options: { limit?: number; reverse?: boolean } = {},
  ): Iterable<KvEntry> {
    const entries = super.range(start, end, options);
    return this.#damage.size === 0 ? entries : this.#openedRange(entries);
  }

  *#openedRange(entries: Iterable<KvEntry>): Generator<KvEntry> {
    for (const entry of entries) yield { key: entry.key, value: this.#opened(entry) as Buffer };
  }

  #opened(entry: OverlayEntry): Buffer | undefined {
    const damage = this.#damage.get(overlayKey(entry.key));
    if (damage?.entry !== entry) return entry.value;
    if (this.#deps.believesAll) return damage.stored.subarray(0, -SEAL_BYTES);
    assert(unseal(entry.key, damage.stored) === undefined, 'a flipped bit breaks the seal');
    this.#failure ??= damaged(`a value with a wrong checksum, key ${entry.key.toString('hex')}`);
    this.#onFailure?.(this.#failure);
    throw this.#failure;
  }

  override transaction<T>(fn: (txn: KvTransaction) => T): T {
    if (this.#failure) throw this.#failure;
    return super.transaction(fn);
  }

  override async view(): Promise<KvView> {
    if (this.isDamaged && !this.#deps.believesAll) throw damaged('damage that a view comes across');
    return super.view();
  }

  override async flushed(): Promise<void> {
    const { process, prng } = this.#deps;
    await new Promise<void>((resolve) => process.clock.after(prng.float() * FLUSH_MAX_MS, resolve));
    await super.flushed();
  }

  override async backup(file: string): Promise<void> {
    if (this.isDamaged) this.#badCopies.add(file);
    const handle = await this.#deps.disk.open(file, 'create');
    await handle.write([this.image()], 0);
    await handle.datasync();
    await handle.close();
  }

  protected override stored(entry: OverlayEntry): Buffer {
    const damage = this.#damage.get(overlayKey(entry.key));
    return damage?.entry === entry ? damage.stored.subarray(0, -SEAL_BYTES) : (entry.value as Buffer);
  }

  /** Whether what lies on the disk is not what was written there. */
  get isDamaged(): boolean {
    return [...this.#damage].some(([key, { entry }]) => this.entries.get(key) === entry);
  }

  /** Flushes, as it may at any time, and changes one bit of a record. @returns whether there is one */
  flipBit(prng: Prng): boolean {
    this.unflushed.clear();
    const flushed = [...this.entries.entries()];
    if (flushed.length === 0) return false;
    const [key, entry] = flushed[prng.int(flushed.length)] as [string, OverlayEntry];
    const stored = seal(entry.key, entry.value as Buffer);
    const at = prng.int(stored.length);
    stored[at] = (stored[at] as number) ^ (1 << prng.int(8));
    this.#damage.set(key, { entry, stored });
    return true;
  }
}

/** The stores of one life of a metaserver: the state in memory, as the last life has left it, and copies on the simulated disk. */
export class SimStores implements StoreFiles {
  readonly #deps: SimStoreDeps;
  readonly #stateFile: string;
  #left: LeftState | undefined;
  #kv: SimKv | undefined;
  readonly #badCopies = new Set<string>();

  /** @param left undefined: there is no state */
  constructor(stateFile: string, left: LeftState | undefined, deps: SimStoreDeps) {
    this.#stateFile = stateFile;
    this.#left = left;
    this.#deps = deps;
  }

  /** The state as it is. */
  image(): Buffer | undefined {
    return this.#kv?.image() ?? this.#left?.image;
  }

  /** What the next life finds; nothing is stored any more. */
  afterDeath(): LeftState | undefined {
    const kv = this.#kv;
    if (!kv) return this.#left;
    const image = kv.imageAfterCrash();
    return { image, isDamaged: kv.isDamaged };
  }

  flipBit(prng: Prng): boolean {
    return this.#kv?.flipBit(prng) ?? false;
  }

  open(file: string, onFailure?: FailureListener): MemoryKv {
    if (file !== this.#stateFile) return new MemoryKv(this.#deps.memoryDisk.content(file));
    this.#kv = new SimKv(this.#deps, this.#left?.image, this.#badCopies, onFailure);
    return this.#kv;
  }

  async bytes(): Promise<number> {
    return this.#left?.image.length ?? 0;
  }

  async verify(file: string): Promise<void> {
    const isDamaged = file === this.#stateFile ? this.#left?.isDamaged : this.#badCopies.has(file);
    if (isDamaged && !this.#deps.believesAll) throw damaged(`damage, found by reading all of ${file}`);
  }

  async replace(from: string): Promise<void> {
    const { disk } = this.#deps;
    const image = await readWholeFile(disk, from);
    await disk.unlink(from);
    this.#kv = undefined;
    this.#left = { image, isDamaged: false };
  }

  async tidy(): Promise<void> {}
}
