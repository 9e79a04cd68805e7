import { CHUNKSERVER_MUTATIONS } from './chunkserver.js';
import { METASERVER_MUTATIONS } from './metaserver.js';
import type { Mutation } from './mutation.js';

export type { Mutation } from './mutation.js';

/** Bugs that the simulator must find: a checker that finds none of them proves nothing. */
export const MUTATIONS: readonly Mutation[] = [...METASERVER_MUTATIONS, ...CHUNKSERVER_MUTATIONS];
