import assert from 'node:assert/strict';
import {
  CAUGHT_UP_ENTRIES,
  type MembershipStep,
  type MembershipView,
  nextMembershipStep,
  removalProblem,
} from '../../../metaserver/replica/membership.js';
import type { RaftMember } from '../../../proto/gen/raft.js';

/** Member `id` is a disk of the server in its last digit: 1, 11 and 21 are disks of server 1. */
function member(id: number, address = `host:${id % 10}`): RaftMember {
  return { id, server: id % 10, diskUuid: `disk-${id}`, address };
}

interface Given {
  voters: number[];
  learners?: number[];
  outgoing?: number[];
  /** Disks that answer now; those of them that are members are alive. */
  present: number[];
  match?: Record<number, number>;
  joining?: number[];
  leaving?: number[];
  self?: number;
  moved?: number;
  commit?: number;
}

function view(given: Given): MembershipView {
  const { voters, learners = [], outgoing = [], present, match = {}, self = voters[0] as number } = given;
  const ids = [...new Set([...voters, ...learners, ...outgoing])];
  return {
    conf: { voters, votersOutgoing: outgoing, learners, roster: ids.map((id) => member(id)) },
    self,
    commit: given.commit ?? 10_000,
    progress: new Map(ids.map((id) => [id, { match: match[id] ?? 10_000, alive: present.includes(id) }])),
    present: present.map((id) => member(id, id === given.moved ? 'elsewhere:1' : undefined)),
    joining: new Set(given.joining),
    leaving: new Set(given.leaving),
  };
}

function text(step: MembershipStep | undefined): string {
  if (!step) return 'nothing';
  if (step.kind === 'transfer') return `transfer to ${step.to}`;
  const { voters, learners } = step.conf;
  return `(${voters})${learners.length > 0 ? `[${learners}]` : ''}`;
}

describe('membership', () => {
  const cases: [string, Given, string][] = [
    ['leaves alone what is whole', { voters: [1, 2, 3], present: [1, 2, 3] }, 'nothing'],
    ['leaves alone a server that is only down', { voters: [1, 2, 3], present: [1, 2] }, 'nothing'],
    [
      'takes a server with another disk in as a learner',
      { voters: [1, 2, 3], present: [1, 2, 13] },
      '(1,2,3)[13]',
    ],
    [
      'keeps the lost disk as a voter until the new one has caught up',
      {
        voters: [1, 2, 3],
        learners: [13],
        present: [1, 2, 13],
        match: { 13: 10_000 - CAUGHT_UP_ENTRIES - 1 },
      },
      'nothing',
    ],
    [
      'lets the new disk take the place of the lost one in one change',
      { voters: [1, 2, 3], learners: [13], present: [1, 2, 13], match: { 13: 10_000 - CAUGHT_UP_ENTRIES } },
      '(1,2,13)',
    ],
    [
      'does nothing while a change is under way',
      { voters: [1, 2, 13], outgoing: [1, 2, 3], present: [1, 2, 13] },
      'nothing',
    ],
    [
      'goes on with a learner that another leader took in',
      { voters: [1, 2, 3], learners: [13], present: [1, 2, 13], self: 2 },
      '(1,2,13)',
    ],
    [
      'promotes no learner that has nothing yet, however young the cluster is',
      { voters: [1, 2, 3], learners: [13], present: [1, 2, 13], match: { 13: 0 }, commit: 5 },
      'nothing',
    ],
    ['promotes no learner that is silent', { voters: [1, 2, 3], learners: [13], present: [1, 2] }, 'nothing'],
    [
      'drops a learner whose disk was lost again',
      { voters: [1, 2, 3], learners: [13], present: [1, 2, 23] },
      '(1,2,3)',
    ],
    [
      'drops a learner whose former disk came back',
      { voters: [1, 2, 3], learners: [13], present: [1, 2, 3] },
      '(1,2,3)',
    ],
    [
      'leaves a server in that is alive, whoever else claims its number',
      { voters: [1, 2, 3], present: [1, 2, 3, 13] },
      'nothing',
    ],
    [
      'takes one of two new disks at a time',
      { voters: [1, 2, 3, 4, 5], present: [1, 2, 3, 14, 15] },
      '(1,2,3,4,5)[14]',
    ],
    ['takes in no stranger that nobody asked for', { voters: [1, 2, 3], present: [1, 2, 3, 4] }, 'nothing'],
    [
      'takes in a server that was added, as a learner',
      { voters: [1, 2, 3], present: [1, 2, 3, 4], joining: [4] },
      '(1,2,3)[4]',
    ],
    [
      'makes a server that was added a voter beside the others',
      { voters: [1, 2, 3], learners: [4], present: [1, 2, 3, 4] },
      '(1,2,3,4)',
    ],
    ['removes a follower', { voters: [1, 2, 3], present: [1, 2, 3], leaving: [3] }, '(1,2)'],
    ['removes a server that is down', { voters: [1, 2, 3], present: [1, 2], leaving: [3] }, '(1,2)'],
    [
      'removes a learner of the server with its lost voter',
      { voters: [1, 2, 3], learners: [13], present: [1, 2, 13], leaving: [3] },
      '(1,2)',
    ],
    [
      'hands over before the leader is removed, to the one that is furthest',
      { voters: [1, 2, 3], present: [1, 2, 3], leaving: [1], match: { 2: 9000 } },
      'transfer to 3',
    ],
    [
      'removes nobody without whom no majority would be alive',
      { voters: [1, 2, 3], present: [1, 2], leaving: [2] },
      'nothing',
    ],
    ['removes nobody who is no member', { voters: [1, 2, 3], present: [1, 2, 3], leaving: [7] }, 'nothing'],
  ];
  for (const [what, given, expected] of cases) {
    it(what, () => assert.equal(text(nextMembershipStep(view(given))), expected));
  }

  it('notes where a server that moved is found now', () => {
    const step = nextMembershipStep(view({ voters: [1, 2, 3], present: [1, 2, 3], moved: 2 }));
    assert.equal(text(step), '(1,2,3)');
    assert.deepEqual(step?.kind === 'change' && step.conf.roster.map(({ address }) => address), [
      'host:1',
      'elsewhere:1',
      'host:3',
    ]);
  });

  it('says why a server cannot be removed', () => {
    const problem = (given: Given, server: number) => removalProblem(view(given), server);
    assert.equal(problem({ voters: [1], present: [1] }, 1), 'it is the last metaserver');
    assert.match(problem({ voters: [1, 2, 3], present: [1, 3] }, 3) ?? '', /of the 2 others only 1 is alive/);
    assert.equal(problem({ voters: [1, 2, 3], present: [1, 2] }, 3), undefined);
  });

  it('reaches the full set from any single loss, with every step needing a majority of the old voters only', () => {
    let conf = view({ voters: [1, 2, 3], present: [] }).conf;
    const seen: string[] = [];
    for (let i = 0; i < 10; i++) {
      const next = nextMembershipStep({
        conf,
        self: 1,
        commit: 5,
        progress: new Map([1, 2, 13].map((id) => [id, { match: 5, alive: true }])),
        present: [1, 2, 13].map((id) => member(id)),
        joining: new Set(),
        leaving: new Set(),
      });
      if (next?.kind !== 'change') break;
      conf = next.conf;
      seen.push(text(next));
    }
    assert.deepEqual(seen, ['(1,2,3)[13]', '(1,2,13)']);
  });
});
