import type { SessionTimes } from '../../../proto/types.js';
import type { Cluster, ClusterHooks } from '../cluster.js';
import type { Tap } from '../network.js';
import type { World } from '../world.js';

/** A planted bug, put in where the simulator hands things to the real code. */
export interface Mutation {
  name: string;
  /** What is wrong then. */
  text: string;
  /** It must be found within so many seeds from 1 on. */
  seeds: number;
  /** Changes what a state machine applies. Made once for each run. */
  apply?(): (server: number, index: number, data: Buffer) => Buffer;
  hooks?(world: World): Partial<ClusterHooks>;
  /** Changes messages. */
  tap?(world: World): Tap;
  prepare?(cluster: Cluster): void;
  /** The fault under which it shows: that comes half of the times. */
  favourite?: string;
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
  const { world, machines, clients } = cluster;
  const isolate = (): void => {
    const machine = choose();
    const friend = choosesFriend()?.name;
    if (!machine || !cluster.map()?.pgs.length) return;
    for (const { name } of [...machines, ...clients]) {
      if (name === machine.name || name === friend) continue;
      for (const inside of [machine.name, friend ?? machine.name]) {
        world.time.after(ISOLATION_MS, world.network.cut(inside, name));
        world.time.after(ISOLATION_MS, world.network.cut(name, inside));
      }
    }
  };
  const again = (): void => {
    isolate();
    world.time.after(ISOLATION_MS + (0.5 + world.prng.float()) * ISOLATION_PAUSE_MS, again);
  };
  world.time.after(2 * ISOLATION_PAUSE_MS, again);
}
