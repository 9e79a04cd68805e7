/** What two clients may see of each other's files while servers fail: pure checks of recorded operations. */

/** Files that one client writes and another reads; neighbouring inodes lie in neighbouring placement groups. */
export const REGISTERS = 8;
export const REGISTER_BYTES = 4096;

/** Times are monotonic milliseconds of the machine. */
export type Observation =
  | { kind: 'write-began'; register: number; value: number; began: number }
  /** A write and its fsync returned. */
  | { kind: 'write'; register: number; value: number; began: number; ended: number }
  | { kind: 'read'; register: number; value: number; torn: boolean; began: number; ended: number }
  | { kind: 'claim'; client: string; name: number; won: boolean; began: number; ended: number }
  | { kind: 'error'; message: string };

export interface Verdict {
  /** A line for each offence; empty: consistent. */
  offences: string[];
  reads: number;
  writes: number;
  claims: number;
}

/** A limit of the lines: a broken run breaks the same rule thousands of times. */
const OFFENCES_MAX = 20;

/**
 * - A read gives a value that is no older than the last one acknowledged before the read began, and no newer than the
 *   last one that was begun before it ended. Nothing is torn.
 * - A name has at most one winner, and none is refused before another had asked for it.
 * - No operation fails.
 */
export function judge(observations: readonly Observation[]): Verdict {
  const offences: string[] = [];
  const acknowledged = new Map<number, { at: number; value: number }[]>();
  const begun = new Map<number, { at: number; value: number }[]>();
  const push = (map: typeof begun, register: number, entry: { at: number; value: number }): void => {
    const entries = map.get(register);
    if (entries) entries.push(entry);
    else map.set(register, [entry]);
  };
  let writes = 0;
  for (const one of observations) {
    if (one.kind === 'write-began') push(begun, one.register, { at: one.began, value: one.value });
    if (one.kind === 'write') {
      writes++;
      push(acknowledged, one.register, { at: one.ended, value: one.value });
    }
    if (one.kind === 'error') offences.push(one.message);
  }
  const reads = observations.filter((one) => one.kind === 'read');
  for (const { register, value, torn, began, ended } of reads) {
    const least = lastBefore(acknowledged.get(register), began);
    const most = lastBefore(begun.get(register), ended);
    if (torn) offences.push(`register ${register}: torn content at ${began}`);
    else if (value < least)
      offences.push(`register ${register}: read ${value} after ${least} was acknowledged`);
    else if (value > most) offences.push(`register ${register}: read ${value}, begun were ${most}`);
  }
  const claims = observations.filter((one) => one.kind === 'claim');
  offences.push(...judgeClaims(claims));
  return { offences: offences.slice(0, OFFENCES_MAX), reads: reads.length, writes, claims: claims.length };
}

function judgeClaims(claims: Extract<Observation, { kind: 'claim' }>[]): string[] {
  const byName = new Map<number, typeof claims>();
  for (const claim of claims) {
    const others = byName.get(claim.name);
    if (others) others.push(claim);
    else byName.set(claim.name, [claim]);
  }
  const offences: string[] = [];
  for (const [name, asked] of byName) {
    const winners = asked.filter((claim) => claim.won);
    if (winners.length > 1)
      offences.push(`name ${name}: won by ${winners.map((one) => one.client).join(' and ')}`);
    // Whoever did not hear its answer yet may have won: only a name that all have heard of must have a winner.
    if (winners.length === 0 && asked.length > 1) offences.push(`name ${name}: refused to everybody`);
  }
  return offences;
}

/** The greatest value of entries in the order of their time; values rise with it. */
function lastBefore(entries: readonly { at: number; value: number }[] | undefined, at: number): number {
  let low = 0;
  let high = entries?.length ?? 0;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((entries?.[middle]?.at ?? 0) <= at) low = middle + 1;
    else high = middle;
  }
  return entries?.[low - 1]?.value ?? 0;
}
