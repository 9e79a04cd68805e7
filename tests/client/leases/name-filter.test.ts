import assert from 'node:assert/strict';
import fc from 'fast-check';
import { NameFilter } from '../../../client/leases/name-filter.js';

describe('the filter of names', () => {
  it('never takes a name that it has for one that is absent', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 255 })), (names) => {
        const filter = new NameFilter();
        for (const name of names) filter.add(Buffer.from(name));
        assert.ok(names.every((name) => filter.mayHave(Buffer.from(name))));
      }),
    );
  });

  it('takes few absent names for some that may be there', () => {
    const filter = new NameFilter();
    for (let i = 0; i < 100_000; i++) filter.add(Buffer.from(`file-${i}`));
    assert.ok(filter.size > 99_900);
    let wrong = 0;
    for (let i = 100_000; i < 200_000; i++) if (filter.mayHave(Buffer.from(`file-${i}`))) wrong++;
    assert.ok(wrong < 100, `${wrong} of 100,000`);
  });
});
