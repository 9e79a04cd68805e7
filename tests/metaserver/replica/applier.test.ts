import assert from 'node:assert/strict';
import { deferred } from '../../../common/deferred.js';
import { encodeConf } from '../../../metaserver/raft/confchange.js';
import type { RaftEntry } from '../../../metaserver/raft/types.js';
import { Applier } from '../../../metaserver/replica/applier.js';
import type { Command, StateMachine } from '../../../metaserver/replica/state-machine.js';
import { RaftEntryType } from '../../../proto/gen/raft.js';

function entry(index: number, data: Buffer, type = RaftEntryType.ENTRY_COMMAND): RaftEntry {
  return { index, term: 1, type, data };
}

function machine(overrides: Partial<StateMachine<number>> = {}): StateMachine<number> {
  return {
    apply: (commands) => commands.map(({ index }) => index * 10),
    appliedIndex: () => 0,
    flushed: async () => 0,
    backup: async () => 0,
    restore: async () => undefined,
    ...overrides,
  };
}

function harness(stateMachine: StateMachine<number>) {
  const turns: (() => void)[] = [];
  const applied: { entries: number[]; commands: number[]; results: number[] }[] = [];
  const failures: unknown[] = [];
  const applier = new Applier<number>({
    stateMachine,
    schedule: (fn) => turns.push(fn),
    onApplied: (entries, commands, results) =>
      applied.push({
        entries: entries.map(({ index }) => index),
        commands: commands.map(({ index }) => index),
        results: [...results],
      }),
    onFailure: (error) => failures.push(error),
  });
  return { applier, turns, applied, failures };
}

describe('Applier', () => {
  it('hands only commands to the state machine, and reports all entries', () => {
    const { applier, applied } = harness(machine());
    const conf = encodeConf({ voters: [1], votersOutgoing: [], learners: [], roster: [] });
    applier.push([
      entry(1, Buffer.alloc(0)),
      entry(2, Buffer.from('a')),
      entry(3, conf, RaftEntryType.ENTRY_CONF_CHANGE),
      entry(4, Buffer.from('b')),
    ]);
    assert.deepEqual(applied, [{ entries: [1, 2, 3, 4], commands: [2, 4], results: [20, 40] }]);
  });

  it('applies a bounded amount in a turn and the rest in later ones, in order', () => {
    const { applier, turns, applied } = harness(machine());
    applier.push([1, 2, 3, 4, 5].map((index) => entry(index, Buffer.alloc(600_000))));
    assert.equal(applied.length, 1);
    applier.push([entry(6, Buffer.from('later'))]);
    assert.equal(applied.length, 1, 'what comes meanwhile waits its turn');
    while (turns.length > 0) turns.shift()?.();
    assert.deepEqual(
      applied.map(({ entries }) => entries),
      [
        [1, 2],
        [3, 4],
        [5, 6],
      ],
    );
    assert.equal(applier.waiting, 0);
  });

  it('waits while the state machine is behind', async () => {
    const gate = deferred<void>();
    let behind: Promise<void> | undefined = gate.promise;
    const { applier, applied } = harness(machine({ behind: () => behind }));
    applier.push([entry(1, Buffer.from('a'))]);
    applier.push([entry(2, Buffer.from('b'))]);
    assert.deepEqual(applied, []);
    behind = undefined;
    gate.resolve();
    await gate.promise;
    assert.deepEqual(
      applied.map(({ entries }) => entries),
      [[1, 2]],
    );
  });

  it('stops for good when the state machine throws or does not answer every command', () => {
    const broken: StateMachine<number>['apply'][] = [
      () => {
        throw new Error('broken');
      },
      (commands: readonly Command[]) => commands.slice(1).map(() => 0),
    ];
    for (const apply of broken) {
      const { applier, applied, failures } = harness(machine({ apply }));
      applier.push([entry(1, Buffer.from('a'))]);
      applier.push([entry(2, Buffer.from('b'))]);
      assert.equal(failures.length, 1);
      assert.deepEqual(applied, []);
    }
  });
});
