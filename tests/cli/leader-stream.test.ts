import assert from 'node:assert/strict';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { callLeader } from '../../cli/leader-stream.js';
import { silentLogger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import { AdminServiceDefinition, QuotaReply, QuotaRequest } from '../../proto/gen/admin.js';
import { RpcServer } from '../../proto/rpc.js';

const PING_TIMEOUT_MS = 300;

describe('a long call to the leader', function () {
  this.timeout(60_000);

  it('leaves a server that is paused for another one: its connections stay, and it says nothing', async () => {
    const sockets = new Set<Socket>();
    const paused = createServer((socket) => sockets.add(socket.on('error', () => {})));
    await new Promise<void>((resolve) => paused.listen(0, '127.0.0.1', resolve));
    const leader = new RpcServer(silentLogger);
    const { fullName, methods } = AdminServiceDefinition;
    leader.addStream(fullName, methods.quota, (stream) =>
      stream.onMessage(() => stream.send(QuotaReply.fromPartial({ end: true }))),
    );
    const port = await leader.listen('127.0.0.1', 0);
    const addresses = [(paused.address() as AddressInfo).port, port].map((one) => `127.0.0.1:${one}`);
    const replies: boolean[] = [];
    try {
      await callLeader(
        addresses,
        methods.quota,
        QuotaRequest.fromPartial({}),
        ({ end }) => replies.push(end) > 0,
        PING_TIMEOUT_MS,
      );
      assert.deepEqual(replies, [true]);
      assert.ok(sockets.size > 0, 'the paused one was asked');
    } finally {
      for (const socket of sockets) socket.destroy();
      paused.close();
      leader.close();
    }
  });

  it('goes to the leader that it is told of, though that was not named', async () => {
    const { fullName, methods } = AdminServiceDefinition;
    const leader = new RpcServer(silentLogger);
    leader.addStream(fullName, methods.quota, (stream) =>
      stream.onMessage(() => stream.send(QuotaReply.fromPartial({ end: true }))),
    );
    const leaderHint = `127.0.0.1:${await leader.listen('127.0.0.1', 0)}`;
    const follower = new RpcServer(silentLogger);
    const error = new HoldfastError('NOT_LEADER').code;
    follower.addStream(fullName, methods.quota, (stream) =>
      stream.onMessage(() => stream.send(QuotaReply.fromPartial({ error, leaderHint }))),
    );
    const named = [`127.0.0.1:${await follower.listen('127.0.0.1', 0)}`];
    const ends: boolean[] = [];
    try {
      await callLeader(named, methods.quota, QuotaRequest.fromPartial({}), ({ end }) => ends.push(end) > 0);
      assert.deepEqual(ends, [true]);
    } finally {
      follower.close();
      leader.close();
    }
  });
});
