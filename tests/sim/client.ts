import { ChunkConnections, frameDialer } from '../../client/data/chunk-connections.js';
import { ChunkIo } from '../../client/data/chunk-io.js';
import { ClusterView } from '../../client/data/cluster-view.js';
import { dataLimits } from '../../client/data/limits.js';
import type { Caller } from '../../client/fuse/binding.js';
import { streamDialer } from '../../client/meta/dialer.js';
import { MetaSession } from '../../client/meta/session.js';
import { HoldfastFs } from '../../client/vfs/vfs.js';
import type { ClusterMap } from '../../proto/gen/cluster.js';
import { PROTOCOL_VERSION } from '../../proto/types.js';
import { limitsOf } from './plan.js';
import type { SimProcess } from './process.js';
import { simDialer } from './rpc.js';
import { simSockets } from './sockets.js';
import type { World } from './world.js';

const CONNECT_TIMEOUT_MS = 600_000;
const DESTROY_STALL_MS = 5_000;
/** So few that most announcements take several messages. */
const LEASES_PER_ANNOUNCEMENT = 2;

/** A machine with a mount, without the kernel: the real session, chunk I/O and file system. */
export class ClientMachine {
  readonly name: string;
  readonly world: World;
  readonly process: SimProcess;
  readonly session: MetaSession;
  readonly chunks: ChunkIo;
  readonly fs: HoldfastFs;
  /** Sessions of it that were ended while it lived: what it had not synced is gone, and its programs may be told. */
  shutOuts = 0;
  /** Settles with the first connection. */
  readonly ready: Promise<unknown>;

  /** @param tamper changes the maps that this client sees */
  constructor(
    world: World,
    name: string,
    metaservers: readonly string[],
    tamper: ((map: ClusterMap) => ClusterMap) | undefined,
  ) {
    this.name = name;
    this.world = world;
    const process = world.newProcess(name);
    this.process = process;
    const { network, prng, trace } = world;
    const { clock } = process;
    const log = trace.logger({ host: name });
    const view = new ClusterView(clock);
    const dial = streamDialer(clock, simDialer(network, process));
    const session = new MetaSession(
      {
        metaservers,
        clusterId: '',
        hostname: name,
        mountPoint: '/mnt',
        leasesPerAnnouncement: LEASES_PER_ANNOUNCEMENT,
      },
      { clock, log, prng, dial },
    );
    session.onMap((map) => view.update(tamper?.(map) ?? map));
    const hello = () => ({
      protocol: PROTOCOL_VERSION,
      clusterId: session.clusterId,
      role: 'client' as const,
      id: session.id,
    });
    const dialFrame = frameDialer(clock, log, hello, simSockets(network, process));
    const ofSession = () => session.id;
    const connections = new ChunkConnections(clock, log, dialFrame, ofSession);
    this.session = session;
    this.chunks = new ChunkIo({ clock, log, prng, view, connections, session: ofSession });
    this.fs = new HoldfastFs({
      meta: session,
      chunks: this.chunks,
      clock,
      log,
      limits: dataLimits(limitsOf(world.seed)),
      readOnly: false,
      destroyStallMs: DESTROY_STALL_MS,
    });
    this.ready = session.start(CONNECT_TIMEOUT_MS);
  }

  /** The machine vanishes, with all that was not written back. */
  die(): void {
    this.process.die();
    this.world.network.died(this.process, false);
  }
}

export function simCaller(): Caller {
  return { uid: 0, gid: 0, pid: 1, signal: new AbortController().signal };
}
