import path from 'node:path';
import type { Prng } from '../../common/prng.js';
import {
  decodeRecordHeader,
  RECORD_HEADER_BYTES,
  recordSeed,
  SEGMENT_HEADER_BYTES,
  segmentOfName,
} from '../../common/segment-log-format.js';
import { isDamage } from '../../metaserver/damage.js';
import {
  logDirectory,
  memberIdOf,
  newDiskUuid,
  readFormat,
  writeFormat,
} from '../../metaserver/replica/format.js';
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
import { type LeftState, SimStores } from './state.js';
import type { World } from './world.js';

export const META_PORT = 7000;
const DIR = '/meta';
/** Small, so that snapshots and segment changes happen in a short run. */
const KEEP_ENTRIES = 60;
const KEEP_BYTES = 64 * 1024;
const SEGMENT_BYTES = 16 * 1024;
/** From damage that is found in use until the server answers nothing any more. */
const ABORT_MAX_MS = 20;

export interface MetaMachineHooks {
  /** Sees, and may change, what a state machine applies. */
  onApply(server: number, index: number, data: Buffer): Buffer;
  /** What the services are given instead of the replica. */
  wrapReplica?(port: MetaReplica, process: SimProcess): MetaReplica;
  /** The uuid of a disk that is formatted; `former`: of the one in its place before. */
  formatAs?(uuid: string, former: string | undefined): string;
  /** A disk is gone for good, and with it this member. */
  onMemberLost?(member: number): void;
  /** Values of the state are believed whatever their seals say. */
  believesAll?: boolean;
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
  #left: LeftState | undefined;
  /** Places in the log where a bit has changed. */
  readonly #flipped: { file: string; offset: number }[] = [];
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
    const stores = new SimStores(`${DIR}/${STATE_FILE}`, this.#left, {
      ...{ process, disk, prng, memoryDisk: this.disk },
      believesAll: this.#hooks.believesAll ?? false,
    });
    this.stores = stores;
    const state = await ReplicatedState.open(disk, DIR, {
      files: stores,
      onFailure: (error) => this.#damagedInUse(process, error),
    });
    if (!process.alive) return;
    this.state = state;
    const stateMachine = patched(state, {
      apply: (commands) =>
        state.apply(
          commands.map(({ index, data }) => ({ index, data: this.#hooks.onApply(id, index, data) })),
        ),
    });
    const flipped = this.#flipped.filter(({ file }) => this.segments().includes(file));
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
      onFatal: (error) => this.#damagedInUse(process, error),
      keepEntries: KEEP_ENTRIES,
      keepBytes: KEEP_BYTES,
      segmentBytes: SEGMENT_BYTES,
      schedule: (fn) => process.soon(fn),
      dial,
    });
    if (!process.alive) return;
    for (const { file, offset } of flipped) {
      world.fail(new Error(`${this.name} does not see that ${file} has changed at ${offset}`));
    }
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

  /** Files of its log, in order. */
  segments(): string[] {
    return this.disk.files(`${logDirectory(DIR)}/`).filter((name) => name.endsWith('.seg'));
  }

  protected isDamage(error: unknown): boolean {
    return isDamage(error);
  }

  /** The server goes down for it a moment later: what was asked meanwhile may have been answered. */
  #damagedInUse(process: SimProcess, error: unknown): void {
    if (this.bitsFlipped === 0 || !isDamage(error)) this.failed(process, error);
    else this.world.time.after(this.prng.float() * ABORT_MAX_MS, () => this.failed(process, error));
  }

  /** Changes a bit of a record that is on the disk, of state or log. */
  flipBit(prng: Prng): void {
    if (prng.int(2) === 0) {
      if (this.stores?.flipBit(prng)) this.bitsFlipped++;
      return;
    }
    const segments = this.segments();
    const file = segments[prng.int(segments.length)];
    if (file === undefined || this.diskUuid === undefined) return;
    const content = this.disk.content(file);
    const proven = file === segments.at(-1) ? provenBytes(file, content, this.diskUuid) : content.length;
    if (proven === 0) return;
    const offset = prng.int(proven);
    this.disk.flipBit(file, offset, prng.int(8));
    this.#flipped.push({ file, offset });
    this.bitsFlipped++;
  }

  protected forget(): void {
    if (this.member !== undefined) this.#hooks.onMemberLost?.(this.member);
    this.#flipped.length = 0;
    this.#left = undefined;
    this.#lostDisk = this.diskUuid ?? this.#lostDisk;
    this.diskUuid = undefined;
  }

  protected afterDeath(): void {
    if (this.stores) this.#left = this.stores.afterDeath();
    this.stores = undefined;
    this.state = undefined;
    this.replica = undefined;
  }
}

/**
 * How many bytes of the newest segment a record behind them proves to have been on the disk: the end of a log, damaged, looks like
 * one that was never written.
 */
function provenBytes(file: string, content: Buffer, uuid: string): number {
  const segment = segmentOfName(path.basename(file)) ?? 0;
  const seed = recordSeed(uuid);
  let proven = 0;
  for (let offset = SEGMENT_HEADER_BYTES; ; ) {
    const header = decodeRecordHeader(seed, { segment, offset }, content, offset);
    if (!header) return proven;
    if (header.durable.segment === segment) proven = header.durable.offset;
    offset += RECORD_HEADER_BYTES + header.length;
  }
}
