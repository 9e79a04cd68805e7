import assert from 'node:assert/strict';
import { HEALTHY_DROPS_MAX, REPORT_MEMORY_MS } from '../../../metaserver/cluster/blame.js';
import { LEADER_GRACE_MS } from '../../../metaserver/cluster/liveness.js';
import { REJOIN_DELAY_MS } from '../../../metaserver/cluster/rejoin.js';
import { HoldfastError } from '../../../proto/errors.js';
import { ReplicaState } from '../../../proto/gen/cluster.js';
import { LEASE_MS } from '../../../proto/types.js';
import { type Harness, withHarness } from '../service/harness.js';

const fails = (name: string, text?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof HoldfastError);
  assert.equal(error.errorName, name);
  if (text) assert.match(error.message, text);
  return true;
};

const alive = (harness: Harness) =>
  harness.state
    .map()
    .servers.filter((server) => server.alive)
    .map((server) => server.id)
    .sort();

describe('cluster service', () => {
  it('registers a chunkserver and answers with the map that shows it', () =>
    withHarness(async (harness) => {
      const registered = await harness.chunkServer(4).register({ domain: 'rack' });
      assert.equal(registered.clusterId, 'c1');
      assert.equal(registered.heartbeatIntervalMs, 200);
      assert.deepEqual(registered.map?.servers, [
        {
          ...{ id: 4, diskUuid: 'disk-4', host: '127.0.0.1', port: 7004, alive: true, domain: 'rack' },
          draining: undefined,
          boot: undefined,
        },
      ]);
    }));

  it('refuses what is no chunkserver of this cluster, with a text that says why', () =>
    withHarness(async (harness) => {
      await harness.chunkServer(1).register();
      const refusals = [
        { id: 5, fields: { protocol: 7 }, name: 'VERSION', text: /speaks 7/ },
        { id: 5, fields: { clusterId: 'other' }, name: 'WRONG_CLUSTER', text: /holds data of cluster other/ },
        { id: 0, fields: {}, name: 'PROTOCOL', text: /server id 0/ },
        { id: 5, fields: { diskUuid: '' }, name: 'PROTOCOL', text: /disk uuid/ },
        {
          id: 5,
          fields: { diskUuid: 'disk-1' },
          name: 'EEXIST',
          text: /disk disk-1 belongs to chunkserver 1/,
        },
        { id: 1, fields: { diskUuid: 'new' }, name: 'EEXIST', text: /id 1 is in use at 127.0.0.1:7001/ },
      ];
      for (const { id, fields, name, text } of refusals) {
        const server = harness.chunkServer(id);
        await assert.rejects(server.register(fields), fails(name, text));
        await server.pushes.ended;
      }
      assert.deepEqual(alive(harness), [1]);
    }));

  it('refuses everything before the registration, and every registration where it does not lead', () =>
    withHarness(async (harness) => {
      await assert.rejects(harness.chunkServer(1).heartbeat(), fails('PROTOCOL'));
      harness.replica.leaderAddress = 'other:7';
      harness.replica.lead(false);
      await assert.rejects(harness.chunkServer(1).register(), (error) => {
        assert.equal((error as HoldfastError).leaderHint, 'other:7');
        return fails('NOT_LEADER')(error);
      });
    }));

  it('places the PGs once as many chunkservers as configured have registered, and pushes the map to all', () =>
    withHarness(async (harness) => {
      const early = [harness.chunkServer(1), harness.chunkServer(2)];
      for (const server of early) await server.register();
      await harness.settle();
      assert.equal(harness.state.map().pgs.length, 0);
      await harness.chunkServer(3).register();
      for (const server of early) {
        let map = await server.map();
        while (map.pgs.length === 0) map = await server.map();
        assert.equal(map.pgs.length, 6);
      }
      assert.equal(harness.state.applied.filter((command) => command === 'createPgs').length, 1);
    }));

  it('gives leases while its own lease holds, and without one when a majority says that it leads', () =>
    withHarness(async (harness) => {
      const [server] = await harness.cluster();
      const { barriers } = harness.replica;
      assert.equal(await server?.heartbeat(), LEASE_MS);
      assert.equal(harness.replica.barriers, barriers);
      harness.replica.lease = false;
      assert.equal(await server?.heartbeat(), LEASE_MS);
      assert.equal(harness.replica.barriers, barriers + 1);
    }));

  it('gives no lease when no majority says that it leads', () =>
    withHarness(async (harness) => {
      const [server] = await harness.cluster();
      harness.replica.lease = false;
      harness.replica.readBarrier = () => Promise.reject(new HoldfastError('UNAVAILABLE'));
      assert.equal(await server?.heartbeat(), 0);
    }));

  it('declares a chunkserver down at once when its stream ends, without time passing', () =>
    withHarness(async (harness) => {
      const servers = await harness.cluster();
      const version = harness.state.mapVersion();
      servers[1]?.close();
      const map = await servers[0]?.map((pushed) => pushed > version);
      assert.deepEqual(
        map?.servers.filter((server) => !server.alive).map((server) => server.id),
        [2],
      );
      assert.equal(harness.clock.now(), 0);
    }));

  it('declares a silent chunkserver down after its lease, and gives it none while that is decided', () =>
    withHarness(async (harness) => {
      const servers = await harness.cluster();
      const beat = async (ms: number) => {
        for (let i = 0; i < ms; i += 100) {
          await harness.clock.advance(100);
          await servers[0]?.heartbeat();
          await servers[2]?.heartbeat();
        }
      };
      await servers[1]?.heartbeat();
      await beat(LEASE_MS);
      assert.deepEqual(alive(harness), [1, 2, 3]);
      await beat(200);
      assert.deepEqual(alive(harness), [1, 3]);
      await servers[1]?.pushes.ended;
    }));

  it('keeps chunkservers over a change of leader when they come within the grace, and drops who does not', () =>
    withHarness(async (harness) => {
      const before = await harness.cluster();
      harness.replica.lead(false);
      for (const server of before) await server.pushes.ended;
      const down = () => harness.state.applied.filter((command) => command === 'serverDown').length;
      harness.replica.lead(true);
      await harness.settle();
      await harness.clock.advance(LEADER_GRACE_MS - 200);
      assert.equal(down(), 0);
      const puts = harness.state.applied.filter((command) => command === 'putChunkServer').length;
      for (const id of [1, 3]) await harness.chunkServer(id).register({ clusterId: 'c1' });
      assert.equal(harness.state.applied.filter((command) => command === 'putChunkServer').length, puts);
      await harness.clock.advance(200);
      assert.equal(down(), 1);
      assert.deepEqual(alive(harness), [1, 3]);
    }));

  it('takes a returned chunkserver back behind the ServerDown of its former stream', () =>
    withHarness(async (harness) => {
      const [first] = await harness.cluster();
      first?.close();
      const again = harness.chunkServer(1);
      await again.register({ clusterId: 'c1' });
      assert.deepEqual(alive(harness), [1, 2, 3]);
      const states = harness.state
        .map()
        .pgs.map((pg) => pg.replicas.find((replica) => replica.server === 1)?.state);
      assert.deepEqual(new Set(states), new Set([ReplicaState.REPLICA_RECOVERING]));
      assert.equal(await again.heartbeat(), LEASE_MS);
    }));

  it('treats a second stream of the same server as its restart', () =>
    withHarness(async (harness) => {
      const [first] = await harness.cluster();
      await harness.chunkServer(1).register({ clusterId: 'c1' });
      await first?.pushes.ended;
      assert.deepEqual(harness.state.applied.slice(-2), ['serverDown', 'putChunkServer']);
    }));

  it('takes a server with another disk only when the lease of the former disk is over', () =>
    withHarness(async (harness) => {
      const servers = await harness.cluster();
      harness.replica.lead(false);
      for (const server of servers) await server.pushes.ended;
      harness.replica.lead(true);
      await harness.settle();
      await assert.rejects(
        harness.chunkServer(2).register({ diskUuid: 'new' }),
        fails('UNAVAILABLE', /lease may still hold/),
      );
      await harness.clock.advance(LEADER_GRACE_MS);
      await harness.chunkServer(2).register({ diskUuid: 'new' });
      assert.equal(harness.state.map().servers.find((server) => server.id === 2)?.diskUuid, 'new');
    }));

  it('drops a failed replica from every PG that the reporter leads, and from no other', () =>
    withHarness(async (harness) => {
      const servers = await harness.cluster();
      const before = harness.state.map();
      const led = before.pgs.filter((pg) => pg.replicas[0]?.server === 1);
      const report = { pg: led[0]?.id as number, epoch: 1, server: 2, reason: 'no answer' };
      await servers[0]?.call({ $case: 'replicaFailed', value: report });
      const dropped = harness.state
        .map()
        .pgs.filter((pg) => pg.replicas.some((replica) => replica.state === ReplicaState.REPLICA_OUT));
      assert.deepEqual(
        dropped.map((pg) => pg.id),
        led.map((pg) => pg.id),
      );
      assert.ok(dropped.every((pg) => pg.replicas.find((replica) => replica.server === 2)?.state === 0));
    }));

  it('takes the reports of all PGs about one server for one failure, not for many of the reporter', () =>
    withHarness(async (harness) => {
      const servers = await harness.cluster();
      const led = harness.state.map().pgs.filter((pg) => pg.replicas[0]?.server === 1);
      assert.ok(led.length > 0);
      const report = (pg: number, epoch: number, server: number) =>
        servers[0]?.call({ $case: 'replicaFailed', value: { pg, epoch, server, reason: 'reset' } });
      // The server's own stream stands: its end has not been seen yet.
      const times = Math.ceil(HEALTHY_DROPS_MAX / led.length);
      await Promise.all(led.flatMap(({ id }) => Array.from({ length: times }, () => report(id, 1, 2))));
      for (let waited = 0; waited <= REPORT_MEMORY_MS; waited += 100) {
        await harness.clock.advance(100);
        for (const server of servers) await server.heartbeat();
      }
      const pg = led[0]?.id as number;
      const group = () => harness.state.map().pgs[pg];
      await report(pg, group()?.epoch as number, 3);
      const third = group()?.replicas.find((replica) => replica.server === 3);
      assert.notEqual(third?.state, ReplicaState.REPLICA_IN_SYNC, 'it is dropped, the primary goes on');
    }));

  it('answers a report about an older epoch without a change, and refuses one by another than the primary', () =>
    withHarness(async (harness) => {
      const servers = await harness.cluster();
      const version = harness.state.mapVersion();
      const pg = harness.state.map().pgs.find((group) => group.replicas[0]?.server === 1)?.id as number;
      const report = { pg, epoch: 99, server: 2, reason: '' };
      await servers[0]?.call({ $case: 'replicaFailed', value: report });
      const foreign = { $case: 'replicaFailed' as const, value: { ...report, epoch: 1 } };
      await assert.rejects(servers[2]?.call(foreign) as Promise<unknown>, fails('NOT_PRIMARY'));
      assert.equal(harness.state.mapVersion(), version);
    }));

  it('takes a connected server back whose replicas were dropped, and lets its primary make it in-sync', () =>
    withHarness(async (harness) => {
      const servers = await harness.cluster();
      const pg = harness.state.map().pgs.find((group) => group.replicas[0]?.server === 1)?.id as number;
      await servers[0]?.call({ $case: 'replicaFailed', value: { pg, epoch: 1, server: 2, reason: '' } });
      const state = () => {
        const group = harness.state.map().pgs[pg];
        return [group?.epoch, group?.replicas.find((replica) => replica.server === 2)?.state];
      };
      assert.deepEqual(state(), [2, ReplicaState.REPLICA_OUT]);
      for (let waited = 0; waited <= REJOIN_DELAY_MS + 200; waited += 100) {
        await harness.clock.advance(100);
        for (const server of servers) await server.heartbeat();
      }
      assert.deepEqual(state(), [3, ReplicaState.REPLICA_RECOVERING]);
      await servers[0]?.call({ $case: 'replicaCaughtUp', value: { pg, epoch: 3, server: 2 } });
      assert.deepEqual(state(), [4, ReplicaState.REPLICA_IN_SYNC]);
    }));
});
