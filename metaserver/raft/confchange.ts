import { assert } from '../../common/assert.js';
import { RaftConfState, type RaftEntry, RaftEntryType, type RaftMember } from '../../proto/gen/raft.js';

/**
 * A configuration takes effect as soon as it stands in the log, committed or not (Ongaro's thesis, section
 * 4.1), not when it is applied, as in etcd. With "when applied", a server that does not yet know that C1 and
 * C2 are committed could be elected by the voters of C0 beside a leader of C2. The price is that a truncated
 * log takes its configurations back: ConfHistory.
 *
 * C_old -> (C_old and C_new) -> C_new for every change of voters; learners change in one step. A voter that
 * is demoted stands in `votersOutgoing` and in `learners` while the change is under way: it counts as a voter
 * of the old half.
 */

const MAX_MEMBERS = 64;

function sortedUnique(ids: readonly number[]): number[] {
  return [...new Set(ids)].sort((a, b) => a - b);
}

/**
 * The same configuration with ids sorted and unique, and a roster of exactly these ids as far as they are described, so that
 * equal ones are equal as values. Of several descriptions of one id the last one counts.
 */
export function normalizeConf(conf: RaftConfState): RaftConfState {
  const described = new Map(conf.roster.map((member) => [member.id, member]));
  const roster = members(conf).flatMap((id) => described.get(id) ?? []);
  return {
    voters: sortedUnique(conf.voters),
    votersOutgoing: sortedUnique(conf.votersOutgoing),
    learners: sortedUnique(conf.learners),
    roster,
  };
}

/** Nobody: what a server knows that was never told of a cluster. */
export const EMPTY_CONF: RaftConfState = Object.freeze({
  voters: [],
  votersOutgoing: [],
  learners: [],
  roster: [],
});

/** Why a configuration is not acceptable, or undefined. */
export function confProblem(conf: RaftConfState): string | undefined {
  const ids = members(conf);
  if (ids.some((id) => !Number.isInteger(id) || id < 1)) return 'ids are integers from 1';
  if (ids.length > MAX_MEMBERS) return `more than ${MAX_MEMBERS} members`;
  if (conf.voters.length === 0) return 'no voters';
  if (conf.learners.some((id) => conf.voters.includes(id))) return 'a voter cannot be a learner';
  return undefined;
}

/** All servers that receive the log. */
export function members(conf: RaftConfState): number[] {
  return sortedUnique([...conf.voters, ...conf.votersOutgoing, ...conf.learners]);
}

/** True when `id` votes in either half. */
export function isVoter(conf: RaftConfState, id: number): boolean {
  return conf.voters.includes(id) || conf.votersOutgoing.includes(id);
}

/** True while both the old and the new majority are asked. */
export function isJoint(conf: RaftConfState): boolean {
  return conf.votersOutgoing.length > 0;
}

function sameIds(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}

function sameRoster(a: readonly RaftMember[], b: readonly RaftMember[]): boolean {
  const same = (one: RaftMember, other: RaftMember | undefined): boolean =>
    one.id === other?.id &&
    one.server === other.server &&
    one.diskUuid === other.diskUuid &&
    one.address === other.address;
  return a.length === b.length && a.every((member, i) => same(member, b[i]));
}

/** True when both are the same; both normalized. */
export function equalConf(a: RaftConfState, b: RaftConfState): boolean {
  return (
    sameIds(a.voters, b.voters) &&
    sameIds(a.votersOutgoing, b.votersOutgoing) &&
    sameIds(a.learners, b.learners) &&
    sameRoster(a.roster, b.roster)
  );
}

/**
 * The first step from `current` to `target`: the joint configuration, or the target itself if the voters
 * stay.
 * @param current normalized, not joint
 * @param target valid, not joint
 */
export function enterConf(current: RaftConfState, target: RaftConfState): RaftConfState {
  assert(
    !isJoint(current) && !isJoint(target),
    'a change of membership starts and ends outside joint consensus',
  );
  const next = normalizeConf(target);
  assert(confProblem(next) === undefined, 'a valid configuration');
  if (sameIds(current.voters, next.voters)) return next;
  // Who leaves is described until it has left.
  const roster = [...current.roster, ...next.roster];
  return normalizeConf({ ...next, votersOutgoing: current.voters, roster });
}

/** The second step: out of the joint configuration. */
export function leaveConf(current: RaftConfState): RaftConfState {
  assert(isJoint(current), 'only joint consensus can be left');
  return normalizeConf({ ...current, votersOutgoing: [] });
}

/** The data of an ENTRY_CONF_CHANGE. */
export function encodeConf(conf: RaftConfState): Buffer {
  return Buffer.from(RaftConfState.encode(conf).finish());
}

/** The configuration of an ENTRY_CONF_CHANGE, or undefined for another entry. */
export function confOfEntry(entry: RaftEntry): RaftConfState | undefined {
  return entry.type === RaftEntryType.ENTRY_CONF_CHANGE ? RaftConfState.decode(entry.data) : undefined;
}

/**
 * The configurations that the log may still need: the last committed one and all after it, which a new leader
 * may truncate.
 */
export class ConfHistory {
  #steps: { index: number; conf: RaftConfState }[];

  constructor(index: number, conf: RaftConfState) {
    this.#steps = [{ index, conf: normalizeConf(conf) }];
  }

  /** The one in effect. */
  get active(): RaftConfState {
    return this.#steps[this.#steps.length - 1]!.conf;
  }

  /** Index of the entry (or snapshot) that the one in effect stands in. */
  get activeIndex(): number {
    return this.#steps[this.#steps.length - 1]!.index;
  }

  /** True when `id` votes in the configuration in effect or in one that may come back. */
  mayLead(id: number): boolean {
    return this.#steps.some(({ conf }) => isVoter(conf, id));
  }

  /** Takes notice of entries appended to the log. @returns true when the configuration changed. */
  append(entries: readonly RaftEntry[]): boolean {
    let changed = false;
    for (const entry of entries) {
      const conf = confOfEntry(entry);
      if (conf === undefined) continue;
      assert(entry.index > this.activeIndex, 'configurations are appended in order of the log');
      this.#steps.push({ index: entry.index, conf: normalizeConf(conf) });
      changed = true;
    }
    return changed;
  }

  /** The log was cut from `index` on. @returns true when the configuration changed. */
  truncate(index: number): boolean {
    let changed = false;
    while (this.activeIndex >= index) {
      assert(this.#steps.length > 1, 'a committed configuration is never truncated');
      this.#steps.pop();
      changed = true;
    }
    return changed;
  }

  /** Entries up to `index` are committed: forgets what can no longer come back. */
  commit(index: number): void {
    while (this.#steps.length > 1 && this.#steps[1]!.index <= index) this.#steps.shift();
  }

  /** The log was replaced by a snapshot. */
  restore(index: number, conf: RaftConfState): void {
    this.#steps = [{ index, conf: normalizeConf(conf) }];
  }
}
