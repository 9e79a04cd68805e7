import assert from 'node:assert/strict';
import { createPrng, type Prng } from '../../common/prng.js';
import { RENAME_EXCHANGE } from '../../proto/types.js';
import type { Model } from '../sim/checkers/linearizability.js';
import { Arena, type Recorded, ROOTS } from './arena.js';
import { type CellsInput, cellsAnswer, cellsModel } from './cells-model.js';
import { judge } from './judge.js';
import { type TreeInput, treeAnswer, treeModel } from './tree-model.js';

const SEEDS = 20;
const OPERATIONS = 120;
const PROGRAMS = 6;
const FIRST_TAG = 100;
const NAMES = ['a', 'b'];
const CELLS = [0, 8, 4096];

function treeInput(prng: Prng, tag: number): TreeInput {
  const pick = <T>(list: readonly T[]): T => list[prng.int(list.length)] as T;
  const [dir, toDir, name, toName] = [1 + prng.int(2), 1 + prng.int(2), pick(NAMES), pick(NAMES)];
  const known = Math.max(FIRST_TAG, tag - 1 - prng.int(12));
  const inputs: TreeInput[] = [
    { kind: 'create', dir, name, tag, exclusive: true },
    { kind: 'create', dir, name, tag, exclusive: false },
    { kind: 'mkdir', dir, name, tag },
    { kind: 'unlink', dir, name },
    { kind: 'rmdir', dir, name },
    { kind: 'lookup', dir, name },
    { kind: 'lookup', dir, name },
    { kind: 'list', dir },
    { kind: 'rename', dir, name, toDir, toName, flags: prng.int(3) },
    { kind: 'chmod', tag: known, mode: prng.int(8) },
    { kind: 'stat', tag: known },
    { kind: 'setxattr', tag: known, value: String(tag) },
    { kind: 'getxattr', tag: known },
    { kind: 'link', tag: known, dir, name },
  ];
  return pick(inputs);
}

function cellsInput(prng: Prng, value: number): CellsInput {
  const at = CELLS[prng.int(CELLS.length)] as number;
  const inputs: CellsInput[] = [
    { kind: 'pwrite', at, value: String(value) },
    { kind: 'append', value: String(value) },
    { kind: 'truncate', size: at },
    { kind: 'pread', at },
    { kind: 'size' },
  ];
  return inputs[prng.int(inputs.length)] as CellsInput;
}

/** Programs that overlap, and a perfect object: each call takes effect at one moment between its call and its return. */
function perfect<S, I>(
  model: Model<S, I, string>,
  next: (prng: Prng, number: number) => I,
  answer: (state: S, input: I) => string | undefined,
  prng: Prng,
): Recorded<I>[] {
  const free = Array.from({ length: PROGRAMS }, () => 0);
  const history: Recorded<I>[] = [];
  let state = model.initial;
  for (let n = 0; n < OPERATIONS; n++) {
    const moment = n * 100;
    const program = prng.int(PROGRAMS);
    const input = next(prng, FIRST_TAG + n);
    const output = answer(state, input);
    if (output === undefined) continue;
    state = model.step(state, input, output) as S;
    const call = Math.max(free[program] as number, moment - prng.int(300));
    const end = moment + 1 + prng.int(90);
    free[program] = end;
    history.push({ ...{ client: `${program}`, mount: `${program % 3}` }, ...{ input, output, call, end } });
  }
  return history;
}

const TAGS = Array.from({ length: OPERATIONS }, (_, n) => FIRST_TAG + n);
const MODEL = treeModel(
  ROOTS.map(({ tag }) => tag),
  new Set(TAGS),
);

function treeHistory(seed: number): Recorded<TreeInput>[] {
  return perfect(MODEL, treeInput, treeAnswer, createPrng(seed));
}

function cellsHistory(seed: number): Recorded<CellsInput>[] {
  return perfect(cellsModel, cellsInput, cellsAnswer, createPrng(seed));
}

function violations(tree: Recorded<TreeInput>[], cells: Recorded<CellsInput>[] = []): string[] {
  const arena = new Arena('arena');
  arena.tree.push(...tree);
  arena.cells.push(...cells);
  const verdict = judge([arena]);
  assert.deepEqual(verdict.undecided, []);
  return verdict.violations;
}

/** Changes the answer of the one operation among `history` that `which` picks first. */
function planted<I>(
  history: Recorded<I>[],
  which: (op: Recorded<I>) => boolean,
  output: string | ((op: Recorded<I>) => string),
): Recorded<I>[] | undefined {
  const at = history.findIndex((op, n) => n > OPERATIONS / 4 && which(op));
  if (at < 0) return undefined;
  const op = history[at] as Recorded<I>;
  return history.with(at, { ...op, output: typeof output === 'string' ? output : output(op) });
}

/** How many of the histories show the defect, and how many are found out. */
function found<I>(
  make: (seed: number) => Recorded<I>[],
  plant: (history: Recorded<I>[]) => Recorded<I>[] | undefined,
  judged: (history: Recorded<I>[]) => string[],
): [planted: number, found: number] {
  let [count, seen] = [0, 0];
  for (let seed = 1; seed <= SEEDS; seed++) {
    const bad = plant(make(seed));
    if (!bad) continue;
    count++;
    if (judged(bad).length > 0) seen++;
  }
  return [count, seen];
}

/** Each program on a mount of its own. */
function apart<I>(history: readonly Recorded<I>[]): Recorded<I>[] {
  return history.map((op) => ({ ...op, mount: op.client }));
}

describe('the judge of histories', () => {
  const inCells = (cells: Recorded<CellsInput>[]): string[] => violations([], cells);

  it('finds an order for whatever a perfect file system answers', () => {
    for (let seed = 1; seed <= SEEDS; seed++)
      assert.deepEqual([seed, ...violations(treeHistory(seed), cellsHistory(seed))], [seed]);
  });

  it('finds two winners of an exclusive create', () => {
    const [count, seen] = found(
      treeHistory,
      (history) =>
        planted(
          history,
          ({ input, output }) => input.kind === 'create' && input.exclusive && output === 'EEXIST',
          ({ input }) => `${(input as { tag: number }).tag} file`,
        ),
      violations,
    );
    // Where the name goes at the same moment, the second winner has an explanation.
    assert.ok(count > SEEDS / 2 && seen >= count * 0.8, `${seen} of ${count}`);
  });

  it('finds a name that is not seen after it was made, and one that is seen after it was removed', () => {
    for (const [answer, instead] of [
      [/ file$/, 'ENOENT'],
      [/^ENOENT$/, '105 file'],
    ] as const) {
      const which = ({ input, output }: Recorded<TreeInput>): boolean =>
        input.kind === 'lookup' && answer.test(output ?? '');
      const [count, seen] = found(treeHistory, (history) => planted(history, which, instead), violations);
      assert.ok(count > SEEDS / 2 && seen >= count * 0.7, `${instead}: ${seen} of ${count}`);
    }
  });

  it('finds a stale read, a lost append, and data that came back after a truncate', () => {
    const stale = (history: Recorded<CellsInput>[]): Recorded<CellsInput>[] | undefined => {
      const writes = history.filter(({ input }) => input.kind === 'pwrite' && input.at === 0);
      const old = (writes[0]?.input as { value: string } | undefined)?.value ?? '';
      return planted(
        history,
        ({ input, output, call }) =>
          input.kind === 'pread' && input.at === 0 && output !== old && (writes[1]?.end ?? call) < call,
        old,
      );
    };
    const size = (history: Recorded<CellsInput>[]): Recorded<CellsInput>[] | undefined =>
      planted(history, ({ input, output }) => input.kind === 'size' && output !== '0', '0');
    const cut = (history: Recorded<CellsInput>[]): Recorded<CellsInput>[] | undefined =>
      planted(history, ({ input, output }) => input.kind === 'pread' && output === '', '0');
    for (const [name, plant] of Object.entries({ stale, size, cut })) {
      // A mount for each program: see what is said below of reads beside a write of their own mount.
      const [count, seen] = found((seed) => apart(cellsHistory(seed)), plant, inCells);
      assert.ok(count > SEEDS / 4 && seen >= count * 0.7, `${name}: ${seen} of ${count}`);
    }
  });

  it('lets a read beside a write of its own mount end at the size known before, and no other one', () => {
    const op = (mount: string, call: number, input: CellsInput, output: string): Recorded<CellsInput> => ({
      ...{ client: `${mount}${call}`, mount, input, output, call, end: call + 10 },
    });
    const history = (mount: string): Recorded<CellsInput>[] => [
      op('a', 0, { kind: 'append', value: '1' }, 'ok'),
      op('b', 20, { kind: 'pwrite', at: 8, value: '2' }, 'ok'),
      op(mount, 25, { kind: 'pread', at: 0 }, ''),
    ];
    assert.equal(inCells(history('b')).length, 0);
    assert.equal(inCells(history('a')).length, 1);
  });

  it('lets two mounts make the same move at the same time, and no move twice one after the other', () => {
    const op = (mount: string, call: number, input: TreeInput, output: string): Recorded<TreeInput> => ({
      ...{ client: `${mount}${call}`, mount, input, output, call, end: call + 10 },
    });
    const move = { kind: 'rename' as const, dir: 1, name: 'a', toDir: 2, toName: 'b', flags: 0 };
    const history = (call: number): Recorded<TreeInput>[] => [
      op('a', 0, { kind: 'create', dir: 1, name: 'a', tag: 7, exclusive: true }, '7 file'),
      op('a', 20, move, 'ok'),
      op('b', call, move, 'ok'),
    ];
    assert.equal(violations(history(25)).length, 0);
    assert.equal(violations(history(40)).length, 1);
  });

  it('lets an exchange meet a move of the same names at the same time, in either direction', () => {
    const op = (mount: string, call: number, input: TreeInput, output: string): Recorded<TreeInput> => ({
      ...{ client: `${mount}${call}`, mount, input, output, call, end: call + 10 },
    });
    const [one, other] = [
      { dir: 1, name: 'a', toDir: 2, toName: 'b' },
      { dir: 2, name: 'b', toDir: 1, toName: 'a' },
    ] as const;
    const rename = (ends: typeof one | typeof other, flags: number): TreeInput => ({
      ...{ kind: 'rename', flags },
      ...ends,
    });
    const history = (call: number, move: TreeInput, seen: string): Recorded<TreeInput>[] => [
      op('a', 0, { kind: 'create', dir: 1, name: 'a', tag: 7, exclusive: true }, '7 file'),
      op('b', 0, { kind: 'create', dir: 2, name: 'b', tag: 8, exclusive: true }, '8 file'),
      op('a', 20, rename(one, RENAME_EXCHANGE), 'ok'),
      op('b', call, move, 'ok'),
      op('a', 60, { kind: 'lookup', dir: 1, name: 'a' }, seen),
    ];
    for (const move of [rename(one, 0), rename(other, 0), rename(one, RENAME_EXCHANGE)]) {
      assert.equal(violations(history(25, move, '8 file')).length, 0);
      assert.equal(violations(history(40, move, '8 file')).length, 1);
      assert.equal(violations(history(25, move, '9 file')).length, 1);
    }
  });

  it('lets a name that its own mount is changing be seen as it was, and none that another mount is', () => {
    const op = (client: string, call: number, input: TreeInput, output: string): Recorded<TreeInput> => ({
      ...{ client, mount: client[0] as string, input, output, call, end: call + 10 },
    });
    const name = { dir: 1, name: 'a' };
    const history = (looks: string, calls: readonly number[]): Recorded<TreeInput>[] => [
      op('a1', 0, { kind: 'create', ...name, tag: 7, exclusive: true }, '7 file'),
      { ...op('a1', 20, { kind: 'unlink', ...name }, 'ok'), end: 70 },
      op('b1', 30, { kind: 'lookup', ...name }, 'ENOENT'),
      ...calls.map((call) => op(looks, call, { kind: 'lookup', ...name }, '7 file')),
    ];
    assert.equal(violations(history('a2', [45, 60])).length, 0);
    assert.equal(violations(history('a2', [71])).length, 1, 'the change has returned');
    assert.equal(violations(history('b2', [45])).length, 1, 'of another mount');
    const listed = op('a2', 45, { kind: 'list', dir: 1 }, '');
    assert.equal(violations([...history('a2', [60]), listed]).length, 1, 'another call saw it before');
    const elsewhere = op('a2', 45, { kind: 'list', dir: 2 }, '');
    assert.equal(violations([...history('a2', [60]), elsewhere]).length, 0, 'it had not to do with the name');
  });

  it('lets what a killed mount had not synced be lost or come late, but nothing that it had', () => {
    const op = (n: number, mount: string, input: TreeInput, output: string): Recorded<TreeInput> => ({
      ...{ client: mount, mount, input, output },
      ...{ call: 10 * n, end: 10 * n + 5 },
    });
    const create = (name: string, tag: number): TreeInput => ({
      kind: 'create',
      dir: 1,
      name,
      tag,
      exclusive: true,
    });
    const list: TreeInput = { kind: 'list', dir: 1 };
    const seen = (names: string, synced: number, open: number): string[] => {
      const arena = new Arena('arena');
      const made = [op(1, 'x', create('a', 10), '10 file'), op(2, 'x', create('b', 11), '11 file')];
      arena.tree.push(...made, op(3, 'x', list, 'a b'), op(9, 'y', list, names));
      arena.sync('x', synced);
      assert.equal(arena.forget('x'), open);
      return judge([arena]).violations;
    };
    for (const names of ['', 'a', 'b', 'a b']) assert.deepEqual(seen(names, 0, 3), []);
    assert.deepEqual(seen('a', 16, 2), []);
    assert.equal(seen('b', 16, 2).length, 1);
    assert.equal(seen('', 26, 1).length, 1);
  });
});
