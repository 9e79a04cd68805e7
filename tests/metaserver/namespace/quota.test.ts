import assert from 'node:assert/strict';
import fc from 'fast-check';
import { checkNamespace } from '../../../metaserver/fsck/namespace-check.js';
import { MetaStateMachine } from '../../../metaserver/namespace/state-machine.js';
import {
  type ChangeQuota,
  type CommandResult,
  CommitWrite,
  Mutation,
  type QuotaAmount,
  type QuotaGrant,
  QuotaKind,
} from '../../../proto/gen/meta.js';
import { RENAME_EXCHANGE, S_IFDIR, S_IFREG } from '../../../proto/types.js';
import {
  type Body,
  dumpKv,
  encodeCommand,
  errorOf,
  makeNode,
  Namespace,
  NONE,
  type Op,
  setAttr,
} from './harness.js';
import { FIRST_OPS, opArbitrary } from './random-ops.js';

const { QUOTA_TREE, QUOTA_USER, QUOTA_GROUP } = QuotaKind;

function change(kind: QuotaKind, id: number, limits: Partial<ChangeQuota>): Body {
  return { $case: 'changeQuota', value: { kind, id, remove: false, ...limits } };
}

/** Sets a quota, and counts until it binds. @returns its number */
function setQuota(
  fs: Namespace,
  kind: QuotaKind,
  id: number,
  limits: Partial<ChangeQuota>,
  max = 100,
): number {
  const { error, quota } = fs.command(change(kind, id, limits));
  assert.equal(error, 0);
  finish(fs, kind, quota?.id ?? 0, max);
  return quota?.id ?? 0;
}

function finish(fs: Namespace, kind: QuotaKind, id: number, max = 100): void {
  for (let steps = 0; ; steps++) {
    const { quota } = fs.command({ $case: 'stepQuota', value: { kind, id, max } });
    if (quota?.finished) return;
    assert.ok(steps < 1000, 'counting ends');
  }
}

function used(fs: Namespace, kind: QuotaKind, id: number): [bytes: number, inodes: number] | undefined {
  const quota = fs.machine
    .quotas()
    .list()
    .find((one) => one.kind === kind && one.id === id);
  return quota && [quota.bytes, quota.inodes];
}

function commit(ino: number, allocatedDelta: number): Op {
  return { $case: 'commitWrite', value: { ...CommitWrite.create({}), ino, allocatedDelta, newSize: 1 } };
}

function reserve(
  fs: Namespace,
  session: number,
  seq: number,
  need: QuotaAmount[],
  giveBack: QuotaAmount[] = [],
): QuotaGrant {
  const op: Op = { $case: 'reserveQuota', value: { need, want: [], giveBack } };
  const value = { ...Mutation.create({}), session, seq, ackedBelow: 1, op };
  const { error, mutation } = fs.command({ $case: 'mutation', value });
  assert.equal(error, 0);
  return mutation?.quota as QuotaGrant;
}

/** What a check of the whole namespace finds, quotas included. */
async function findings(fs: Namespace): Promise<string[]> {
  const view = await fs.kv.view();
  const report = await checkNamespace({ view, pace: { pause: async () => {} }, progress: () => {} });
  view.close();
  return [...report.findings.map(({ text }) => text), ...(report.totals ? [report.totals.text] : [])];
}

/** Takes away what waits to be reclaimed, as if nobody had anything open. */
function reclaimAll(fs: Namespace): void {
  for (const { ino, truncateSeq } of fs.machine.reclaims(undefined, 1000))
    fs.command({ $case: 'reclaimDone', value: { ino, truncateSeq } });
}

describe('quotas in the state machine', () => {
  it('refuses one inode beyond the limit of a tree, and takes it again when one has gone', async () => {
    const fs = new Namespace();
    const d = fs.mkdir(fs.root, 'd');
    const tree = setQuota(fs, QUOTA_TREE, d, { inodes: 3 });
    const sub = fs.mkdir(d, 'sub');
    fs.create(sub, 'f');
    fs.refused(makeNode(sub, 'g', S_IFREG), 'EDQUOT');
    fs.refused(makeNode(d, 'h', S_IFDIR), 'EDQUOT');
    fs.refused({ $case: 'makeNode', value: { ...MAKE_TMP, parent: d } }, 'EDQUOT');
    fs.create(fs.root, 'outside');
    fs.ok(fs.unlink(sub, 'f'));
    // It may be open: it counts until its data has gone.
    fs.refused(makeNode(sub, 'g', S_IFREG), 'EDQUOT');
    reclaimAll(fs);
    fs.create(sub, 'g');
    assert.deepEqual(used(fs, QUOTA_TREE, tree), [0, 3]);
    assert.deepEqual(await findings(fs), []);
  });

  it('counts what was in a tree before, in steps, while it changes', async () => {
    const fs = new Namespace();
    const d = fs.mkdir(fs.root, 'd');
    const subs = [0, 1, 2].map((n) => fs.mkdir(d, `s${n}`));
    for (const sub of subs) for (let n = 0; n < 20; n++) fs.ok(commit(fs.create(sub, `f${n}`), 100));
    const { quota } = fs.command(change(QUOTA_TREE, d, { inodes: 70, bytes: 1e6 }));
    const id = quota?.id ?? 0;
    for (let step = 0; step < 9; step++) {
      fs.command({ $case: 'stepQuota', value: { kind: QUOTA_TREE, id, max: 5 } });
      // Not refused before all is counted.
      fs.create(subs[step % 3] as number, `new${step}`);
      fs.mkdir(subs[step % 3] as number, `dir${step}`);
      fs.ok(fs.unlink(subs[(step + 1) % 3] as number, `f${step}`));
    }
    finish(fs, QUOTA_TREE, id, 5);
    reclaimAll(fs);
    assert.deepEqual(used(fs, QUOTA_TREE, id), [(60 - 9) * 100, 1 + 3 + 60 + 9]);
    fs.refused(makeNode(d, 'more', S_IFREG), 'EDQUOT');
    assert.deepEqual(await findings(fs), []);
  });

  it('lets the tightest of nested limits win, whichever was set first', async () => {
    for (const outerFirst of [true, false]) {
      const fs = new Namespace();
      const outer = fs.mkdir(fs.root, 'outer');
      const inner = fs.mkdir(outer, 'inner');
      fs.create(inner, 'f');
      const order: [number, number][] = [
        [outer, 5],
        [inner, 3],
      ];
      const ids = new Map<number, number>();
      for (const [dir, inodes] of outerFirst ? order : order.reverse())
        ids.set(dir, setQuota(fs, QUOTA_TREE, dir, { inodes }, 1));
      assert.deepEqual(used(fs, QUOTA_TREE, ids.get(outer) as number), [0, 3]);
      fs.create(inner, 'g');
      fs.refused(makeNode(inner, 'h', S_IFREG), 'EDQUOT');
      fs.create(outer, 'h');
      fs.refused(makeNode(outer, 'i', S_IFREG), 'EDQUOT');
      const value = { ino: inner };
      const { inodesFree, inodesUsed } = fs.read({ $case: 'statFs', value }) as {
        inodesFree: number;
        inodesUsed: number;
      };
      assert.deepEqual([inodesUsed, inodesFree], [3, 0]);
      assert.deepEqual(await findings(fs), []);
    }
  });

  it('moves files between trees with what they count, and refuses what cannot move alone', async () => {
    const fs = new Namespace();
    const [a, c] = [fs.mkdir(fs.root, 'a'), fs.mkdir(fs.root, 'c')];
    const [treeA, treeC] = [a, c].map((dir) => setQuota(fs, QUOTA_TREE, dir, { bytes: 1000, inodes: 4 })) as [
      number,
      number,
    ];
    fs.ok(commit(fs.create(a, 'f'), 800));
    fs.ok(fs.rename(a, 'f', c, 'f'));
    assert.deepEqual(
      [used(fs, QUOTA_TREE, treeA), used(fs, QUOTA_TREE, treeC)],
      [
        [0, 1],
        [800, 2],
      ],
    );
    fs.ok(commit(fs.create(a, 'big'), 300));
    fs.refused(fs.rename(a, 'big', c, 'big'), 'EDQUOT');
    const f = fs.lookup(c, 'f').ino;
    fs.refused(fs.link(f, a, 'l'), 'EXDEV');
    fs.refused(fs.link(f, fs.root, 'l'), 'EXDEV');
    fs.ok(fs.link(f, c, 'l'));
    fs.refused(fs.rename(c, 'f', a, 'f'), 'EXDEV');
    fs.refused(fs.rename(c, 'f', a, 'big', { flags: RENAME_EXCHANGE }), 'EXDEV');
    const full = fs.mkdir(a, 'full');
    fs.create(full, 'x');
    fs.refused(fs.rename(a, 'full', fs.root, 'full'), 'EXDEV');
    fs.ok(fs.unlink(full, 'x'));
    fs.ok(fs.rename(a, 'full', fs.root, 'full'));
    assert.equal(fs.get(full).project, undefined);
    // The directory of a tree moves within what is around it.
    fs.ok(fs.rename(fs.root, 'c', full, 'c'));
    fs.refused(fs.rename(full, 'c', a, 'c'), 'EXDEV');
    reclaimAll(fs);
    assert.deepEqual(await findings(fs), []);
  });

  it('counts users and groups over all trees, and moves what they count with chown', async () => {
    const fs = new Namespace();
    const files = [1, 2, 3].map((n) => fs.create(fs.root, `f${n}`, { uid: 7, gid: 8 }));
    for (const ino of files) fs.ok(commit(ino, 10));
    setQuota(fs, QUOTA_USER, 7, { inodes: 4 }, 1);
    setQuota(fs, QUOTA_GROUP, 9, { bytes: 15 }, 1);
    assert.deepEqual(
      [used(fs, QUOTA_USER, 7), used(fs, QUOTA_GROUP, 9)],
      [
        [30, 3],
        [0, 0],
      ],
    );
    fs.create(fs.root, 'f4', { uid: 7, gid: 9 });
    fs.refused(makeNode(fs.root, 'f5', S_IFREG, { uid: 7 }), 'EDQUOT');
    fs.refused(setAttr(fs.create(fs.root, 'f5'), { uid: 7 }), 'EDQUOT');
    fs.ok(setAttr(files[0] as number, { gid: 9 }));
    fs.refused(setAttr(files[1] as number, { gid: 9 }), 'EDQUOT');
    fs.ok(setAttr(files[0] as number, { uid: 0 }));
    assert.deepEqual(
      [used(fs, QUOTA_USER, 7), used(fs, QUOTA_GROUP, 9)],
      [
        [20, 3],
        [10, 2],
      ],
    );
    const directory = fs.mkdir(fs.root, 'd', { gid: 9, perm: 0o2755 });
    fs.create(directory, 'inherits');
    assert.deepEqual(used(fs, QUOTA_GROUP, 9), [10, 4]);
    fs.command(change(QUOTA_USER, 7, { remove: true }));
    assert.equal(used(fs, QUOTA_USER, 7), undefined);
    assert.deepEqual(await findings(fs), []);
  });

  it('sets reservations aside for one session, which only its own mutations take up', () => {
    const fs = new Namespace();
    const d = fs.mkdir(fs.root, 'd');
    const id = setQuota(fs, QUOTA_TREE, d, { inodes: 3, bytes: 100 });
    const other = fs.openSession('client-2');
    const amount = (bytes: number, inodes: number): QuotaAmount => ({ kind: QUOTA_TREE, id, bytes, inodes });
    assert.equal(reserve(fs, other, 1, [amount(60, 2)]).granted.length, 1);
    fs.refused(makeNode(d, 'f', S_IFREG), 'EDQUOT');
    assert.deepEqual(reserve(fs, fs.session, ++fs.seq, [amount(50, 0)]), {
      granted: [],
      held: true,
      reclaiming: false,
    });
    // A change that was answered already takes its reservation's place, and is never refused.
    const make = {
      ...Mutation.create({}),
      session: other,
      seq: 2,
      ackedBelow: 1,
      op: makeNode(d, 'g', S_IFREG),
    };
    const spent = { amounts: [amount(0, 1)] };
    fs.command({ $case: 'mutation', value: { ...make, spent } });
    assert.deepEqual(used(fs, QUOTA_TREE, id), [0, 2]);
    assert.deepEqual(fs.machine.quotas().reserved(QUOTA_TREE, id), {
      bytes: 60,
      inodes: 1,
      sessions: [other],
    });
    // Repeated, it is not taken twice.
    fs.command({ $case: 'mutation', value: { ...make, spent } });
    assert.equal(fs.machine.quotas().reserved(QUOTA_TREE, id).inodes, 1);
    reserve(fs, other, 3, [], [amount(10, 0)]);
    assert.equal(reserve(fs, fs.session, ++fs.seq, [amount(50, 0)]).granted.length, 1);
    fs.command({ $case: 'expireSession', value: { session: other } });
    assert.deepEqual(fs.machine.quotas().reserved(QUOTA_TREE, id), {
      bytes: 50,
      inodes: 0,
      sessions: [fs.session],
    });
    fs.create(d, 'h');
    assert.deepEqual(new MetaStateMachine(fs.kv).quotas().reserved(QUOTA_TREE, id).bytes, 50);
  });

  it('takes a tree apart again, and keeps what nothing leads to until it has gone', async () => {
    const fs = new Namespace();
    const outer = fs.mkdir(fs.root, 'o');
    const d = fs.mkdir(outer, 'd');
    const outerId = setQuota(fs, QUOTA_TREE, outer, { inodes: 100 });
    const id = setQuota(fs, QUOTA_TREE, d, { inodes: 50 });
    const inner = fs.mkdir(d, 'inner');
    const innerId = setQuota(fs, QUOTA_TREE, inner, { inodes: 10 });
    for (let n = 0; n < 8; n++) fs.create(n < 4 ? d : inner, `f${n}`);
    fs.ok(fs.unlink(d, 'f0'));
    assert.equal(fs.command(change(QUOTA_TREE, d, { remove: true })).error, 0);
    assert.equal(errorOf(fs.command(change(QUOTA_TREE, inner, { remove: true }))), 'EBUSY');
    finish(fs, QUOTA_TREE, id, 2);
    assert.deepEqual(
      [used(fs, QUOTA_TREE, id), used(fs, QUOTA_TREE, outerId)],
      [
        [0, 1],
        [0, 11],
      ],
    );
    assert.deepEqual(used(fs, QUOTA_TREE, innerId), [0, 5]);
    assert.equal(fs.get(d).project, outerId);
    reclaimAll(fs);
    assert.deepEqual([used(fs, QUOTA_TREE, id), used(fs, QUOTA_TREE, outerId)], [undefined, [0, 10]]);
    // With its directory a quota ends.
    for (let n = 4; n < 8; n++) fs.ok(fs.unlink(inner, `f${n}`));
    reclaimAll(fs);
    fs.ok(fs.rmdir(d, 'inner'));
    assert.equal(used(fs, QUOTA_TREE, innerId), undefined);
    assert.deepEqual(await findings(fs), []);
  });

  it('refuses what makes no sense', () => {
    const fs = new Namespace();
    const f = fs.create(fs.root, 'f');
    const outcome = (body: Body): string => errorOf(fs.command(body));
    assert.equal(outcome(change(QUOTA_TREE, f, { bytes: 1 })), 'ENOTDIR');
    assert.equal(outcome(change(QUOTA_TREE, 999, { bytes: 1 })), 'ENOENT');
    assert.equal(outcome(change(QUOTA_TREE, fs.root, {})), 'EINVAL');
    assert.equal(outcome(change(QUOTA_USER, 5, { remove: true })), 'ENOENT');
  });

  it('counts exactly, after any operations, however the log is cut into batches', async () => {
    const dirs = fc.integer({ min: 1, max: 6 });
    const quotaBody = fc.oneof(
      fc
        .record({ id: dirs, inodes: fc.integer({ min: 4, max: 12 }), remove: fc.boolean() })
        .map((r) => change(QUOTA_TREE, r.id, r)),
      fc
        .record({
          id: fc.constantFrom(0, 10, 20),
          inodes: fc.integer({ min: 3, max: 9 }),
          remove: fc.boolean(),
        })
        .map((r) => change(QUOTA_USER, r.id, r)),
      fc
        .record({ ino: fc.integer({ min: 7, max: 12 }), delta: fc.integer({ min: -50, max: 200 }) })
        .map(
          (r): Body => ({ $case: 'mutation', value: { ...Mutation.create({}), op: commit(r.ino, r.delta) } }),
        ),
      fc
        .integer({ min: 1, max: 30 })
        .map((max): Body => ({ $case: 'stepQuota', value: { kind: QUOTA_TREE, id: 0, max } })),
    );
    const step = fc.oneof(
      {
        weight: 5,
        arbitrary: opArbitrary.map(
          (op): Body => ({ $case: 'mutation', value: { ...Mutation.create({}), op } }),
        ),
      },
      { weight: 2, arbitrary: quotaBody },
    );
    const property = fc.asyncProperty(
      fc.array(step, { minLength: 30, maxLength: 90 }),
      fc.nat(9),
      async (bodies, cut) => {
        const fs = new Namespace();
        const log: { index: number; data: Buffer }[] = [];
        const first = fs.machine.appliedIndex();
        for (const op of FIRST_OPS)
          run(fs, log, { $case: 'mutation', value: { ...Mutation.create({}), op } });
        for (const body of bodies) {
          // A step is of whatever is being counted.
          if (body.$case === 'stepQuota') {
            for (const { kind, id } of fs.machine
              .quotas()
              .list()
              .filter(({ state }) => state === 0 || state === 2))
              run(fs, log, { $case: 'stepQuota', value: { ...body.value, kind, id } });
          } else run(fs, log, body);
        }
        assert.deepEqual(await findings(fs), []);
        const again = new Namespace();
        assert.equal(again.machine.appliedIndex(), first);
        for (let at = 0; at < log.length; at += cut + 1) again.machine.apply(log.slice(at, at + cut + 1));
        assert.deepEqual(dumpKv(again.kv), dumpKv(fs.kv));
        for (const { kind, id } of fs.machine
          .quotas()
          .list()
          .filter(({ state }) => state === 0 || state === 2))
          finish(fs, kind, id, 3);
        reclaimAll(fs);
        assert.deepEqual(await findings(fs), []);
      },
    );
    await fc.assert(property, { numRuns: 20, seed: 11 });
  }).timeout(60_000);
});

const MAKE_TMP = {
  ...(makeNode(0, '', S_IFREG).value as object),
  unnamed: true,
  name: NONE,
  mode: S_IFREG,
} as Extract<Op, { $case: 'makeNode' }>['value'];

function run(fs: Namespace, log: { index: number; data: Buffer }[], body: Body): CommandResult {
  let command = body;
  if (body.$case === 'mutation') {
    const { session } = fs;
    command = { $case: 'mutation', value: { ...body.value, session, seq: ++fs.seq, ackedBelow: fs.seq } };
  }
  const entry = { index: fs.machine.appliedIndex() + 1, data: encodeCommand(command, ++fs.now) };
  log.push(entry);
  return fs.machine.apply([entry])[0] as CommandResult;
}
