import { memberIdOf, newDiskUuid, readFormat, writeFormat } from '../../metaserver/replica/format.js';
import { Replica } from '../../metaserver/replica/replica.js';
import type { MetaReplica } from '../../metaserver/service/ports.js';
import { replicaPort } from '../../metaserver/service/replica-port.js';
import { ReplicatedState, STATE_FILE } from '../../metaserver/service/replicated-state.js';
import { createServices } from '../../metaserver/service/services.js';
import type { CommandResult, InitCluster } from '../../proto/gen/meta.js';
import type { SessionTimes } from '../../proto/types.js';
import { processDisk } from './disk.js';
import { Machine } from './machine.js';
import { patched } from './patched.js';
import type { SimProcess } from './process.js';
import { SimRpcServer, simDialer } from './rpc.js';
import { SimStores } from './state.js';
import type { World } from './world.js';

export const META_PORT = 7000;
const DIR = '/meta';
/** Small, so that snapshots and segment changes happen in a short run. */
const KEEP_ENTRIES = 60;
const KEEP_BYTES = 64 * 1024;
const SEGMENT_BYTES = 16 * 1024;

export interface MetaMachineHooks {
  /** Sees, and may change, what a state machine applies. */
  onApply(server: number, index: number, data: Buffer): Buffer;
  /** What the services are given instead of the replica. */
  wrapReplica?(port: MetaReplica, process: SimProcess): MetaReplica;
  /** The uuid of a disk that is formatted; `former`: of the one in its place before. */
  formatAs?(uuid: string, former: string | undefined): string;
}

/** The same for all metaservers of a cluster. */
export interface MetaSettings {
  ids: readonly number[];
  init: InitCluster;
  sessionTimes: SessionTimes;
}

/** A machine with a metaserver: the real replica, state machine and services on simulated disk and network. */
export class MetaMachine extends Machine {
  readonly #settings: MetaSettings;
  readonly #hooks: MetaMachineHooks;
  #image: Buffer | undefined;
  stores: SimStores | undefined;
  /** The disk that it has now, once it is formatted. */
  diskUuid: string | undefined;
  #lostDisk: string | undefined;
  replica: Replica<CommandResult> | undefined;
  state: ReplicatedState | undefined;

  constructor(world: World, id: number, settings: MetaSettings, hooks: MetaMachineHooks) {
    super(world, `m${id}`, id);
    this.#settings = settings;
    this.#hooks = hooks;
  }

  static address(id: number): string {
    return `m${id}:${META_PORT}`;
  }

  get serving(): boolean {
    return this.replica?.status().serving ?? false;
  }

  protected async boot(process: SimProcess): Promise<void> {
    const { world, id, prng } = this;
    const { network, trace } = world;
    const { clock } = process;
    const log = trace.logger({ host: this.name });
    const disk = processDisk(this.disk, process, prng, this.mood);
    const { ids, init, sessionTimes } = this.#settings;
    const { clusterId } = init;
    const format = await readFormat(disk, DIR);
    if (format) this.diskUuid = format.diskUuid;
    else {
      const drawn = newDiskUuid(() => world.uuid());
      const diskUuid = this.#hooks.formatAs?.(drawn, this.#lostDisk) ?? drawn;
      // Whoever replaces a disk knows that the cluster exists.
      const first = { conf: null, mayFound: this.#lostDisk === undefined, begun: false };
      await writeFormat(disk, DIR, { clusterId, serverId: id, diskUuid, ...first });
      this.diskUuid = diskUuid;
    }
    const stores = new SimStores(`${DIR}/${STATE_FILE}`, this.#image, {
      process,
      disk,
      memoryDisk: this.disk,
      prng,
    });
    this.stores = stores;
    const state = await ReplicatedState.open(disk, DIR, {
      files: stores,
      onFailure: (error) => this.failed(process, error),
    });
    if (!process.alive) return;
    this.state = state;
    const stateMachine = patched(state, {
      apply: (commands) =>
        state.apply(
          commands.map(({ index, data }) => ({ index, data: this.#hooks.onApply(id, index, data) })),
        ),
    });
    const dial = simDialer(network, process);
    const peers = ids.map((peer) => ({ id: peer, address: MetaMachine.address(peer) }));
    const replica = await Replica.open<CommandResult>({
      disk,
      dir: DIR,
      clusterId,
      serverId: id,
      peers,
      stateMachine,
      clock,
      prng,
      log,
      onFatal: (error) => this.failed(process, error),
      keepEntries: KEEP_ENTRIES,
      keepBytes: KEEP_BYTES,
      segmentBytes: SEGMENT_BYTES,
      schedule: (fn) => process.soon(fn),
      dial,
    });
    if (!process.alive) return;
    this.replica = replica;
    const honest = replicaPort(replica, clock);
    const port = this.#hooks.wrapReplica?.(honest, process) ?? honest;
    const services = createServices({
      replica: port,
      state,
      clock,
      log,
      serverId: id,
      init,
      sessionTimes,
      rssBytes: () => 0,
    });
    const server = new SimRpcServer(network, process);
    replica.attach(server);
    services.attach(server);
    server.listen(MetaMachine.address(id));
    services.start();
    replica.start();
  }

  /** The member of the group that its disk is. */
  get member(): number | undefined {
    return this.diskUuid === undefined ? undefined : memberIdOf(this.diskUuid);
  }

  protected forget(): void {
    this.#image = undefined;
    this.#lostDisk = this.diskUuid ?? this.#lostDisk;
    this.diskUuid = undefined;
  }

  protected afterDeath(): void {
    if (this.stores) this.#image = this.stores.imageAfterDeath();
    this.stores = undefined;
    this.state = undefined;
    this.replica = undefined;
  }
}
