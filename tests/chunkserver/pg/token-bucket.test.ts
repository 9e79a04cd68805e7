import assert from 'node:assert/strict';
import fc from 'fast-check';
import { TokenBucket } from '../../../chunkserver/pg/token-bucket.js';

describe('a token bucket', () => {
  it('lets at most the rate and one burst and one item pass, and not much less when asked all the time', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 50, maxLength: 100 }), (items) => {
        const bucket = new TokenBucket(100_000, 1000, 0);
        let now = 0;
        let passed = 0;
        for (const bytes of items) {
          for (let wait = bucket.take(bytes, now); wait > 0; wait = bucket.take(bytes, now)) now += wait;
          passed += bytes;
          assert.ok(passed <= now * 100 + 1000 + bytes);
        }
        assert.ok(passed >= (now - 1) * 100 - items.length * 100);
      }),
    );
  });

  it('saves up a burst while it rests, and no more', () => {
    const bucket = new TokenBucket(1000, 500, 0);
    assert.equal(bucket.take(500, 0), 0);
    assert.equal(bucket.take(1, 0), 1);
    assert.equal(bucket.take(499, 1_000_000), 0);
    assert.equal(bucket.take(100, 1_000_000), 0);
    assert.equal(bucket.take(1, 1_000_000), 99);
  });
});
