import assert from 'node:assert/strict';
import { systemClock } from '../../common/clock.js';
import { deferred } from '../../common/deferred.js';
import { silentLogger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import { AdminServiceDefinition, StatusReply } from '../../proto/gen/admin.js';
import { ClientEnvelope, MetaServiceDefinition, ServerEnvelope } from '../../proto/gen/meta.js';
import { CallStream, RpcClient, RpcServer, type RpcStream } from '../../proto/rpc.js';

const CONNECT = MetaServiceDefinition.methods.connect;
const SERVICE = MetaServiceDefinition.fullName;
const keepAlive = (id: number) => ClientEnvelope.create({ id, body: { $case: 'keepAlive', value: {} } });

type ServerSide = RpcStream<ServerEnvelope, ClientEnvelope>;

async function withServer(
  onStream: (stream: ServerSide) => void,
  use: (client: RpcClient, server: RpcServer) => Promise<void>,
): Promise<void> {
  const server = new RpcServer(silentLogger);
  server.addStream(SERVICE, CONNECT, onStream);
  server.addUnary(AdminServiceDefinition.fullName, AdminServiceDefinition.methods.status, async () => {
    throw new HoldfastError('NOT_LEADER', 'ask another');
  });
  const port = await server.listen('127.0.0.1', 0);
  const client = new RpcClient(`127.0.0.1:${port}`);
  try {
    await use(client, server);
  } finally {
    client.close();
    server.close();
  }
}

describe('rpc streams', () => {
  it('matches answers to requests and hands pushes over', async () => {
    const pushes: number[] = [];
    await withServer(
      (stream) => {
        const held: ClientEnvelope[] = [];
        stream.onMessage((message) => {
          held.push(message);
          if (held.length < 3) return;
          stream.send(ServerEnvelope.create({ id: 0, error: 0, errorText: 'push' }));
          for (const one of held.reverse())
            stream.send(ServerEnvelope.create({ id: one.id, errorText: `r${one.id}` }));
        });
      },
      async (client) => {
        const calls = new CallStream<ClientEnvelope, ServerEnvelope>(
          client.openStream(SERVICE, CONNECT),
          systemClock,
          (push) => pushes.push(push.id),
          () => {},
        );
        const answers = await Promise.all([1, 2, 3].map(() => calls.call(keepAlive, 5_000)));
        assert.deepEqual(
          answers.map((answer) => answer.errorText),
          ['r1', 'r2', 'r3'],
        );
        assert.deepEqual(pushes, [0]);
        calls.close('done');
      },
    );
  });

  it('rejects with the code and the leader hint of the answer', async () => {
    await withServer(
      (stream) =>
        stream.onMessage((message) =>
          stream.send(ServerEnvelope.create({ id: message.id, error: 1000, leaderHint: 'a:1' })),
        ),
      async (client) => {
        const calls = new CallStream<ClientEnvelope, ServerEnvelope>(
          client.openStream(SERVICE, CONNECT),
          systemClock,
          () => {},
          () => {},
        );
        await assert.rejects(calls.call(keepAlive, 5_000), (error: unknown) => {
          assert.ok(error instanceof HoldfastError);
          assert.equal(error.errorName, 'NOT_LEADER');
          assert.equal(error.leaderHint, 'a:1');
          return true;
        });
        calls.close('done');
      },
    );
  });

  it('settles pending calls and both ends when the server goes away', async () => {
    const ended = deferred<string>();
    const serverEnded = deferred<string>();
    await withServer(
      (stream) => stream.onEnd((reason) => serverEnded.resolve(reason)),
      async (client, server) => {
        const calls = new CallStream<ClientEnvelope, ServerEnvelope>(
          client.openStream(SERVICE, CONNECT),
          systemClock,
          () => {},
          (reason) => ended.resolve(reason),
        );
        const call = calls.call(keepAlive, 20_000);
        const settled = assert.rejects(call, /connection broke/);
        // The stream exists on the server before it is shut down.
        await new Promise<void>((resolve) => systemClock.after(200, resolve));
        server.close();
        await settled;
        assert.ok(await ended.promise);
        assert.ok(await serverEnded.promise);
      },
    );
  });

  it('tells the server at once when the client breaks the stream off, and the other way round', async () => {
    const serverEnded = deferred<string>();
    const clientEnded = deferred<string>();
    let first = true;
    await withServer(
      (stream) => {
        if (first) stream.onEnd((reason) => serverEnded.resolve(reason));
        stream.onMessage(() => {
          if (first) stream.send(ServerEnvelope.create({ id: 1 }));
          else stream.destroy('enough');
          first = false;
        });
      },
      async (client) => {
        const open = (onEnd: (reason: string) => void) =>
          new CallStream<ClientEnvelope, ServerEnvelope>(
            client.openStream(SERVICE, CONNECT),
            systemClock,
            () => {},
            onEnd,
          );
        const calls = open(() => {});
        await calls.call(keepAlive, 5_000);
        calls.close('client');
        assert.ok(await serverEnded.promise);
        const second = open((reason) => clientEnded.resolve(reason));
        await assert.rejects(second.call(keepAlive, 5_000), /connection broke/);
        assert.ok(await clientEnded.promise);
      },
    );
  });

  it('carries a unary error with its code', async () => {
    await withServer(
      () => {},
      async (client) => {
        const { fullName, methods } = AdminServiceDefinition;
        await assert.rejects(client.unary(fullName, methods.status, {}, 5_000), (error: unknown) => {
          assert.ok(error instanceof HoldfastError);
          assert.equal(error.errorName, 'NOT_LEADER');
          return true;
        });
        assert.ok(StatusReply);
      },
    );
  });

  it('ends a stream to a server that nobody runs', async () => {
    const ended = deferred<string>();
    const client = new RpcClient('127.0.0.1:1');
    new CallStream<ClientEnvelope, ServerEnvelope>(
      client.openStream(SERVICE, CONNECT),
      systemClock,
      () => {},
      (reason) => ended.resolve(reason),
    );
    assert.ok(await ended.promise);
    client.close();
  });
});
