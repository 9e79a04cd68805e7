import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { InPlaceSocket, readInPlace } from '../../proto/in-place-socket.js';
import { connectTcp, serveTcp } from '../../proto/tcp.js';

/** Reads everything through a few bytes of memory, the same ones for each read. */
function collect(socket: Socket): { text(): string; reads(): number } {
  const memory = Buffer.alloc(5);
  const parts: string[] = [];
  const inPlace = readInPlace(socket, {
    room: () => memory,
    filled: (bytes) => parts.push(memory.toString('latin1', 0, bytes)),
  });
  assert.ok(inPlace);
  return { text: () => parts.join(''), reads: () => parts.length };
}

describe('in-place sockets', () => {
  let server: ReturnType<typeof serveTcp>;
  let accepted: Promise<Socket>;
  let dialled: Socket;

  beforeEach(async () => {
    accepted = new Promise((resolve) => {
      server = serveTcp(resolve);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    dialled = connectTcp('127.0.0.1', (server.address() as AddressInfo).port, new InPlaceSocket());
  });

  afterEach(async () => {
    dialled.destroy();
    (await accepted).destroy();
    server.close();
  });

  it('put what arrives into the memory that the reader names, on both sides, and tell of the end', async () => {
    const sent = 'abcdefghijklmnopqrstuvwxyz';
    const dialledRead = collect(dialled);
    const other = await accepted;
    const acceptedRead = collect(other);
    assert.ok(other instanceof InPlaceSocket);
    const ends = [once(dialled, 'end'), once(other, 'end')];
    dialled.end(sent);
    other.end(sent.toUpperCase());
    await Promise.all(ends);
    assert.equal(acceptedRead.text(), sent);
    assert.equal(dialledRead.text(), sent.toUpperCase());
    assert.ok(acceptedRead.reads() >= 6);
  });

  it('read nothing while they are paused, and everything afterwards', async () => {
    const other = await accepted;
    const read = collect(other);
    other.pause();
    assert.ok(other.isPaused());
    dialled.write('0123456789');
    dialled.end();
    await once(dialled, 'finish');
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(read.text(), '');
    const ended = once(other, 'end');
    other.resume();
    await ended;
    assert.equal(read.text(), '0123456789');
  });

  it('tell of a connection that breaks', async () => {
    const other = await accepted;
    collect(other);
    const closed = new Promise((resolve) => other.once('close', resolve));
    const failed = new Promise<Error>((resolve) => other.once('error', resolve));
    dialled.resetAndDestroy();
    assert.match((await failed).message, /ECONNRESET/);
    await closed;
    assert.ok(other.destroyed);
  });
});
