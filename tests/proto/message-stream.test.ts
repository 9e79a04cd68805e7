import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import fc from 'fast-check';
import { HoldfastError } from '../../proto/errors.js';
import { MessageParser, RpcStream, STREAM_QUEUE_MAX } from '../../proto/message-stream.js';
import { MAX_MESSAGE_BYTES } from '../../proto/types.js';

/** Messages that are their own encoding. */
const bytesType = {
  encode: (message: Uint8Array) => ({ finish: () => message }),
  decode: (input: Uint8Array) => input,
};

/** A socket that keeps what is written and takes it only when `taken` is called. */
class FakeSocket extends Duplex {
  readonly written: Buffer[] = [];
  #release: (() => void)[] = [];
  held = false;

  constructor() {
    super({ allowHalfOpen: false });
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.written.push(chunk);
    if (this.held) this.#release.push(done);
    else done();
  }

  takeAll(): void {
    for (const done of this.#release.splice(0)) done();
  }
}

function newStream(): { socket: FakeSocket; stream: RpcStream<Uint8Array, Uint8Array> } {
  const socket = new FakeSocket();
  return { socket, stream: new RpcStream(socket, bytesType, bytesType, 'peer') };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** What a stream puts on the wire for these messages. */
async function wireBytes(messages: readonly Uint8Array[]): Promise<Buffer> {
  const { socket, stream } = newStream();
  for (const message of messages) stream.send(message);
  await turn();
  return Buffer.concat(socket.written);
}

describe('message streams', () => {
  it('deliver every message whole and in order, however the bytes are cut', async () => {
    const message = fc.uint8Array({ maxLength: 40 });
    const cuts = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 50 });
    await fc.assert(
      fc.asyncProperty(fc.array(message, { maxLength: 20 }), cuts, async (messages, sizes) => {
        const wire = await wireBytes(messages);
        const received: Buffer[] = [];
        const parser = new MessageParser((payload) => received.push(Buffer.from(payload)));
        for (let at = 0, i = 0; at < wire.length; i++) {
          const size = sizes[i % sizes.length] as number;
          parser.push(wire.subarray(at, at + size));
          at += size;
        }
        assert.deepEqual(
          received,
          messages.map((one) => Buffer.from(one)),
        );
      }),
      { numRuns: 200, seed: 7 },
    );
  });

  it('hand over what was read at once apart, when they are asked to: each behind all that the one before it has set off', async () => {
    const messages = Array.from({ length: 4 }, (_, i) => Buffer.from([i]));
    const wire = await wireBytes(messages);
    const { socket, stream } = newStream();
    const log: string[] = [];
    const settle = async (what: string): Promise<void> => {
      for (let hop = 0; hop < 20; hop++) await undefined;
      log.push(`${what} acted upon`);
    };
    stream.onMessage((message) => {
      log.push(`${message[0]}`);
      void settle(`${message[0]}`);
    }, true);
    const ended = new Promise<void>((resolve) =>
      stream.onEnd((reason) => {
        log.push(reason);
        resolve();
      }),
    );
    // The last one is cut in two, and comes with the end.
    socket.push(wire.subarray(0, -3));
    socket.push(wire.subarray(-3));
    socket.push(null);
    await ended;
    const each = messages.flatMap((_, i) => [`${i}`, `${i} acted upon`]);
    assert.deepEqual(log, [...each, 'ended by the peer']);
  });

  it('hand over no more of what was read at once when they are broken off', async () => {
    const wire = await wireBytes([Buffer.from([0]), Buffer.from([1]), Buffer.from([2])]);
    const { socket, stream } = newStream();
    const log: string[] = [];
    stream.onMessage((message) => {
      log.push(`${message[0]}`);
      if (message[0] === 1) stream.destroy('enough');
    }, true);
    stream.onEnd((reason) => log.push(reason));
    socket.push(wire);
    for (let i = 0; i < 10; i++) await turn();
    assert.deepEqual(log, ['0', '1', 'enough']);
  });

  it('carry messages larger than one joined write', async () => {
    const large = [Buffer.alloc(100_000, 1), Buffer.alloc(3, 2), Buffer.alloc(2_000_000, 3)];
    const received: Buffer[] = [];
    const parser = new MessageParser((payload) => received.push(payload));
    const wire = await wireBytes(large);
    for (let at = 0; at < wire.length; at += 65_536) parser.push(wire.subarray(at, at + 65_536));
    assert.deepEqual(received, large);
  });

  it('join what one turn of the event loop sends into one write', async () => {
    const { socket, stream } = newStream();
    for (let i = 0; i < 10; i++) stream.send(Buffer.from([i]));
    await turn();
    assert.equal(socket.written.length, 1);
  });

  it('refuse a damaged message and one above the limit before memory is allocated for it', async () => {
    const wire = await wireBytes([Buffer.from('hello')]);
    wire[wire.length - 1] = (wire[wire.length - 1] as number) ^ 1;
    const parser = new MessageParser(() => assert.fail('a damaged message was delivered'));
    assert.throws(
      () => parser.push(wire),
      (error: unknown) => error instanceof HoldfastError && error.errorName === 'CORRUPT',
    );
    const huge = Buffer.alloc(8);
    huge.writeUInt32LE(MAX_MESSAGE_BYTES + 1, 0);
    assert.throws(
      () => new MessageParser(() => {}).push(huge),
      (error: unknown) => error instanceof HoldfastError && error.errorName === 'PROTOCOL',
    );
  });

  it('end when a damaged message comes, and deliver nothing behind it', async () => {
    const { socket, stream } = newStream();
    const received: Uint8Array[] = [];
    let reason = '';
    stream.onMessage((message) => received.push(message));
    stream.onEnd((why) => {
      reason = why;
    });
    const wire = await wireBytes([Buffer.from('good'), Buffer.from('bad'), Buffer.from('late')]);
    wire[8 + 4 + 8] = (wire[8 + 4 + 8] as number) ^ 0xff;
    socket.push(wire);
    await turn();
    assert.deepEqual(
      received.map(String),
      ['good'].map((text) => String(Buffer.from(text))),
    );
    assert.match(reason, /checksum/);
    assert.ok(stream.ended);
  });

  it('end when a message cannot be decoded, after those before it', async () => {
    const socket = new FakeSocket();
    const picky = {
      ...bytesType,
      decode: (input: Uint8Array) => {
        if (String(input) === String(Buffer.from('bad'))) throw new RangeError('index out of range');
        return input;
      },
    };
    const stream = new RpcStream(socket, bytesType, picky, 'peer');
    const seen: string[] = [];
    stream.onMessage((message) => seen.push(Buffer.from(message).toString()));
    stream.onEnd((reason) => seen.push(`end: ${reason}`));
    socket.push(await wireBytes(['good', 'bad', 'late'].map((text) => Buffer.from(text))));
    await turn();
    assert.deepEqual(seen, ['good', 'end: index out of range']);
  });

  it('let what a receiver throws pass: a failed assertion ends the process, not the stream', async () => {
    const { socket, stream } = newStream();
    const ends: string[] = [];
    stream.onEnd((reason) => ends.push(reason));
    stream.onMessage(() => assert.fail('an invariant is broken'));
    const wire = await wireBytes([Buffer.from('fatal')]);
    assert.throws(() => socket.emit('data', wire), /an invariant is broken/);
    assert.deepEqual(ends, []);
  });

  it('hand nothing over any more once a receiver has ended them', async () => {
    const { socket, stream } = newStream();
    const seen: string[] = [];
    stream.onMessage((message) => {
      seen.push(Buffer.from(message).toString());
      stream.destroy('enough');
    });
    socket.push(await wireBytes([Buffer.from('one'), Buffer.from('two')]));
    await turn();
    assert.deepEqual(seen, ['one']);
  });

  it('count what the other side does not take, and break off at the bound', async () => {
    const { socket, stream } = newStream();
    socket.held = true;
    stream.send(Buffer.from('a'));
    stream.send(Buffer.from('b'));
    await turn();
    assert.equal(stream.queued, 2);
    socket.takeAll();
    await turn();
    assert.equal(stream.queued, 0);
    for (let i = 0; i <= STREAM_QUEUE_MAX; i++) stream.send(Buffer.from('x'));
    assert.ok(stream.ended);
  });

  it('send what was queued before they end, and nothing afterwards', async () => {
    const { socket, stream } = newStream();
    stream.send(Buffer.from('last'));
    stream.end();
    stream.send(Buffer.from('too late'));
    await turn();
    const received: string[] = [];
    new MessageParser((payload) => received.push(String(payload))).push(Buffer.concat(socket.written));
    assert.deepEqual(received, ['last']);
  });
});
