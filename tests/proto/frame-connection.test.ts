import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { silentLogger } from '../../common/logger.js';
import type { HoldfastError } from '../../proto/errors.js';
import { FrameType } from '../../proto/frame-header.js';
import { FrameParser } from '../../proto/frame-parser.js';
import { FrameConnection } from '../../proto/frames.js';
import { ManualClock } from '../client/support/manual-clock.js';

/** Keeps what is written, one entry for each write that reaches the system. */
class FakeSocket extends Duplex {
  readonly writes: Buffer[] = [];

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.writes.push(chunk);
    done();
  }

  override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
    this.writes.push(Buffer.concat(chunks.map(({ chunk }) => chunk)));
    done();
  }

  setNoDelay(): void {}
  setKeepAlive(): void {}
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('one connection of the data plane', () => {
  let clock: ManualClock;
  let socket: FakeSocket;
  let connection: FrameConnection;
  const outcomes: string[] = [];

  beforeEach(() => {
    clock = new ManualClock();
    socket = new FakeSocket();
    connection = new FrameConnection(socket as unknown as Socket, {
      clock,
      log: silentLogger,
      handler: async () => ({}),
    });
    outcomes.length = 0;
  });

  afterEach(() => connection.close('the test is over'));

  function ask(name: string, deadlineMs: number, payload?: Buffer): void {
    connection.request({ type: FrameType.READ }, payload, deadlineMs, undefined, (error?: HoldfastError) =>
      outcomes.push(`${name}: ${error?.errorName ?? 'answered'}`),
    );
  }

  function received(): string[] {
    const payloads: string[] = [];
    const parser = new FrameParser(({ payload }) => payloads.push(payload.toString()));
    for (const bytes of socket.writes) parser.push(bytes);
    return payloads;
  }

  it('sends all frames of one turn at once, small ones and large ones, in order', async () => {
    const large = 'l'.repeat(100_000);
    for (const text of ['one', '', 'three']) ask(text, 0, Buffer.from(text));
    assert.ok(connection.queuedBytes > 0, 'what waits for the end of the turn counts');
    await turn();
    assert.equal(socket.writes.length, 1);
    for (const text of ['four', large]) ask(text, 0, Buffer.from(text));
    await turn();
    assert.equal(socket.writes.length, 2);
    assert.deepEqual(received(), ['one', '', 'three', 'four', large]);
    assert.equal(connection.queuedBytes, 0);
  });

  it('keeps one timer for all deadlines, and meets each of them', async () => {
    ask('late', 500);
    ask('never', 0);
    ask('early', 100);
    for (let i = 0; i < 50; i++) ask('last', 900);
    assert.equal(clock.timers, 1);
    await clock.advance(99);
    assert.deepEqual(outcomes, []);
    await clock.advance(1);
    assert.deepEqual(outcomes, ['early: DEADLINE_EXCEEDED']);
    await clock.advance(400);
    assert.deepEqual(outcomes.slice(1), ['late: DEADLINE_EXCEEDED']);
    assert.equal(clock.timers, 1);
    await clock.advance(400);
    assert.equal(outcomes.length, 52);
    assert.equal(connection.inFlight, 1, 'what has no deadline waits on');
    assert.equal(clock.timers, 0);
  });

  it('leaves no timer and sends nothing more once it is closed', async () => {
    ask('one', 500);
    connection.close('enough');
    assert.equal(clock.timers, 0);
    await turn();
    assert.deepEqual(socket.writes, []);
    assert.deepEqual(outcomes, ['one: CONNECTION_LOST']);
  });
});
