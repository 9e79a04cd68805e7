import assert from 'node:assert/strict';
import { deferred } from '../../../common/deferred.js';
import { encodeConf } from '../../../metaserver/raft/confchange.js';
import type { RaftEntry } from '../../../metaserver/raft/types.js';
import { Applier } from '../../../metaserver/replica/applier.js';
import type { Command, StateMachine } from '../../../metaserver/replica/state-machine.js';
import { RaftEntryType } from '../../../proto/gen/raft.js';
import { ManualClock } from '../../client/support/manual-clock.js';

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

function harness(stateMachine: StateMachine<number>, waitedFor = () => true) {
  const clock = new ManualClock();
  const turns: (() => void)[] = [];
  const applied: { entries: number[]; commands: number[]; results: number[] }[] = [];
  const failures: unknown[] = [];
  const applier = new Applier<number>({
    stateMachine,
    clock,
    waitedFor,
    schedule: (fn) => turns.push(fn),
    onApplied: (entries, commands, results) =>
      applied.push({
        entries: entries.map(({ index }) => index),
        commands: commands.map(({ index }) => index),
        results: [...results],
      }),
    onFailure: (error) => failures.push(error),
  });
  return { applier, clock, turns, applied, failures };
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

  it('lets entries gather where nobody waits for them, up to a bound', async () => {
    let leads = false;
    const { applier, clock, turns, applied } = harness(machine(), () => leads);
    const groups = () => applied.splice(0).map(({ entries }) => entries);
    applier.push([entry(1, Buffer.from('a'))]);
    await clock.advance(30);
    applier.push([entry(2, Buffer.from('b'))]);
    await clock.advance(19);
    assert.deepEqual(groups(), []);
    await clock.advance(1);
    assert.deepEqual(groups(), [[1, 2]], 'the first has waited for long enough');
    await clock.advance(1000);
    assert.deepEqual(groups(), []);

    applier.push([entry(3, Buffer.from('c'))]);
    applier.push([entry(4, Buffer.alloc(300_000))]);
    assert.deepEqual(groups(), [[3, 4]], 'many bytes do not wait');
    const many = Array.from({ length: 64 }, (_, i) => entry(5 + i, Buffer.from('d')));
    applier.push(many);
    assert.deepEqual(groups(), []);
    applier.push([entry(69, Buffer.from('e'))]);
    assert.equal(groups()[0]?.length, 65, 'nor do many entries');

    applier.push([entry(70, Buffer.from('f'))]);
    applier.hurry();
    assert.deepEqual(groups(), [[70]]);
    leads = true;
    applier.push([entry(71, Buffer.from('g'))]);
    assert.deepEqual(groups(), [[71]]);
    assert.equal(clock.timers, 0);
    assert.equal(turns.length, 0);
  });

  it('applies nothing that had gathered when it was stopped or cleared', async () => {
    for (const end of ['stop', 'clear'] as const) {
      const { applier, clock, applied } = harness(machine(), () => false);
      applier.push([entry(1, Buffer.from('a'))]);
      applier[end]();
      await clock.advance(1000);
      assert.deepEqual(applied, []);
    }
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
