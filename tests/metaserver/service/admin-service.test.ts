import assert from 'node:assert/strict';
import { errorCode, type HoldfastError } from '../../../proto/errors.js';
import { AdminServiceDefinition, type QuotaReply, StatusRequest } from '../../../proto/gen/admin.js';
import { QuotaKind } from '../../../proto/gen/meta.js';
import { RpcClient } from '../../../proto/rpc.js';
import { ROOT_INO } from '../../../proto/types.js';
import { type Harness, Inbox, withHarness } from './harness.js';

const { fullName, methods } = AdminServiceDefinition;
const DEADLINE_MS = 2000;

async function admin<T>(harness: Harness, use: (client: RpcClient) => Promise<T>): Promise<T> {
  const client = new RpcClient(harness.address);
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

const status = (harness: Harness) =>
  admin(harness, (client) => client.unary(fullName, methods.status, StatusRequest.create({}), DEADLINE_MS));
const transfer = (harness: Harness, to: number) =>
  admin(harness, (client) => client.unary(fullName, methods.transferLeader, { to }, DEADLINE_MS));

describe('admin service', () => {
  it('shows the whole cluster from the leader', () =>
    withHarness(async (harness) => {
      const servers = await harness.cluster();
      for (const server of servers) await server.heartbeat({ freeBytes: 6000 });
      const client = await harness.connect({ mountPoint: '/mnt' });
      await client.create('f', true);
      await harness.clock.advance(70);
      const reply = await status(harness);
      assert.deepEqual([reply.role, reply.serverId, reply.clusterId, reply.term], ['leader', 1, 'c1', 3]);
      assert.deepEqual(reply.metaservers, [
        { id: 1, address: 'a:1', alive: true, role: 'unknown', diskUuid: 'd', matchIndex: 5, rssBytes: 4242 },
      ]);
      assert.deepEqual(reply.sessions, [
        { id: 100, hostname: 'h', mountPoint: '/mnt', connected: true, idleMs: 70, openFiles: 1 },
      ]);
      assert.deepEqual(
        reply.chunkservers.map(({ id, alive, pgsInSync, pgsPrimary, freeBytes }) => [
          id,
          alive,
          pgsInSync,
          pgsPrimary,
          freeBytes,
        ]),
        [1, 2, 3].map((id) => [id, true, 6, 2, 6000]),
      );
      assert.deepEqual([reply.totalBytes, reply.freeBytes, reply.configuredChunkservers], [9000, 6000, 3]);
      assert.equal(reply.map?.version, harness.state.mapVersion());
      assert.equal(reply.inodesUsed, 1);
    }));

  it('shows from a follower what it knows itself, and nothing of the cluster', () =>
    withHarness(async (harness) => {
      harness.replica.leaderAddress = 'other:7';
      harness.replica.lead(false);
      const reply = await status(harness);
      assert.deepEqual([reply.role, reply.leaderId, reply.leaderAddress], ['follower', 2, 'other:7']);
      assert.deepEqual([reply.map, reply.chunkservers, reply.sessions], [undefined, [], []]);
    }));

  it('hands the leadership over, to a member only, and from the leader only', () =>
    withHarness(async (harness) => {
      await transfer(harness, 0);
      await transfer(harness, 1);
      assert.deepEqual(harness.replica.transferred, [0, 1]);
      await assert.rejects(transfer(harness, 9), (error) => (error as HoldfastError).errorName === 'EINVAL');
      harness.replica.lead(false);
      await assert.rejects(
        transfer(harness, 0),
        (error) => (error as HoldfastError).errorName === 'NOT_LEADER',
      );
    }));

  it('tells who waits with a change of a quota for leases when the leadership ends', () =>
    withHarness((harness) =>
      admin(harness, async (client) => {
        const holder = await harness.connect({ wantsLeases: true });
        await holder.create('f');
        await holder.read({ $case: 'lookup', value: { parent: ROOT_INO, name: Buffer.from('f') } });
        const replies = new Inbox<QuotaReply>();
        const stream = client.openStream(fullName, methods.quota);
        stream.onMessage((reply) => replies.push(reply));
        stream.onEnd((reason) => replies.end(reason));
        const kind = QuotaKind.QUOTA_TREE;
        const value = { kind, id: ROOT_INO, bytes: undefined, inodes: 5, remove: false };
        stream.send({ body: { $case: 'change', value }, path: Buffer.alloc(0) });
        await holder.recalled(); // never answered
        harness.replica.lead(false);
        const { error } = await replies.take(() => true);
        assert.equal(error, errorCode('NOT_LEADER'));
        await replies.ended;
      }),
    ));
});
