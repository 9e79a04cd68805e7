import type { DataLimits } from '../../client/data/limits.js';
import type { Prng } from '../../common/prng.js';
import { SESSION_TIMES, type SessionTimes } from '../../proto/types.js';
import type { ClusterShape } from './cluster.js';
import { SILENCE_ROOM_MS } from './faults.js';

/** How long things go wrong in a run, and how often: virtual milliseconds. */
export interface Plan {
  chaosMs: number;
  /** Mean time between two faults. */
  faultIntervalMs: number;
  sessionTimes: SessionTimes;
  /** A client is silent for longer than its session may be. */
  silentClient: boolean;
}

interface Kind {
  leastMs: number;
  mostMs: number;
  faultIntervalMs: number;
  sessionTimes: SessionTimes;
}

/** Clients whose silence a run outlasts: what a session believes and how long it may be silent is cut in proportion. */
export const SHORT_SESSIONS: SessionTimes = { timeoutMs: 3_000, leaseMs: 1_200, leaseOverMs: 2_400 };

const SHORT: Kind = { leastMs: 1_000, mostMs: 3_000, faultIntervalMs: 250, sessionTimes: SESSION_TIMES };
const USUAL: Kind = { leastMs: 2_500, mostMs: 7_000, faultIntervalMs: 500, sessionTimes: SESSION_TIMES };
const FENCING: Kind = { leastMs: 6_000, mostMs: 8_000, faultIntervalMs: 900, sessionTimes: SHORT_SESSIONS };
/** Beyond the time-out of sessions as it is. */
const LONG: Kind = { leastMs: 20_000, mostMs: 56_000, faultIntervalMs: 500, sessionTimes: SESSION_TIMES };

function kindOf(seed: number): Kind {
  if (seed % 50 === 0) return LONG;
  if (seed % 5 === 2) return FENCING;
  return seed % 8 === 0 ? USUAL : SHORT;
}

/** Most runs are short and dense: docs/simulator.md has what the lengths cost and find. */
export function planOf(seed: number, prng: Prng): Plan {
  const { leastMs, mostMs, faultIntervalMs, sessionTimes } = kindOf(seed);
  const chaosMs = leastMs + prng.float() * (mostMs - leastMs);
  const silentClient = chaosMs >= sessionTimes.timeoutMs + SILENCE_ROOM_MS;
  return { chaosMs, faultIntervalMs, sessionTimes, silentClient };
}

/** The shape is of the seed too: most runs have the default one. */
export function shapeOf(seed: number): ClusterShape {
  const shape = { metaservers: 3, chunkservers: 3, clients: 2, replicas: 3, minInSync: 2, pgs: 3 };
  if (seed % 5 === 0) return { ...shape, chunkservers: 4, pgs: 4 };
  if (seed % 7 === 0) return { ...shape, clients: 3 };
  if (seed % 11 === 0) return { ...shape, metaservers: 5 };
  if (seed % 13 === 0) return { ...shape, chunkservers: 4, replicas: 2, minInSync: 1 };
  return shape;
}

/** So few that they are synced unasked, the oldest first, in most runs some times: two or three small writes begin it. */
const FEW_KEPT_BYTES = 2048;
/** So short that stores often are quiet for as long, and are used again while they compact. */
const COMPACTION_QUIET_MS = 150;

/** Bounds of a mount's data path: in every third run few unsynced writes are kept. */
export function limitsOf(seed: number): Partial<DataLimits> {
  return seed % 3 === 1 ? { unsyncedKeptBytesMax: FEW_KEPT_BYTES } : {};
}

/** In most runs compaction meets operations, which is where it could go wrong; in every fourth it waits for quiet. */
export function compactionQuietMsOf(seed: number): number {
  return seed % 4 === 3 ? COMPACTION_QUIET_MS : 0;
}
