import assert from 'node:assert/strict';
import fc from 'fast-check';
import { systemClock } from '../../common/clock.js';
import { silentLogger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import { FRAME_HEADER_BYTES, FrameType, readHeader, writeHeader } from '../../proto/frame-header.js';
import { dialFrames, FrameError, type FrameHandler, FrameServer } from '../../proto/frames.js';
import { PROTOCOL_VERSION } from '../../proto/types.js';

const HELLO = { protocol: PROTOCOL_VERSION, clusterId: 'c1', role: 'client' as const, id: 7 };
const base = { clock: systemClock, log: silentLogger };
const refuse: FrameHandler = async () => {
  throw new HoldfastError('EINVAL');
};

async function withServer(
  handler: FrameHandler,
  use: (port: number, server: FrameServer) => Promise<void>,
): Promise<void> {
  const server = new FrameServer({ ...base, handler, hello: { ...HELLO, role: 'chunkserver', id: 1 } });
  const port = await server.listen('127.0.0.1', 0);
  try {
    await use(port, server);
  } finally {
    server.close();
  }
}

describe('data frames', () => {
  it('keeps every header field', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 127 }),
        fc.maxSafeNat(),
        fc.maxSafeInteger(),
        fc.nat(0xffffffff),
        (type, ino, aux, word) => {
          const buffer = Buffer.alloc(FRAME_HEADER_BYTES);
          const fields = {
            type,
            ino,
            aux,
            pg: word,
            chunk: word,
            versionSeq: ino,
            truncateSeq: word,
            length: word,
          };
          writeHeader(buffer, fields, 5, 9);
          const header = readHeader(buffer);
          assert.deepEqual(
            { ...header },
            {
              ...{ flags: 0, deadlineMs: 0, requestId: 0, status: 0, epoch: 0, offset: 0, versionEpoch: 0 },
              ...fields,
              isReply: false,
              payloadLength: 5,
              payloadCrc: 9,
            },
          );
        },
      ),
    );
  });

  it('refuses a header with any bit flipped', () => {
    const buffer = Buffer.alloc(FRAME_HEADER_BYTES);
    writeHeader(buffer, { type: FrameType.READ, ino: 5 }, 0, 0);
    for (let bit = 0; bit < FRAME_HEADER_BYTES * 8; bit++) {
      const damaged = Buffer.from(buffer);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      assert.throws(() => readHeader(damaged), HoldfastError);
    }
  });

  it('answers many calls in any order, both ways', async () => {
    const gate: (() => void)[] = [];
    const handler: FrameHandler = async (frame) => {
      if (frame.header.chunk === 0) await new Promise<void>((resolve) => gate.push(resolve));
      return { fields: { aux: frame.header.chunk }, payload: [frame.payload, Buffer.from('!')] };
    };
    await withServer(handler, async (port) => {
      const connection = await dialFrames(
        '127.0.0.1',
        port,
        { ...base, handler: refuse, hello: HELLO },
        5_000,
      );
      assert.equal(connection.peer?.id, 1);
      const first = connection.call({ type: FrameType.READ, chunk: 0 }, Buffer.from('a'), 5_000);
      const second = await connection.call({ type: FrameType.READ, chunk: 1 }, Buffer.from('b'), 5_000);
      assert.equal(second.payload.toString(), 'b!');
      gate[0]?.();
      assert.equal((await first).payload.toString(), 'a!');
      connection.close('done');
    });
  });

  it('carries errors with their code, text and fields', async () => {
    const handler: FrameHandler = async () => {
      throw new FrameError('NEED_TRUNCATE', { truncateSeq: 3 }, 'hm');
    };
    await withServer(handler, async (port) => {
      const connection = await dialFrames(
        '127.0.0.1',
        port,
        { ...base, handler: refuse, hello: HELLO },
        5_000,
      );
      await assert.rejects(connection.call({ type: FrameType.READ }, undefined, 5_000), (error: unknown) => {
        assert.ok(error instanceof FrameError);
        assert.equal(error.errorName, 'NEED_TRUNCATE');
        assert.equal(error.fields.truncateSeq, 3);
        return true;
      });
      connection.close('done');
    });
  });

  it('rejects all pending calls when the connection breaks', async () => {
    const handler: FrameHandler = () => new Promise(() => {});
    await withServer(handler, async (port, server) => {
      const connection = await dialFrames(
        '127.0.0.1',
        port,
        { ...base, handler: refuse, hello: HELLO },
        5_000,
      );
      const calls = [1, 2, 3].map(() => connection.call({ type: FrameType.READ }, undefined, 0));
      server.close();
      for (const call of calls) await assert.rejects(call, /connection broke/);
      assert.ok(await connection.closed);
    });
  });

  it('refuses another cluster and another protocol version', async () => {
    await withServer(refuse, async (port) => {
      const dial = (hello: typeof HELLO) =>
        dialFrames('127.0.0.1', port, { ...base, handler: refuse, hello }, 5_000);
      await assert.rejects(dial({ ...HELLO, clusterId: 'c2' }), /another cluster/);
      await assert.rejects(dial({ ...HELLO, protocol: 99 }), /not supported/);
    });
  });

  it('says who cannot be reached', async () => {
    await assert.rejects(
      dialFrames('127.0.0.1', 1, { ...base, handler: refuse, hello: HELLO }, 5_000),
      /127\.0\.0\.1:1/,
    );
  });
});
