import { type Disk, readWholeFile } from '../../common/disk.js';
import type { MemoryDisk } from '../../common/memory-disk.js';
import type { Prng } from '../../common/prng.js';
import { MemoryKv } from '../../metaserver/store/memory-kv.js';
import type { StoreFiles } from '../../metaserver/store/store-files.js';
import type { SimProcess } from './process.js';

const FLUSH_MAX_MS = 300;

export interface SimStoreDeps {
  process: SimProcess;
  /** As the process sees it. */
  disk: Disk;
  /** Behind it. */
  memoryDisk: MemoryDisk;
  prng: Prng;
}

/** A store in memory that is flushed behind, and copied to the simulated disk. */
class SimKv extends MemoryKv {
  readonly #deps: SimStoreDeps;

  constructor(deps: SimStoreDeps, image: Buffer | undefined) {
    super(image);
    this.#deps = deps;
  }

  override async flushed(): Promise<void> {
    const { process, prng } = this.#deps;
    await new Promise<void>((resolve) => process.clock.after(prng.float() * FLUSH_MAX_MS, resolve));
    await super.flushed();
  }

  override async backup(file: string): Promise<void> {
    const handle = await this.#deps.disk.open(file, 'create');
    await handle.write([this.image()], 0);
    await handle.datasync();
    await handle.close();
  }
}

/** The stores of one life of a metaserver: the state in memory, as the last life has left it, and copies on the simulated disk. */
export class SimStores implements StoreFiles {
  readonly #deps: SimStoreDeps;
  readonly #stateFile: string;
  #image: Buffer | undefined;
  #kv: SimKv | undefined;

  /** @param image of the state; undefined: there is none */
  constructor(stateFile: string, image: Buffer | undefined, deps: SimStoreDeps) {
    this.#stateFile = stateFile;
    this.#image = image;
    this.#deps = deps;
  }

  /** The state as it is. */
  image(): Buffer | undefined {
    return this.#kv?.image() ?? this.#image;
  }

  /** What the next life finds; nothing is stored any more. */
  imageAfterDeath(): Buffer | undefined {
    return this.#kv?.imageAfterCrash() ?? this.#image;
  }

  open(file: string): MemoryKv {
    if (file !== this.#stateFile) return new MemoryKv(this.#deps.memoryDisk.content(file));
    this.#kv = new SimKv(this.#deps, this.#image);
    return this.#kv;
  }

  async bytes(): Promise<number> {
    return this.#image?.length ?? 0;
  }

  async verify(): Promise<void> {}

  async replace(from: string): Promise<void> {
    const { disk } = this.#deps;
    const image = await readWholeFile(disk, from);
    await disk.unlink(from);
    this.#kv = undefined;
    this.#image = image;
  }

  async tidy(): Promise<void> {}
}
