import type { Cluster, ClusterHooks } from './cluster.js';
import type { Tap } from './network.js';
import type { World } from './world.js';

/** A planted bug, put in where the simulator hands things to the real code. */
export interface Mutation {
  name: string;
  /** It must be found within so many seeds. */
  seeds: number;
  /** Changes what all state machines apply. */
  apply?(data: Buffer, world: World): Buffer;
  hooks?(world: World): Partial<ClusterHooks>;
  /** Changes messages. */
  tap?(world: World): Tap;
  prepare?(cluster: Cluster): void;
}

export const MUTATIONS: readonly Mutation[] = [];
