import assert from 'node:assert/strict';
import fc from 'fast-check';
import { crc32c } from '../../common/crc32c.js';
import { blockCrcs } from '../../proto/block-crc.js';
import { packTable, runCrcs } from '../../proto/extent-table.js';
import { FRAME_HEADER_BYTES, FrameType, writeHeader } from '../../proto/frame-header.js';
import { type Frame, FrameParser } from '../../proto/frame-parser.js';

function encoded(type: number, payload: Buffer, offset = 0): Buffer {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  writeHeader(header, { type, offset }, payload.length, crc32c(payload));
  return Buffer.concat([header, payload]);
}

/** Feeds a stream in pieces of the given sizes, as a socket does that hands over its own memory. */
function pushAll(parser: FrameParser, stream: Buffer, sizes: readonly number[]): void {
  for (let at = 0, i = 0; at < stream.length; i++) {
    const size = sizes[i % sizes.length] as number;
    parser.push(stream.subarray(at, at + size));
    at += size;
  }
}

/** The same into the parser's own memory, which it uses again. */
function fillAll(parser: FrameParser, stream: Buffer, sizes: readonly number[]): void {
  for (let at = 0, i = 0; at < stream.length; i++) {
    const room = parser.room();
    assert.ok(room.length > 0);
    const size = Math.min(sizes[i % sizes.length] as number, room.length, stream.length - at);
    stream.copy(room, 0, at, at + size);
    parser.filled(size);
    at += size;
  }
}

describe('FrameParser', () => {
  const payloads = [0, 1, 4096, 70_000, 0, 13, 300_000, 5000].map((bytes, i) =>
    Buffer.from(Array.from({ length: bytes }, (_, at) => (at * 31 + i) % 251)),
  );
  const stream = Buffer.concat(payloads.map((payload) => encoded(FrameType.READ, payload)));
  // A large piece in each round: a stream in single bytes takes long.
  const sizes = fc
    .array(fc.integer({ min: 1, max: 90_000 }), { maxLength: 20 })
    .map((pieces) => [...pieces, 50_000]);

  for (const [how, feed] of [
    ['pushed', pushAll],
    ['read in place', fillAll],
  ] as const) {
    it(`gives the payloads of a stream that is ${how} in pieces of any size, and leaves them alone`, () => {
      fc.assert(
        fc.property(sizes, (pieces) => {
          const frames: Frame[] = [];
          feed(new FrameParser((frame) => frames.push(frame)), stream, pieces);
          assert.deepEqual(
            frames.map((frame) => frame.payload),
            payloads,
          );
        }),
        { numRuns: 30 },
      );
    });

    it(`refuses a payload whose checksum does not match, ${how}`, () => {
      for (const type of [FrameType.READ, FrameType.WRITE, FrameType.REPLICATE_WRITE]) {
        const bytes = encoded(type, Buffer.alloc(100_000, 7), 4000);
        bytes[FRAME_HEADER_BYTES + 50_000] = 8;
        const parser = new FrameParser(() => assert.fail('delivered'));
        assert.throws(() => feed(parser, bytes, [30_000]), /checksum/);
      }
    });
  }

  it('reads the rest of a large payload to its place', () => {
    const payload = Buffer.alloc(1024 * 1024, 3);
    const frames: Frame[] = [];
    const parser = new FrameParser((frame) => frames.push(frame));
    const begin = parser.room().length;
    const bytes = encoded(FrameType.READ, payload);
    bytes.copy(parser.room(), 0, 0, begin);
    parser.filled(begin);
    const rest = parser.room();
    assert.equal(rest.length, bytes.length - begin);
    bytes.copy(rest, 0, begin);
    parser.filled(rest.length);
    assert.equal(frames[0]?.payload.buffer, rest.buffer);
    assert.deepEqual(frames[0]?.payload, payload);
  });

  it('gives the checksums of the blocks of what is to be stored, and of nothing else', () => {
    const payload = Buffer.alloc(10_000, 9);
    const crcs = (type: number): number[] | undefined => {
      const frames: Frame[] = [];
      new FrameParser((frame) => frames.push(frame)).push(encoded(type, payload, 4000));
      return frames[0]?.blockCrcs && [...frames[0].blockCrcs];
    };
    const expected = [...blockCrcs(4000, payload)];
    assert.equal(expected.length, 4);
    assert.deepEqual(crcs(FrameType.WRITE), expected);
    assert.deepEqual(crcs(FrameType.REPLICATE_WRITE), expected);
    assert.equal(crcs(FrameType.READ), undefined);
    assert.equal(crcs(FrameType.WRITE | FrameType.REPLY), undefined);
  });

  it('gives the places and checksums of several runs, and refuses a payload that was changed anywhere', () => {
    const runs = [
      { start: 100, end: 5000 },
      { start: 9000, end: 9001 },
    ];
    const payload = Buffer.concat([packTable(runs), Buffer.alloc(4901, 5)]);
    for (const type of [FrameType.WRITE_EXTENTS, FrameType.REPLICATE_EXTENTS]) {
      const frames: Frame[] = [];
      new FrameParser((frame) => frames.push(frame)).push(encoded(type, payload));
      assert.deepEqual(frames[0]?.runs, runs);
      assert.deepEqual(frames[0]?.blockCrcs, runCrcs(payload, runs));
      for (const at of [5, 12, 30, payload.length - 1]) {
        const bytes = encoded(type, payload);
        bytes[FRAME_HEADER_BYTES + at] = (bytes[FRAME_HEADER_BYTES + at] as number) ^ 1;
        const parser = new FrameParser(() => assert.fail('delivered'));
        assert.throws(() => parser.push(bytes), /checksum|a table of|runs that/);
      }
    }
  });
});
