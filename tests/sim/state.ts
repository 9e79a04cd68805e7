import { type Disk, readWholeFile } from '../../common/disk.js';
import type { Prng } from '../../common/prng.js';
import { MetaStateMachine } from '../../metaserver/namespace/state-machine.js';
import type { Command, StateMachine } from '../../metaserver/replica/state-machine.js';
import type {
  MetaQuotas,
  MetaState,
  ReclaimItem,
  ReclaimKey,
  SessionRecord,
} from '../../metaserver/service/ports.js';
import type { KvView } from '../../metaserver/store/kv.js';
import { MemoryKv } from '../../metaserver/store/memory-kv.js';
import type { ClusterMap, Fence } from '../../proto/gen/cluster.js';
import type { CommandResult, InitCluster, ReadReply, ReadRequest } from '../../proto/gen/meta.js';
import type { SimProcess } from './process.js';

const FLUSH_MAX_MS = 300;

export interface SimStateDeps {
  process: SimProcess;
  disk: Disk;
  prng: Prng;
  /** Told of every command before it is applied; what it returns is applied instead. */
  onApply(command: Command): Buffer;
}

/** The replicated state on a store in memory that is flushed behind, as ReplicatedState is on LMDB. */
export class SimState implements StateMachine<CommandResult>, MetaState {
  readonly #deps: SimStateDeps;
  #kv: MemoryKv;
  #machine: MetaStateMachine;

  constructor(kv: MemoryKv, deps: SimStateDeps) {
    this.#kv = kv;
    this.#deps = deps;
    this.#machine = new MetaStateMachine(kv);
  }

  /** What the next life finds. */
  get kv(): MemoryKv {
    return this.#kv;
  }

  apply(commands: readonly Command[]): CommandResult[] {
    const seen = commands.map((command) => ({ index: command.index, data: this.#deps.onApply(command) }));
    return this.#machine.apply(seen);
  }

  appliedIndex(): number {
    return this.#machine.appliedIndex();
  }

  async flushed(): Promise<number> {
    const { process, prng } = this.#deps;
    const index = this.#machine.appliedIndex();
    const kv = this.#kv;
    await new Promise<void>((resolve) => process.clock.after(prng.float() * FLUSH_MAX_MS, resolve));
    await kv.flushed();
    return index;
  }

  async backup(file: string): Promise<number> {
    const { disk } = this.#deps;
    const index = this.#machine.appliedIndex();
    const handle = await disk.open(file, 'create');
    await handle.write([this.#kv.image()], 0);
    await handle.datasync();
    await handle.close();
    return index;
  }

  async restore(file: string): Promise<void> {
    const { disk } = this.#deps;
    const image = await readWholeFile(disk, file);
    await disk.unlink(file);
    this.#kv = new MemoryKv(image);
    this.#machine = new MetaStateMachine(this.#kv);
  }

  read(request: ReadRequest): ReadReply {
    return this.#machine.read(request);
  }

  cluster(): InitCluster | undefined {
    return this.#machine.cluster();
  }

  map(): ClusterMap {
    return this.#machine.map();
  }

  mapVersion(): number {
    return this.#machine.mapVersion();
  }

  session(id: number): SessionRecord | undefined {
    return this.#machine.session(id);
  }

  sessions(): SessionRecord[] {
    return this.#machine.sessions();
  }

  fencing(): number[] {
    return this.#machine.fencing();
  }

  fence(): Fence {
    return this.#machine.fence();
  }

  reclaims(after: ReclaimKey | undefined, limit: number): ReclaimItem[] {
    return this.#machine.reclaims(after, limit);
  }

  isReserved(ino: number): boolean {
    return this.#machine.isReserved(ino);
  }

  view(): Promise<KvView> {
    return this.#kv.view();
  }

  quotas(): MetaQuotas {
    return this.#machine.quotas();
  }

  usage(): { inodes: number; orphans: number } {
    return this.#machine.usage();
  }
}
