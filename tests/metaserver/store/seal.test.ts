import assert from 'node:assert/strict';
import fc from 'fast-check';
import { SEAL_BYTES, seal, unseal } from '../../../metaserver/store/seal.js';

describe('a sealed value', () => {
  it('has the same bytes for ever', () => {
    assert.equal(seal(Buffer.from('key'), Buffer.from('value')).toString('hex'), '76616c7565d531ccb1');
    assert.equal(seal(Buffer.from([1]), Buffer.alloc(0)).toString('hex'), '8c5b0c04');
  });

  it('opens to what was sealed', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1 }), fc.uint8Array(), (key, value) => {
        const sealed = seal(Buffer.from(key), Buffer.from(value));
        assert.equal(sealed.length, value.length + SEAL_BYTES);
        assert.ok(unseal(Buffer.from(key), sealed)?.equals(value));
      }),
      { seed: 5 },
    );
  });

  it('does not open when any bit of value, checksum or key is another one', () => {
    const key = Buffer.from('some key');
    const sealed = seal(key, Buffer.from('some value'));
    for (const [what, bytes] of [
      ['stored', sealed],
      ['key', key],
    ] as const) {
      for (let bit = 0; bit < bytes.length * 8; bit++) {
        const flipped = Buffer.from(bytes);
        flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
        const opened = what === 'key' ? unseal(flipped, sealed) : unseal(key, flipped);
        assert.equal(opened, undefined, `bit ${bit} of the ${what}`);
      }
    }
    for (let length = 0; length < sealed.length; length++) {
      assert.equal(unseal(key, sealed.subarray(0, length)), undefined, `cut to ${length} bytes`);
    }
  });
});
