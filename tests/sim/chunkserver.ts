import { ChunkService } from '../../chunkserver/service/service.js';
import type { ChunkStore } from '../../chunkserver/store/chunk-store.js';
import { type IndexDb, MemoryIndexDb } from '../../chunkserver/store/index-db.js';
import { openChunkStore } from '../../chunkserver/store/open.js';
import { LogCorruptError } from '../../common/segment-log.js';
import { processDisk } from './disk.js';
import { Machine } from './machine.js';
import { compactionQuietMsOf } from './plan.js';
import type { SimProcess } from './process.js';
import { simDialer } from './rpc.js';
import { simSockets } from './sockets.js';
import type { World } from './world.js';

export const CHUNK_PORT = 7001;
export const CHUNK_DIR = '/chunks';
/** Small, so that segments are sealed and compacted in a short run; below it, compaction makes what it has to compact. */
const SEGMENT_BYTES = 2048;
const COMMIT_MAX_MS = 20;
const RECOVERY_MBPS = 100;
const SCRUB = { intervalMs: 3_000, bytesPerSecond: 100 * 1024 * 1024 };

export interface ChunkMachineHooks {
  wrapStore?(store: ChunkStore, machine: ChunkMachine): ChunkStore;
  onService?(service: ChunkService, store: ChunkStore, machine: ChunkMachine): void;
}

/** A machine with a chunkserver: the real service, groups and log-structured store on simulated disk and network. */
export class ChunkMachine extends Machine {
  readonly #clusterId: string;
  readonly #metaservers: string[];
  readonly #hooks: ChunkMachineHooks;
  #db = new MemoryIndexDb();
  /** Chunks that were replaced by another server's copy, in the lives that are over. */
  #repaired = 0;
  store: ChunkStore | undefined;
  service: ChunkService | undefined;

  constructor(world: World, id: number, clusterId: string, metaservers: string[], hooks: ChunkMachineHooks) {
    super(world, `c${id}`, id);
    this.#clusterId = clusterId;
    this.#metaservers = metaservers;
    this.#hooks = hooks;
  }

  protected async boot(process: SimProcess): Promise<void> {
    const { world, prng, id } = this;
    const { network, trace } = world;
    const { clock } = process;
    const log = trace.logger({ host: this.name });
    const opened = await openChunkStore({
      dir: CHUNK_DIR,
      clock,
      logger: log,
      segmentBytes: SEGMENT_BYTES,
      compactionQuietMs: compactionQuietMsOf(world.seed),
      onFailure: (error) => this.failed(process, error),
      disk: processDisk(this.disk, process, prng, this.mood),
      openIndex: () => this.#slowly(this.#db, process),
      lock: async () => async () => undefined,
      newUuid: () => world.uuid(),
    });
    if (!process.alive) return;
    const store = this.#hooks.wrapStore?.(opened, this) ?? opened;
    this.store = store;
    const service = new ChunkService(
      {
        id,
        host: this.name,
        port: CHUNK_PORT,
        clusterId: this.#clusterId,
        metaservers: this.#metaservers,
        domain: this.name,
        recoveryMbps: RECOVERY_MBPS,
        scrub: SCRUB,
      },
      { store, clock, log, prng, dial: simDialer(network, process), sockets: simSockets(network, process) },
    );
    this.service = service;
    this.#hooks.onService?.(service, store, this);
    void service.fatal.then((error) => this.failed(process, error));
    await service.start();
  }

  /** Files of its log, in order. */
  segments(): string[] {
    return this.disk.files(`${CHUNK_DIR}/log/`).filter((name) => name.endsWith('.seg'));
  }

  get repaired(): number {
    return this.#repaired + (this.service?.host.repair.repaired ?? 0);
  }

  /** A log that is damaged where it is replayed is refused at the start: whoever runs the server gives it an empty disk. */
  protected isDamage(error: unknown): boolean {
    return error instanceof LogCorruptError;
  }

  /** A commit takes time; a process that dies before has not made it. */
  #slowly(db: MemoryIndexDb, process: SimProcess): IndexDb {
    return {
      get: (key) => db.get(key),
      range: (start, end) => db.range(start, end),
      commit: async (entries) => {
        const batch = [...entries];
        await new Promise<void>((resolve) => process.clock.after(this.prng.float() * COMMIT_MAX_MS, resolve));
        await db.commit(batch);
      },
      close: () => db.close(),
    };
  }

  protected forget(): void {
    this.#db = new MemoryIndexDb();
  }

  protected afterDeath(): void {
    this.#repaired = this.repaired;
    this.#db = this.#db.clone();
    this.store = undefined;
    this.service = undefined;
  }
}
