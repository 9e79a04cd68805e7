import assert from 'node:assert/strict';
import fc from 'fast-check';
import { LruMap } from '../../common/lru-map.js';

type Step = { op: 'get' | 'peek' | 'set' | 'delete' | 'shift' | 'clear'; key: number };

/** The same with an array, the entry used last at its end. */
class NaiveLru {
  entries: [number, number][] = [];

  find(key: number): [number, number] | undefined {
    return this.entries.find(([known]) => known === key);
  }

  remove(key: number): boolean {
    const before = this.entries.length;
    this.entries = this.entries.filter(([known]) => known !== key);
    return this.entries.length < before;
  }

  use(entry: [number, number]): void {
    this.remove(entry[0]);
    this.entries.push(entry);
  }
}

describe('a map in the order of use', () => {
  it('does what a list in that order does', () => {
    const op = fc.constantFrom<Step['op']>(
      'get',
      'get',
      'peek',
      'set',
      'set',
      'set',
      'delete',
      'shift',
      'clear',
    );
    const steps = fc.array(fc.record({ op, key: fc.integer({ min: 0, max: 7 }) }), { maxLength: 80 });
    fc.assert(
      fc.property(steps, (all) => {
        const map = new LruMap<number, number>();
        const naive = new NaiveLru();
        for (const [at, step] of all.entries()) {
          assert.deepEqual(carryOut(map, step, at), expected(naive, step, at));
          assert.deepEqual([...map], naive.entries);
          assert.equal(map.size, naive.entries.length);
          assert.deepEqual(map.oldest(), naive.entries[0]);
          assert.equal(map.has(step.key), naive.find(step.key) !== undefined);
        }
      }),
      { seed: 7 },
    );
  });

  it('lets the entry that is visited be deleted', () => {
    const map = new LruMap<string, number>();
    for (const key of ['a', 'b', 'c', 'd']) map.set(key, key.charCodeAt(0));
    const seen: string[] = [];
    for (const [key] of map) {
      seen.push(key);
      if (key !== 'c') map.delete(key);
    }
    assert.deepEqual(seen, ['a', 'b', 'c', 'd']);
    assert.deepEqual([...map], [['c', 99]]);
  });
});

function carryOut(map: LruMap<number, number>, { op, key }: Step, value: number): unknown {
  if (op === 'set') return map.set(key, value);
  if (op === 'shift' || op === 'clear') return map[op]();
  return map[op](key);
}

function expected(naive: NaiveLru, { op, key }: Step, value: number): unknown {
  const entry = naive.find(key);
  if (op === 'peek') return entry?.[1];
  if (op === 'delete') return naive.remove(key);
  if (op === 'shift') return naive.entries.shift();
  if (op === 'clear') naive.entries = [];
  if (op === 'set') naive.use([key, value]);
  if (op === 'get' && entry) naive.use(entry);
  return op === 'get' ? entry?.[1] : undefined;
}
