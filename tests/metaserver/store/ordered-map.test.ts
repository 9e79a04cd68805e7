import assert from 'node:assert/strict';
import { createPrng } from '../../../common/prng.js';
import { OrderedMap } from '../../../metaserver/store/ordered-map.js';

interface Box {
  n: number;
}

describe('OrderedMap', () => {
  it('equals a sorted copy under many random sets, deletes and ranges', () => {
    const prng = createPrng(4);
    const map = new OrderedMap<Box>();
    const model = new Map<string, Box>();
    const key = (): string => String.fromCharCode(prng.int(256), prng.int(256), prng.int(3));
    for (let step = 0; step < 40; step++) {
      const deleting = step % 4 === 3;
      for (let n = 0; n < 600; n++) {
        const name = deleting && model.size > 0 ? pick([...model.keys()].slice(0, 50)) : key();
        if (deleting) {
          map.delete(name);
          model.delete(name);
        } else {
          const box = { n };
          assert.equal(map.set(name, box), model.get(name));
          model.set(name, box);
        }
      }
      const [a, b] = [key(), key()].sort() as [string, string];
      const inside = [...model]
        .filter(([name]) => name >= a && name < b)
        .sort(([x], [y]) => (x < y ? -1 : 1));
      const expected = inside.map(([, box]) => box);
      assert.deepEqual([...map.range(a, b)], expected);
      assert.deepEqual([...map.range(a, b, true)], expected.toReversed());
      assert.equal(map.size, model.size);
    }

    function pick(keys: string[]): string {
      return keys[prng.int(keys.length)] as string;
    }
  });

  it('splits runs of keys that come one by one, in any direction', () => {
    for (const direction of [1, -1]) {
      const map = new OrderedMap<Box>();
      for (let n = 0; n < 3000; n++) {
        const at = direction > 0 ? n : 3000 - n;
        map.set(String(at).padStart(5, '0'), { n: at });
        if (n % 10 === 0) assert.ok([...map.range('0', '1')].length === n + 1);
      }
      const order = [...map.range('0', '1')].map(({ n }) => n);
      assert.deepEqual(
        order,
        order.toSorted((x, y) => x - y),
      );
    }
  });

  it('finds a key again that was deleted and set anew between ranges', () => {
    const map = new OrderedMap<Box>();
    for (let round = 0; round < 3; round++) {
      map.set('k', { n: round });
      assert.deepEqual([...map.range('a', 'z')], [{ n: round }]);
      map.delete('k');
      assert.deepEqual([...map.range('a', 'z')], []);
    }
    map.set('k', { n: 1 });
    map.delete('k');
    map.set('k', { n: 2 });
    assert.deepEqual([...map.range('a', 'z')], [{ n: 2 }]);
    assert.deepEqual([...map.range('a', 'k')], []);
    assert.deepEqual([...map.range('k', 'l', true)], [{ n: 2 }]);
  });
});
