import assert from 'node:assert/strict';
import { checkNamespace } from '../../../metaserver/fsck/namespace-check.js';
import { snapshotBlocks } from '../../../metaserver/fsck/snapshot-stream.js';
import {
  RESTORE_EPOCHS_SKIPPED,
  RESTORE_INODES_SKIPPED,
  RESTORE_TRUNCATES_SKIPPED,
} from '../../../metaserver/namespace/restore.js';
import { MetaStateMachine } from '../../../metaserver/namespace/state-machine.js';
import { MemoryKv } from '../../../metaserver/store/memory-kv.js';
import { errorFromCode } from '../../../proto/errors.js';
import type { SnapshotBlock } from '../../../proto/gen/admin.js';
import type { CommandResult, RestoreRecords } from '../../../proto/gen/meta.js';
import { type Body, dumpKv, encodeCommand, Namespace, setAttr } from './harness.js';

/** A machine that holds no cluster, and what it is told. */
class Empty {
  readonly kv = new MemoryKv();
  readonly machine = new MetaStateMachine(this.kv);
  now = 5000;

  command(body: Body): CommandResult {
    const index = this.machine.appliedIndex() + 1;
    const [result] = this.machine.apply([{ index, data: encodeCommand(body, this.now++) }]);
    return result as CommandResult;
  }

  restore(fields: Partial<RestoreRecords>): string {
    const none = { begin: false, records: [], end: false, count: 0, counters: Buffer.alloc(0) };
    const { error } = this.command({ $case: 'restoreRecords', value: { ...none, ...fields } });
    return error === 0 ? 'ok' : errorFromCode(error).errorName;
  }

  /** All blocks as commands. */
  restoreAll(blocks: readonly SnapshotBlock[]): string[] {
    let begin = true;
    return blocks.flatMap(({ body }) => {
      if (body?.$case === 'header') return [];
      const fields =
        body?.$case === 'end'
          ? { end: true, count: body.value.records, counters: body.value.counters }
          : { records: body?.value.records ?? [] };
      const result = this.restore({ begin, ...fields });
      begin = false;
      return [result];
    });
  }
}

function sample(): Namespace {
  const ns = new Namespace(new MemoryKv());
  const d = ns.mkdir(ns.root, 'd');
  const f = ns.create(d, 'f');
  ns.ok(setAttr(f, { size: 9000 }));
  ns.ok(setAttr(f, { size: 10 }));
  ns.symlink(ns.root, 's', 'target');
  for (let i = 0; i < 2000; i++) ns.create(d, `file-${i}`);
  return ns;
}

describe('restoring a snapshot', () => {
  it('brings back every file, and numbers on far behind what may have been given since', async () => {
    const ns = sample();
    const blocks = [...snapshotBlocks(ns.kv, 77)];
    assert.ok(blocks.length > 5);
    const empty = new Empty();
    assert.ok(empty.restoreAll(blocks).every((result) => result === 'ok'));
    const read = (machine: MetaStateMachine, parent: number, name: string) => {
      const { result } = machine.read({
        op: { $case: 'lookup', value: { parent, name: Buffer.from(name) } },
      });
      return result?.$case === 'attr' ? result.value : assert.fail();
    };
    const before = ns.lookup(ns.lookup(ns.root, 'd').ino, 'f');
    const after = read(empty.machine, read(empty.machine, 1, 'd').ino, 'f');
    assert.deepEqual(after, { ...before, truncateSeq: before.truncateSeq + RESTORE_TRUNCATES_SKIPPED });
    assert.equal(empty.machine.map().version, ns.machine.map().version + RESTORE_EPOCHS_SKIPPED);
    assert.equal(empty.machine.cluster()?.clusterId, 'c1');
    assert.deepEqual(empty.machine.sessions(), []);
    assert.deepEqual(empty.machine.usage(), ns.machine.usage());
    const view = await empty.kv.view();
    const report = await checkNamespace({ view, pace: { pause: async () => {} }, progress: () => {} });
    assert.equal(report.count, 0);
    const again = new Namespace(empty.kv);
    assert.ok(again.create(1, 'new') > RESTORE_INODES_SKIPPED);
  });

  it('gives the same store on every server, also after one that started anew in the middle', () => {
    const blocks = [...snapshotBlocks(sample().kv, 77)];
    const one = new Empty();
    one.restoreAll(blocks);
    const two = new Empty();
    const commands: Body[] = [];
    const apply = two.command.bind(two);
    two.command = (body) => {
      commands.push(body);
      return apply(body);
    };
    two.restoreAll(blocks.slice(0, 3));
    const third = new MetaStateMachine(two.kv);
    let index = third.appliedIndex();
    const rest = new Empty();
    rest.command = (body) =>
      third.apply([{ index: ++index, data: encodeCommand(body, 5000 + index - 1) }])[0] as CommandResult;
    for (const { body } of blocks.slice(3)) {
      if (body?.$case === 'records') assert.equal(rest.restore({ records: body.value.records }), 'ok');
      if (body?.$case === 'end') {
        const { records: count, counters } = body.value;
        assert.equal(rest.restore({ end: true, count, counters }), 'ok');
      }
    }
    assert.deepEqual(dumpKv(two.kv), dumpKv(one.kv));
  });

  it('is begun anew after an attempt that ended, and forgets what that one left', () => {
    const blocks = [...snapshotBlocks(sample().kv, 77)];
    const empty = new Empty();
    const other = new Namespace(new MemoryKv());
    other.create(other.root, 'left');
    empty.restoreAll([...snapshotBlocks(other.kv, 1)].slice(0, -1));
    empty.restoreAll(blocks);
    const clean = new Empty();
    clean.restoreAll(blocks);
    const state = (kv: MemoryKv): string[] => dumpKv(kv).filter((line) => !line.startsWith('53636f'));
    assert.deepEqual(state(empty.kv), state(clean.kv));
  });

  it('is refused where there is a cluster, without a begin, with foreign records, or when some are missing', () => {
    const blocks = [...snapshotBlocks(sample().kv, 77)];
    const full = new Empty();
    full.restoreAll(blocks);
    assert.equal(full.restore({ begin: true }), 'EEXIST');
    const empty = new Empty();
    assert.equal(empty.restore({}), 'EINVAL');
    assert.equal(
      empty.restore({ begin: true, records: [{ key: Buffer.from('Zsession'), value: Buffer.from('x') }] }),
      'EINVAL',
    );
    const end = blocks.at(-1)?.body;
    assert.ok(end?.$case === 'end');
    empty.restoreAll(blocks.slice(0, -2));
    assert.equal(
      empty.restore({ end: true, count: end.value.records, counters: end.value.counters }),
      'EINVAL',
    );
    assert.equal(empty.machine.cluster(), undefined);
  });
});
