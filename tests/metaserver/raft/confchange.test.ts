import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  ConfHistory,
  confOfEntry,
  confProblem,
  encodeConf,
  enterConf,
  equalConf,
  isJoint,
  leaveConf,
  members,
  normalizeConf,
} from '../../../metaserver/raft/confchange.js';
import { majorityVote, quorumVote } from '../../../metaserver/raft/quorum.js';
import type { RaftConfState, RaftEntry } from '../../../metaserver/raft/types.js';
import { RaftEntryType } from '../../../proto/gen/raft.js';

/** Each of seven servers is a voter, a learner or absent; at least one votes. */
const confs = fc
  .array(fc.constantFrom('voter', 'learner', 'absent'), { minLength: 7, maxLength: 7 })
  .filter((roles) => roles.includes('voter'))
  .map((roles): RaftConfState => {
    const having = (role: string) => roles.flatMap((r, i) => (r === role ? [i + 1] : []));
    return { voters: having('voter'), votersOutgoing: [], learners: having('learner'), roster: [] };
  });

function confEntry(index: number, conf: RaftConfState): RaftEntry {
  return { term: 1, index, type: RaftEntryType.ENTRY_CONF_CHANGE, data: encodeConf(conf) };
}

function votesFor(granted: number[]): Map<number, boolean> {
  return new Map([1, 2, 3, 4, 5, 6, 7].map((id) => [id, granted.includes(id)]));
}

describe('changes of membership', () => {
  it('reach the target in at most two valid steps', () => {
    fc.assert(
      fc.property(confs, confs, (current, target) => {
        const first = enterConf(current, target);
        assert.equal(confProblem(first), undefined);
        const last = isJoint(first) ? leaveConf(first) : first;
        assert.deepEqual(last, normalizeConf(target));
      }),
    );
  });

  it('never allow disjoint majorities in neighbouring steps', () => {
    const subsets = fc.subarray([1, 2, 3, 4, 5, 6, 7]);
    fc.assert(
      fc.property(confs, confs, subsets, (current, target, granted) => {
        const first = enterConf(current, target);
        const last = isJoint(first) ? leaveConf(first) : first;
        const others = [1, 2, 3, 4, 5, 6, 7].filter((id) => !granted.includes(id));
        for (const [a, b] of [
          [current, first],
          [first, last],
        ] as const) {
          const isSplit =
            quorumVote(a, votesFor(granted)) === 'won' && quorumVote(b, votesFor(others)) === 'won';
          assert.equal(isSplit, false);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('keep old voters in the old half until the change is left, also when they become learners', () => {
    const current = { voters: [1, 2, 3], votersOutgoing: [], learners: [], roster: [] };
    const joint = enterConf(current, { voters: [4, 1, 2], votersOutgoing: [], learners: [3], roster: [] });
    assert.deepEqual(joint, { voters: [1, 2, 4], votersOutgoing: [1, 2, 3], learners: [3], roster: [] });
    assert.deepEqual(members(joint), [1, 2, 3, 4]);
    assert.equal(majorityVote(joint.votersOutgoing, votesFor([3, 1])), 'won');
    assert.deepEqual(leaveConf(joint), { voters: [1, 2, 4], votersOutgoing: [], learners: [3], roster: [] });
  });

  it('take one step when only learners change', () => {
    const next = enterConf(
      { voters: [1, 2], votersOutgoing: [], learners: [3], roster: [] },
      { voters: [2, 1], votersOutgoing: [], learners: [5, 4], roster: [] },
    );
    assert.deepEqual(next, { voters: [1, 2], votersOutgoing: [], learners: [4, 5], roster: [] });
  });

  it('refuse what cannot work', () => {
    const conf = (voters: number[], learners: number[]) => ({
      voters,
      votersOutgoing: [],
      learners,
      roster: [],
    });
    assert.equal(confProblem(conf([], [1])), 'no voters');
    assert.equal(confProblem(conf([1, 2], [2])), 'a voter cannot be a learner');
    assert.equal(confProblem(conf([0], [])), 'ids are integers from 1');
    assert.equal(confProblem(conf([1.5], [])), 'ids are integers from 1');
    const many = Array.from({ length: 65 }, (_, i) => i + 1);
    assert.equal(confProblem(conf(many, [])), 'more than 64 members');
  });

  it('survive encoding', () => {
    fc.assert(
      fc.property(confs, confs, (a, b) => {
        const joint = enterConf(a, b);
        assert.ok(equalConf(confOfEntry(confEntry(9, joint))!, joint));
      }),
    );
    assert.equal(
      confOfEntry({
        ...confEntry(9, normalizeConf({ voters: [1], votersOutgoing: [], learners: [], roster: [] })),
        type: RaftEntryType.ENTRY_COMMAND,
      }),
      undefined,
    );
  });
});

describe('the history of configurations', () => {
  const one = { voters: [1], votersOutgoing: [], learners: [], roster: [] };
  const two = { voters: [1, 2], votersOutgoing: [1], learners: [], roster: [] };
  const three = { voters: [1, 2], votersOutgoing: [], learners: [], roster: [] };

  it('takes effect on append and is undone by truncation', () => {
    const history = new ConfHistory(0, one);
    assert.equal(history.append([confEntry(4, two), confEntry(6, three)]), true);
    assert.deepEqual([history.active, history.activeIndex], [three, 6]);
    assert.equal(history.truncate(7), false);
    assert.equal(history.truncate(5), true);
    assert.deepEqual([history.active, history.activeIndex], [two, 4]);
    assert.equal(history.truncate(1), true);
    assert.deepEqual([history.active, history.activeIndex], [one, 0]);
  });

  it('never undoes what is committed', () => {
    const history = new ConfHistory(0, one);
    history.append([confEntry(4, two)]);
    history.commit(4);
    assert.throws(() => history.truncate(4), /never truncated/);
  });

  it('lets a removed voter lead until the removal is committed', () => {
    const history = new ConfHistory(0, three);
    history.append([confEntry(3, { voters: [2], votersOutgoing: [1, 2], learners: [], roster: [] })]);
    history.append([confEntry(5, { voters: [2], votersOutgoing: [], learners: [1], roster: [] })]);
    history.commit(4);
    assert.equal(history.mayLead(1), true);
    history.commit(5);
    assert.equal(history.mayLead(1), false);
    assert.equal(history.mayLead(2), true);
  });
});
