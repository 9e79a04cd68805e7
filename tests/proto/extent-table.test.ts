import assert from 'node:assert/strict';
import fc from 'fast-check';
import { crc32c } from '../../common/crc32c.js';
import { blockCrcs } from '../../proto/block-crc.js';
import {
  appendTableCrcs,
  packTable,
  runCrcs,
  TABLE_EXTENTS_MAX,
  tableBytes,
  unpackTable,
} from '../../proto/extent-table.js';

const runs = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 9000 }), fc.integer({ min: 1, max: 9000 })), {
    minLength: 1,
    maxLength: 20,
  })
  .map((steps) => {
    let at = 0;
    return steps.map(([gap, length]) => {
      const start = at + gap;
      at = start + length;
      return { start, end: at };
    });
  });

function payloadOf(list: readonly { start: number; end: number }[]): Buffer {
  const data = list.map(({ start, end }, i) => Buffer.alloc(end - start, i + 1));
  return Buffer.concat([packTable(list), ...data]);
}

describe('a table of runs', () => {
  it('says where the bytes behind it belong, and their checksums combine into that of the payload', () => {
    fc.assert(
      fc.property(runs, fc.nat(0xffff_ffff), (list, before) => {
        const payload = payloadOf(list);
        assert.deepEqual(unpackTable(payload), list);
        const crcs = runCrcs(payload, list);
        const each = list.flatMap(({ start, end }, i) => [
          ...blockCrcs(start, Buffer.alloc(end - start, i + 1)),
        ]);
        assert.deepEqual([...crcs], each);
        assert.equal(appendTableCrcs(before, payload, list, crcs), crc32c(payload, before));
      }),
    );
  });

  it('is refused when runs are missing, empty, overlap, or are not what the payload holds', () => {
    const good = [
      { start: 10, end: 20 },
      { start: 20, end: 25 },
    ];
    const refused = (payload: Buffer) => assert.throws(() => unpackTable(payload), /a table of|runs that/);
    assert.equal(unpackTable(payloadOf(good)).length, 2);
    refused(Buffer.alloc(0));
    refused(packTable([]));
    refused(payloadOf(good).subarray(0, tableBytes(1)));
    refused(payloadOf(good).subarray(0, -1));
    refused(Buffer.concat([payloadOf(good), Buffer.alloc(1)]));
    refused(payloadOf([...good].reverse()));
    refused(payloadOf([{ start: 5, end: 5 }]));
    const many = Array.from({ length: TABLE_EXTENTS_MAX + 1 }, (_, i) => ({ start: i, end: i + 1 }));
    refused(payloadOf(many));
    assert.equal(unpackTable(payloadOf(many.slice(1))).length, TABLE_EXTENTS_MAX);
  });
});
