/**
 * Milliseconds to wait behind the `failures`-th failure in a row, 1 for the first: `minMs`, twice as long behind each further
 * one, at most `maxMs`. Whoever may fail together with others adds chance to it.
 */
export function backOffMs(failures: number, minMs: number, maxMs: number): number {
  return Math.min(maxMs, minMs * 2 ** (failures - 1));
}

/** The first repetition of a question for the leader comes this soon; the wait doubles from there. */
export const LEADER_RETRY_MIN_MS = 20;
/** While an election may be going on, nobody is asked less often than this. */
const LEADER_RETRY_FAST_MAX_MS = 100;
/** A search that takes longer than this is no election: back off further. */
const LEADER_FAST_PERIOD_MS = 5_000;
const LEADER_RETRY_MAX_MS = 500;

/**
 * Milliseconds to wait behind the `failures`-th failure in a row, 1 for the first, to find the metaservers' leader.
 * @param searchedMs since the search began
 */
export function leaderRetryMs(failures: number, searchedMs: number): number {
  const max = searchedMs < LEADER_FAST_PERIOD_MS ? LEADER_RETRY_FAST_MAX_MS : LEADER_RETRY_MAX_MS;
  return backOffMs(failures, LEADER_RETRY_MIN_MS, max);
}
