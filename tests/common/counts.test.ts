import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Counts } from '../../common/counts.js';

describe('Counts', () => {
  it('equals a list of all that was counted up and not down', () => {
    const step = fc.record({ number: fc.nat(3), up: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
        const counts = new Counts();
        const model: number[] = [];
        for (const { number, up } of steps) {
          if (up) {
            counts.up(number);
            model.push(number);
          } else {
            const at = model.indexOf(number);
            if (at >= 0) model.splice(at, 1);
            assert.equal(counts.down(number), !model.includes(number));
          }
          assert.equal(counts.size, new Set(model).size);
          for (const each of [0, 1, 2, 3]) {
            assert.equal(counts.get(each), model.filter((one) => one === each).length);
            assert.equal(counts.has(each), model.includes(each));
          }
          assert.deepEqual([...counts.numbers()].sort(), [...new Set(model)].sort());
        }
      }),
    );
  });

  it('takes no room for what is counted down to none', () => {
    const counts = new Counts();
    for (let number = 0; number < 1000; number++) counts.up(number);
    for (let number = 0; number < 1000; number++) assert.ok(counts.down(number));
    assert.equal(counts.size, 0);
  });
});
