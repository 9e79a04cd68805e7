import type { RaftConfState } from './types.js';

export type VoteResult = 'won' | 'lost' | 'pending';

/**
 * The largest value that a majority of `voters` has reached.
 * @param reached what a voter reached (a log index, a time, a round), any number
 * @returns Infinity for no voters: the empty half of a joint configuration asks for nothing
 */
export function majorityValue(voters: readonly number[], reached: (id: number) => number): number {
  if (voters.length === 0) return Number.POSITIVE_INFINITY;
  if (voters.length === 1) return reached(voters[0]!);
  // Descending: the value at place floor(n / 2) is held by floor(n / 2) + 1 voters, the smallest majority.
  const values = voters.map(reached).sort((a, b) => (a < b ? 1 : a > b ? -1 : 0));
  return values[values.length >> 1]!;
}

/**
 * The largest value reached by a majority of the voters and, in joint consensus, also of the outgoing ones.
 */
export function quorumValue(conf: RaftConfState, reached: (id: number) => number): number {
  const incoming = majorityValue(conf.voters, reached);
  if (conf.votersOutgoing.length === 0) return incoming;
  return Math.min(incoming, majorityValue(conf.votersOutgoing, reached));
}

/** Counts the votes of one majority. `votes` lacks those who have not answered. No voters: won. */
export function majorityVote(voters: readonly number[], votes: ReadonlyMap<number, boolean>): VoteResult {
  const majority = Math.floor(voters.length / 2) + 1;
  let granted = 0;
  let missing = 0;
  for (const id of voters) {
    const vote = votes.get(id);
    if (vote === undefined) missing++;
    else if (vote) granted++;
  }
  if (voters.length === 0 || granted >= majority) return 'won';
  return granted + missing >= majority ? 'pending' : 'lost';
}

/** Counts the votes of a configuration: won when both halves are won, lost as soon as one is lost. */
export function quorumVote(conf: RaftConfState, votes: ReadonlyMap<number, boolean>): VoteResult {
  const incoming = majorityVote(conf.voters, votes);
  const outgoing = majorityVote(conf.votersOutgoing, votes);
  if (incoming === 'lost' || outgoing === 'lost') return 'lost';
  return incoming === 'won' && outgoing === 'won' ? 'won' : 'pending';
}
