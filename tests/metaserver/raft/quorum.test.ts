import assert from 'node:assert/strict';
import fc from 'fast-check';
import { majorityValue, majorityVote, quorumValue, quorumVote } from '../../../metaserver/raft/quorum.js';

const voters = fc.uniqueArray(fc.integer({ min: 1, max: 9 }), { maxLength: 7 });
const indices = fc.dictionary(fc.constantFrom(...'123456789'), fc.integer({ min: 0, max: 12 }));
const ballots = fc.dictionary(fc.constantFrom(...'123456789'), fc.boolean());

/** Tries every index and counts who has it. */
function naiveMajority(ids: number[], indexOf: (id: number) => number): number {
  if (ids.length === 0) return Number.POSITIVE_INFINITY;
  let best = 0;
  for (let index = 0; index <= 12; index++) {
    const holders = ids.filter((id) => indexOf(id) >= index).length;
    if (holders * 2 > ids.length) best = index;
  }
  return best;
}

/** Tries every way in which the missing could vote. */
function naiveVote(ids: number[], votes: Map<number, boolean>): string {
  const missing = ids.filter((id) => !votes.has(id));
  const outcomes = new Set<boolean>();
  for (let ways = 0; ways < 2 ** missing.length; ways++) {
    const granted = ids.filter((id) => votes.get(id) ?? ((ways >> missing.indexOf(id)) & 1) === 1);
    outcomes.add(ids.length === 0 || granted.length * 2 > ids.length);
  }
  if (outcomes.size === 2) return 'pending';
  return outcomes.has(true) ? 'won' : 'lost';
}

function votesOf(ballot: Record<string, boolean>): Map<number, boolean> {
  return new Map(Object.entries(ballot).map(([id, vote]) => [Number(id), vote]));
}

describe('quorums', () => {
  it('commit what a naive count commits', () => {
    fc.assert(
      fc.property(voters, indices, (ids, table) => {
        const indexOf = (id: number) => table[id] ?? 0;
        assert.equal(majorityValue(ids, indexOf), naiveMajority(ids, indexOf));
      }),
    );
  });

  it('decide a vote exactly when the missing votes cannot change it', () => {
    fc.assert(
      fc.property(voters, ballots, (ids, ballot) => {
        assert.equal(majorityVote(ids, votesOf(ballot)), naiveVote(ids, votesOf(ballot)));
      }),
    );
  });

  it('ask both halves of a joint configuration', () => {
    fc.assert(
      fc.property(voters, voters, indices, ballots, (incoming, outgoing, table, ballot) => {
        const conf = { voters: incoming, votersOutgoing: outgoing, learners: [], roster: [] };
        const indexOf = (id: number) => table[id] ?? 0;
        const both = Math.min(naiveMajority(incoming, indexOf), naiveMajority(outgoing, indexOf));
        assert.equal(quorumValue(conf, indexOf), both);
        const halves = [naiveVote(incoming, votesOf(ballot)), naiveVote(outgoing, votesOf(ballot))];
        const expected = halves.includes('lost') ? 'lost' : halves.includes('pending') ? 'pending' : 'won';
        assert.equal(quorumVote(conf, votesOf(ballot)), expected);
      }),
    );
  });

  it('accept infinite values, and wait for nobody when there are no voters', () => {
    const never = () => Number.NEGATIVE_INFINITY;
    assert.equal(majorityValue([], never), Number.POSITIVE_INFINITY);
    assert.equal(majorityValue([1, 2, 3], never), Number.NEGATIVE_INFINITY);
    assert.equal(
      majorityValue([1, 2, 3], (id) => (id === 1 ? Number.POSITIVE_INFINITY : id)),
      3,
    );
    assert.equal(majorityVote([], new Map()), 'won');
  });
});
