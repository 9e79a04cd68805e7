import assert from 'node:assert/strict';
import { ClientConnections } from '../../../chunkserver/service/client-connections.js';
import { systemClock } from '../../../common/clock.js';
import { silentLogger } from '../../../common/logger.js';
import { FrameType } from '../../../proto/frame-header.js';
import { dialFrames, type FrameConnection, type FrameHello, FrameServer } from '../../../proto/frames.js';
import { PROTOCOL_VERSION } from '../../../proto/types.js';

const CALL_MS = 10_000;

describe('connections of a client to a chunkserver', () => {
  const served: (number | undefined)[] = [];
  const dialled: FrameConnection[] = [];
  let server: FrameServer;
  let port: number;

  beforeEach(async () => {
    served.length = 0;
    const clients = new ClientConnections();
    server = new FrameServer(
      {
        clock: systemClock,
        log: silentLogger,
        hello: hello('chunkserver', 1),
        handler: async (_frame, { peer }) => {
          served.push(peer?.serial);
          return {};
        },
      },
      (connection) => clients.accept(connection),
    );
    port = await server.listen('127.0.0.1', 0);
  });

  afterEach(() => {
    for (const connection of dialled.splice(0)) connection.close('test');
    server.close();
  });

  const hello = (role: FrameHello['role'], id: number, serial?: number): FrameHello => {
    return { protocol: PROTOCOL_VERSION, clusterId: 'c', role, id, serial };
  };

  async function dial(own: FrameHello): Promise<FrameConnection> {
    const handler = (): Promise<never> => Promise.reject(new Error('serves nothing'));
    const options = { clock: systemClock, log: silentLogger, handler, hello: own };
    const connection = await dialFrames('127.0.0.1', port, options, CALL_MS);
    dialled.push(connection);
    return connection;
  }

  const write = (connection: FrameConnection) =>
    connection.call({ type: FrameType.WRITE }, undefined, CALL_MS);

  it('the newest is listened to, what comes over an older one is not', async () => {
    const old = await dial(hello('client', 7, 1));
    await write(old);
    const next = await dial(hello('client', 7, 2));
    await assert.rejects(write(old), { errorName: 'CONNECTION_LOST' });
    await write(next);
    assert.deepEqual(served, [1, 2]);
  });

  it('one whose HELLO comes behind that of a later one is refused', async () => {
    const next = await dial(hello('client', 7, 2));
    await assert.rejects(dial(hello('client', 7, 1)), { errorName: 'UNAVAILABLE' });
    next.close('gone');
    await assert.rejects(dial(hello('client', 7, 1)), { errorName: 'UNAVAILABLE' });
    await write(await dial(hello('client', 7, 3)));
    assert.deepEqual(served, [3]);
  });

  it('those of other sessions, and of servers, are none of its business', async () => {
    const one = await dial(hello('client', 7, 5));
    const two = await dial(hello('client', 8, 1));
    const peer = await dial(hello('chunkserver', 7));
    for (const connection of [one, two, peer]) await write(connection);
    assert.deepEqual(served, [5, 1, undefined]);
  });
});
