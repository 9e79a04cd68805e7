import assert from 'node:assert/strict';
import fc from 'fast-check';
import { FORMAT_KEY } from '../../../metaserver/namespace/keys.js';
import { MetaStateMachine } from '../../../metaserver/namespace/state-machine.js';
import { MemoryKv } from '../../../metaserver/store/memory-kv.js';
import { HoldfastError } from '../../../proto/errors.js';
import { type CommandResult, type InitCluster, Mutation } from '../../../proto/gen/meta.js';
import { S_IFREG } from '../../../proto/types.js';
import {
  type Body,
  dumpKv,
  encodeCommand,
  errorOf,
  INIT,
  makeNode,
  Namespace,
  throwsWith,
} from './harness.js';
import { commandArbitrary, FIRST_OPS } from './random-ops.js';

const NOOP: Body = { $case: 'noop', value: {} };

describe('MetaStateMachine', () => {
  it('starts empty, and makes the cluster once', () => {
    const machine = new MetaStateMachine(new MemoryKv());
    assert.deepEqual([machine.appliedIndex(), machine.cluster(), machine.mapVersion()], [0, undefined, 0]);
    const apply = (body: Body): CommandResult =>
      machine.apply([
        { index: machine.appliedIndex() + 1, data: encodeCommand(body, 1) },
      ])[0] as CommandResult;
    const early = apply({ $case: 'openSession', value: { clientUuid: 'u', hostname: '', mountPoint: '' } });
    assert.equal(errorOf(early), 'UNAVAILABLE');
    assert.equal(apply(INIT).mapChanged, true);
    assert.equal(apply(INIT).mapChanged, false);
    assert.deepEqual(machine.cluster(), INIT.value);
    assert.equal(machine.mapVersion(), 1);
    const other: Body = { $case: 'initCluster', value: { ...(INIT.value as InitCluster), clusterId: 'c2' } };
    assert.equal(errorOf(apply(other)), 'WRONG_CLUSTER');
    assert.equal(machine.usage().inodes, 1);
  });

  it('keeps the applied index with the state, over gaps, no-ops and restarts', () => {
    const { kv, machine } = new Namespace();
    const at = machine.appliedIndex();
    const results = machine.apply([
      { index: at + 1, data: Buffer.alloc(0) },
      { index: at + 5, data: encodeCommand(NOOP, 1) },
      { index: at + 6, data: encodeCommand(undefined, 1) },
    ]);
    assert.deepEqual(results.map(errorOf), ['ok', 'ok', 'ok']);
    assert.equal(machine.appliedIndex(), at + 6);
    const again = new MetaStateMachine(kv);
    assert.equal(again.appliedIndex(), at + 6);
    assert.deepEqual(again.apply([]), []);
    assert.throws(() => again.apply([{ index: at + 6, data: Buffer.alloc(0) }]), /entry/);
    assert.throws(() => again.apply([{ index: at + 7, data: Buffer.alloc(0) }]), /entry/);
  });

  it('answers an undecodable command with a refusal, the same everywhere', () => {
    const { machine } = new Namespace();
    const data = Buffer.from([0x12, 0xff, 0xff]);
    const [result] = machine.apply([{ index: machine.appliedIndex() + 1, data }]);
    assert.equal(errorOf(result as CommandResult), 'PROTOCOL');
  });

  it('hands out results that later commands of the batch do not change', () => {
    const fs = new Namespace();
    const entries = [1, 2, 3].map((seq) => {
      const op = seq === 1 ? makeNode(fs.root, 'f', S_IFREG) : fs.link(2, fs.root, `l${seq}`);
      const value = { ...Mutation.create({}), session: fs.session, seq, ackedBelow: 1, op };
      return {
        index: fs.machine.appliedIndex() + seq,
        data: encodeCommand({ $case: 'mutation', value }, seq),
      };
    });
    const results = fs.machine.apply(entries);
    const nlinks = results.map(
      ({ mutation }) => (mutation as { result: { value: { nlink: number } } }).result.value.nlink,
    );
    assert.deepEqual(nlinks, [1, 2, 3]);
  });

  it('refuses a store of another format', () => {
    const { kv } = new Namespace();
    kv.transaction((txn) => txn.put(FORMAT_KEY, Buffer.from([0, 0, 0, 9])));
    assert.throws(() => new MetaStateMachine(kv), throwsWith('VERSION'));
  });

  it('stops for good when its store fails', () => {
    const fs = new Namespace();
    let fail = true;
    const broken = Object.assign(Object.create(fs.kv), {
      transaction(fn: never) {
        if (fail) throw new Error('disk gone');
        return fs.kv.transaction(fn);
      },
    }) as MemoryKv;
    const machine = new MetaStateMachine(broken);
    const entry = { index: machine.appliedIndex() + 1, data: encodeCommand(NOOP, 1) };
    assert.throws(() => machine.apply([entry]), /disk gone/);
    fail = false;
    assert.throws(() => machine.apply([entry]), /disk gone/);
    assert.throws(() => machine.read({ op: { $case: 'getAttr', value: { ino: 1 } } }), /disk gone/);
  });

  it('makes no result of a value that is damaged: its state would be another one than that of the rest', () => {
    class DamagedKv extends MemoryKv {
      damaged = false;
      override get(key: Buffer): Buffer | undefined {
        if (this.damaged) throw new HoldfastError('CORRUPT');
        return super.get(key);
      }
    }
    const kv = new DamagedKv();
    const fs = new Namespace(kv);
    const [before, index] = [dumpKv(kv), fs.machine.appliedIndex()];
    kv.damaged = true;
    const mutation = Mutation.create({ session: fs.session, seq: 99, op: makeNode(1, 'f', S_IFREG | 0o644) });
    const data = encodeCommand({ $case: 'mutation', value: mutation }, 1);
    assert.throws(() => fs.machine.apply([{ index: index + 1, data }]), throwsWith('CORRUPT'));
    kv.damaged = false;
    assert.deepEqual(dumpKv(kv), before);
  });

  it('gives equal stores and results for equal logs, however they are cut, restarted or crashed', () => {
    fc.assert(
      fc.property(
        fc.array(commandArbitrary, { maxLength: 60 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 9 })),
        (commands, cuts) => {
          const log = [INIT, open('a'), open('b'), ...firstCommands(), ...commands].map((body, index) => ({
            index: index + 1,
            data: encodeCommand(body, index * 7),
          }));
          const one = new MetaStateMachine(new MemoryKv());
          const expected = log.map((entry) => one.apply([entry])[0] as CommandResult);

          let kv = new MemoryKv();
          let machine = new MetaStateMachine(kv);
          const results: CommandResult[] = [];
          for (const cut of cuts) {
            const from = machine.appliedIndex();
            if (from === log.length) break;
            for (const [n, result] of machine.apply(log.slice(from, from + cut)).entries())
              results[from + n] = result;
            if (cut === 8) void kv.flushed();
            if (cut === 7) machine = new MetaStateMachine(kv);
            if (cut === 9) {
              kv = kv.afterCrash();
              machine = new MetaStateMachine(kv);
            }
          }
          assert.deepEqual(results, expected);
          assert.deepEqual(dumpKv(kv), dumpKv((one as unknown as { kv: MemoryKv }).kv));
        },
      ),
      { numRuns: 150, seed: 11 },
    );
  });
});

function open(clientUuid: string): Body {
  return { $case: 'openSession', value: { clientUuid, hostname: 'h', mountPoint: '/m' } };
}

function firstCommands(): Body[] {
  return FIRST_OPS.map((op, index) => ({
    $case: 'mutation',
    value: { session: 1, seq: index + 1, ackedBelow: 1, op },
  }));
}
