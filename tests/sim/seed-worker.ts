import { MUTATIONS } from './mutations/index.js';
import { runSeed, SHARED } from './run-seeds.js';

// One of several processes that share seeds: a seed comes as a message, its outcome goes back as one.
Error.stackTraceLimit = 0;
const mutation = MUTATIONS.find(({ name }) => name === process.argv[2]);
const shared = process.argv[3] === SHARED || undefined;
process.on('message', (seed: number) => {
  void runSeed(seed, { mutation, shared }).then((outcome) => process.send?.(outcome));
});
process.on('disconnect', () => process.exit());
