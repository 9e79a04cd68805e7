import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  checkLinearizable,
  type Operation,
  type RegisterInput,
  registerModel,
} from './checkers/linearizability.js';
import { type NameInput, type NameOutput, namespaceModel } from './checkers/namespace-model.js';

type RegisterOperation = Operation<RegisterInput, string>;

function write(value: string, call: number, end: number): RegisterOperation {
  return { client: 'a', input: { kind: 'write', value }, output: value, call, end };
}

function read(output: string, call: number, end: number): RegisterOperation {
  return { client: 'b', input: { kind: 'read' }, output, call, end };
}

/** Without a return: it may have happened or not. */
function lost(value: string, call: number): RegisterOperation {
  const end = Number.POSITIVE_INFINITY;
  return { client: 'c', input: { kind: 'write', value }, output: undefined, call, end };
}

const isLinear = (...history: RegisterOperation[]): boolean => checkLinearizable(registerModel, history).ok;

/** All orders of the operations, tried one after the other. */
function naive(history: readonly RegisterOperation[], state = ''): boolean {
  if (history.every(({ output }) => output === undefined)) return true;
  return history.some((op) => {
    if (history.some((other) => other.end < op.call)) return false;
    const next = registerModel.step(state, op.input, op.output);
    return (
      next !== undefined &&
      naive(
        history.filter((other) => other !== op),
        next,
      )
    );
  });
}

const registerHistory = fc
  .array(
    fc.record({
      start: fc.nat(12),
      length: fc.integer({ min: 1, max: 8 }),
      value: fc.constantFrom('1', '2', '3'),
      kind: fc.constantFrom('read', 'write', 'lost'),
    }),
    { maxLength: 6 },
  )
  .map((all) =>
    // No two moments are the same: calls are even, returns odd.
    all.map(({ start, length, value, kind }, i) => {
      const call = start * 20 + 2 * i;
      const end = (start + length) * 20 + 2 * i + 1;
      if (kind === 'lost') return lost(value, call);
      return kind === 'read' ? read(value, call, end) : write(value, call, end);
    }),
  );

describe('the linearizability checker', () => {
  it('takes overlapping operations in any order that explains what was read', () => {
    assert.ok(isLinear(write('1', 0, 10), write('2', 1, 9), read('1', 11, 12)));
    assert.ok(isLinear(write('1', 0, 10), write('2', 1, 9), read('2', 11, 12)));
    assert.ok(isLinear(write('1', 0, 10), read('', 1, 2), read('1', 3, 4)));
  });

  it('refuses a stale read, a read of nothing, and two readers who disagree on the order', () => {
    assert.ok(!isLinear(write('1', 0, 1), write('2', 2, 3), read('1', 4, 5)));
    assert.ok(!isLinear(write('1', 0, 1), read('7', 2, 3)));
    const overlapping = [write('1', 0, 9), write('2', 1, 8)];
    const onlyFirst = [read('1', 10, 11), read('2', 12, 13), read('1', 14, 15)];
    assert.ok(!isLinear(...overlapping, ...onlyFirst));
    assert.ok(!isLinear(write('1', 0, 10), read('1', 1, 2), read('', 3, 4)));
  });

  it('lets an operation without an answer take effect late, or never, but only once', () => {
    assert.ok(isLinear(lost('1', 0), read('', 1, 2), read('1', 3, 4)));
    assert.ok(isLinear(lost('1', 0), read('', 1, 2)));
    assert.ok(!isLinear(lost('1', 0), write('2', 1, 2), read('1', 3, 4), read('2', 5, 6), read('1', 7, 8)));
  });

  it('agrees with the trial of all orders', () => {
    fc.assert(
      fc.property(registerHistory, (history) => {
        assert.equal(checkLinearizable(registerModel, history).ok, naive(history));
      }),
      { numRuns: 2000 },
    );
  });

  it('lets a write of what is there already come later, where it is needed', () => {
    const between = { ...write('1', 26, 47), client: 'c' };
    const history = [write('2', 2, 43), write('2', 4, 25), between, read('2', 60, 81)];
    assert.ok(checkLinearizable(registerModel, history).ok);
    assert.ok(checkLinearizable(registerModel, [write('1', 0, 1), write('1', 2, 3), read('1', 4, 5)]).ok);
  });

  it('tells the longest order and what does not fit', () => {
    const verdict = checkLinearizable(registerModel, [write('1', 0, 1), read('1', 2, 3), read('9', 4, 5)]);
    assert.equal(verdict.longest.length, 2);
    assert.deepEqual(
      verdict.stuck.map(({ output }) => output),
      ['9'],
    );
  });
});

describe('the model of names', () => {
  let moment = 0;
  const done = (input: NameInput, output: NameOutput): Operation<NameInput, NameOutput> => ({
    client: 'a',
    input,
    output,
    call: moment++,
    end: moment++,
  });
  const ok = (...history: Operation<NameInput, NameOutput>[]): boolean =>
    checkLinearizable(namespaceModel, history).ok;
  const create = (name: string, tag: number): NameInput => ({
    kind: 'create',
    dir: 0,
    name,
    tag,
    exclusive: true,
  });

  it('makes a file once: a create that was applied twice shows', () => {
    assert.ok(ok(done(create('a', 1), { tag: 1 }), done(create('a', 2), { error: 'EEXIST' })));
    assert.ok(!ok(done(create('a', 1), { error: 'EEXIST' })));
    assert.ok(!ok(done(create('a', 1), { tag: 1 }), done(create('a', 2), { tag: 2 })));
  });

  it('moves, exchanges and keeps names as rename(2) does', () => {
    const both = [done(create('a', 1), { tag: 1 }), done(create('b', 2), { tag: 2 })];
    const rename = (flags: number): NameInput => ({
      kind: 'rename',
      dir: 0,
      name: 'a',
      toDir: 0,
      toName: 'b',
      flags,
    });
    const list: NameInput = { kind: 'list', dir: 0 };
    assert.ok(ok(...both, done(rename(0), {}), done(list, { names: 'b=1' })));
    assert.ok(ok(...both, done(rename(1), { error: 'EEXIST' }), done(list, { names: 'a=1 b=2' })));
    assert.ok(ok(...both, done(rename(2), {}), done(list, { names: 'a=2 b=1' })));
    assert.ok(!ok(...both, done(rename(0), {}), done(list, { names: 'a=1 b=1' })));
  });
});
