import type { RaftMember } from '../../proto/gen/raft.js';
import { isJoint } from '../raft/confchange.js';
import type { RaftStatus } from '../raft/node.js';
import type { RaftConfState } from '../raft/types.js';

/** Entries that a learner may lack of the commit index when it is made a voter: some milliseconds of work. */
export const CAUGHT_UP_ENTRIES = 512;

/** A member as the leader sees it. */
export interface MemberProgress {
  /** Known to be in its log. */
  match: number;
  /** Was heard within the last moments; the leader itself always is. */
  alive: boolean;
}

/** What the leader knows when it looks after the membership. Servers are numbers of metaservers, members those of disks. */
export interface MembershipView {
  /** The configuration in effect. */
  conf: RaftConfState;
  /** The leader's own member. */
  self: number;
  commit: number;
  progress: ReadonlyMap<number, MemberProgress>;
  /** The disk that answers now at each connected server, with an address to be kept. */
  present: readonly RaftMember[];
  /** Servers that an operator wants in, or out. */
  joining: ReadonlySet<number>;
  leaving: ReadonlySet<number>;
}

/** What the leader should do next for the membership. */
export type MembershipStep =
  | { kind: 'change'; conf: RaftConfState; why: string }
  /** Hand the leadership to this member: the leader itself is to go. */
  | { kind: 'transfer'; to: number };

/**
 * The next step towards a membership in which every server that is meant to be there votes with the disk that it has:
 *
 *  1. A server that came back with another disk is taken in as a learner, when its old member is silent.
 *  2. A learner that has caught up becomes a voter, and takes the place of its server's former disk in the same change. Until
 *     then the lost disk stays a voter: every step needs a majority of the old voters, and leaves no fewer of them than were there.
 *  3. A server that was added goes the same way; one that is removed goes in one change.
 *
 * What is wanted stands in the configuration itself (a learner is there to become a voter), so that another leader goes on where
 * this one stops. One step at a time: none while a change is under way.
 */
export function nextMembershipStep(view: MembershipView): MembershipStep | undefined {
  const { conf } = view;
  if (isJoint(conf)) return undefined;
  return removal(view) ?? staleLearner(view) ?? promotion(view) ?? newcomer(view) ?? newAddress(view);
}

/** Why a server cannot be removed, or undefined. */
export function removalProblem(
  view: Pick<MembershipView, 'conf' | 'progress'>,
  server: number,
): string | undefined {
  const rest = withoutServer(view.conf, server).voters;
  if (rest.length === 0) return 'it is the last metaserver';
  const alive = rest.filter((id) => view.progress.get(id)?.alive).length;
  if (alive * 2 > rest.length) return undefined;
  return `of the ${rest.length} others only ${alive} ${alive === 1 ? 'is' : 'are'} alive: no majority`;
}

function serverOf(conf: RaftConfState, id: number): number {
  return conf.roster.find((member) => member.id === id)?.server ?? 0;
}

function withoutServer(conf: RaftConfState, server: number): RaftConfState {
  const stays = (id: number): boolean => serverOf(conf, id) !== server;
  return { ...conf, voters: conf.voters.filter(stays), learners: conf.learners.filter(stays) };
}

function removal(view: MembershipView): MembershipStep | undefined {
  const { conf, leaving, self, progress } = view;
  for (const server of leaving) {
    if (!conf.roster.some((member) => member.server === server)) continue;
    if (removalProblem(view, server) !== undefined) continue;
    if (serverOf(conf, self) !== server)
      return { kind: 'change', conf: withoutServer(conf, server), why: `metaserver ${server} is removed` };
    const heirs = conf.voters.filter((id) => id !== self && progress.get(id)?.alive);
    const best = heirs.sort((a, b) => matchOf(view, b) - matchOf(view, a))[0];
    if (best !== undefined) return { kind: 'transfer', to: best };
  }
  return undefined;
}

function matchOf(view: MembershipView, id: number): number {
  return view.progress.get(id)?.match ?? 0;
}

/** A learner whose server answers with another disk again: lost once more, or its old disk came back. */
function staleLearner({ conf, present, progress }: MembershipView): MembershipStep | undefined {
  for (const id of conf.learners) {
    const server = serverOf(conf, id);
    const now = present.find((member) => member.server === server);
    if (!now || now.id === id || progress.get(id)?.alive) continue;
    const learners = conf.learners.filter((other) => other !== id);
    return {
      kind: 'change',
      conf: { ...conf, learners },
      why: `the disk with which metaserver ${server} was to join is gone`,
    };
  }
  return undefined;
}

function promotion(view: MembershipView): MembershipStep | undefined {
  const { conf, commit, progress } = view;
  for (const id of conf.learners) {
    const own = progress.get(id);
    // In a young cluster nothing at all would be close enough: it must have acknowledged something.
    if (!own?.alive || own.match === 0 || own.match + CAUGHT_UP_ENTRIES < commit) continue;
    const server = serverOf(conf, id);
    const voters = [...conf.voters.filter((other) => serverOf(conf, other) !== server), id];
    const alive = voters.filter((other) => progress.get(other)?.alive).length;
    if (alive * 2 <= voters.length) continue;
    const learners = conf.learners.filter((other) => other !== id);
    return {
      kind: 'change',
      conf: { ...conf, voters, learners },
      why: `metaserver ${server} has caught up and votes`,
    };
  }
  return undefined;
}

function newcomer({ conf, present, progress, joining, leaving }: MembershipView): MembershipStep | undefined {
  for (const member of present) {
    const { id, server } = member;
    if (conf.roster.some((known) => known.id === id) || leaving.has(server)) continue;
    const former = conf.roster.filter((known) => known.server === server);
    // Two servers that claim one number: the one that is in stays in.
    if (former.some((known) => progress.get(known.id)?.alive)) continue;
    if (former.length === 0 && !joining.has(server)) continue;
    return {
      kind: 'change',
      conf: { ...conf, learners: [...conf.learners, id], roster: [...conf.roster, member] },
      why:
        former.length > 0 ? `metaserver ${server} came back with another disk` : `metaserver ${server} joins`,
    };
  }
  return undefined;
}

function newAddress({ conf, present }: MembershipView): MembershipStep | undefined {
  for (const member of present) {
    const known = conf.roster.find(({ id }) => id === member.id);
    if (!known || member.address === '' || known.address === member.address) continue;
    const roster = conf.roster.map((other) => (other === known ? member : other));
    const why = `metaserver ${member.server} moved to ${member.address}`;
    return { kind: 'change', conf: { ...conf, roster }, why };
  }
  return undefined;
}

/** The voter of a metaserver to which the leader may hand over (0: the one that is furthest); 0: there is none. */
export function heirOf({ id, conf, peers }: RaftStatus, server: number): number {
  const fits = (member: number): boolean =>
    member !== id && conf.voters.includes(member) && (server === 0 || serverOf(conf, member) === server);
  const heirs = peers.filter((peer) => fits(peer.id)).sort((a, b) => b.match - a.match);
  return heirs[0]?.id ?? 0;
}

/**
 * Servers whose voting disk is gone: they answer with another one. Together with the silent ones they may be too many for a
 * majority ever to come back.
 */
export function lostVoters(conf: RaftConfState, present: readonly RaftMember[]): RaftMember[] {
  return conf.roster.filter(
    ({ id, server }) =>
      conf.voters.includes(id) && present.some((now) => now.server === server && now.id !== id),
  );
}
