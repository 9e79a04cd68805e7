import type { SessionTimes } from '../../../proto/types.js';
import type { Cluster, ClusterHooks } from '../cluster.js';
import type { Tap } from '../network.js';
import type { World } from '../world.js';

/** A planted bug, put in where the simulator hands things to the real code. */
export interface Mutation {
  name: string;
  /** What is wrong then. */
  text: string;
  /** It must be found within so many seeds from `first` on. */
  seeds: number;
  /** Default: 1. Another one where those before it cost much, and are known to find nothing. */
  first?: number;
  /** Changes what a state machine applies. Made once for each run. */
  apply?(): (server: number, index: number, data: Buffer) => Buffer;
  hooks?(world: World): Partial<ClusterHooks>;
  /** Changes messages. */
  tap?(world: World): Tap;
  prepare?(cluster: Cluster): void;
  /** Replaces a method of a part for the time of a run, where nothing is handed over. @returns how it is put back */
  plant?(): () => void;
  /** The fault under which it shows: that comes half of the times. */
  favourite?: string;
  /** Only programs that use the same files at once: SimulationOptions.shared. */
  shared?: boolean;
  /** Other times of sessions than the seed's. */
  sessionTimes?: SessionTimes;
  /** How long things go wrong, without the faults of other runs; default: as the seed says, and with them. */
  aloneMs?: number;
}

const ISOLATION_PAUSE_MS = 1_200;
const ISOLATION_MS = 3_400;

interface Host {
  name: string;
}

/** Some bugs need a host that is alone with a client, or alone: that happens often then, to the one that is chosen. */
export function isolateOften(
  cluster: Cluster,
  choose: () => Host | undefined,
  choosesFriend: () => Host | undefined = () => cluster.clients[0],
): void {
  repeatedly(cluster, ISOLATION_MS, () => {
    const machine = choose();
    const friend = choosesFriend()?.name;
    if (!machine) return;
    const outside = hosts(cluster).filter((name) => name !== machine.name && name !== friend);
    for (const inside of [machine.name, friend ?? machine.name]) {
      for (const name of outside) cut(cluster, inside, name, ISOLATION_MS);
    }
  });
}

/** All servers and clients of the moment. */
export function hosts({ machines, clients }: Cluster): string[] {
  return [...machines, ...clients].map(({ name }) => name);
}

/** Cuts both ways, for a time. */
export function cut({ world }: Cluster, a: string, b: string, ms: number): void {
  world.time.after(ms, world.network.cut(a, b));
  world.time.after(ms, world.network.cut(b, a));
}

/** Lets something go wrong that lasts so long, and again after a pause, once the cluster is there. */
export function repeatedly(cluster: Cluster, ms: number, strike: () => void): void {
  const { world } = cluster;
  const again = (): void => {
    if (cluster.map()?.pgs.length) strike();
    world.time.after(ms + (0.5 + world.prng.float()) * ISOLATION_PAUSE_MS, again);
  };
  world.time.after(2 * ISOLATION_PAUSE_MS, again);
}
