import assert from 'node:assert/strict';
import { REQUESTS_IN_FLIGHT_MAX } from '../../../metaserver/service/client-stream.js';
import { GREETING_TIMEOUT_MS } from '../../../metaserver/service/ports.js';
import { FORMER_MOUNT_GRACE_MS } from '../../../metaserver/service/session-expiry.js';
import { errorCode, HoldfastError } from '../../../proto/errors.js';
import { Lock, LockKind, LockOperation, LockRequest, LockType } from '../../../proto/gen/meta.js';
import { CLIENT_LEASE_MS, SESSION_TIMEOUT_MS } from '../../../proto/types.js';
import { makeNode, withHarness } from './harness.js';

const lookup = (name: string) => ({
  $case: 'lookup' as const,
  value: { parent: 1, name: Buffer.from(name) },
});
const open = (ino: number) => ({ $case: 'open' as const, value: { ino } });
const keepAlive = { $case: 'keepAlive' as const, value: {} };
const fails = (name: string) => (error: unknown) => {
  assert.ok(error instanceof HoldfastError);
  assert.equal(error.errorName, name);
  return true;
};

describe('client service', () => {
  it('opens a session and answers with what a client needs to know', () =>
    withHarness(async (harness) => {
      const reply = await harness.client().hello({ clusterId: 'c1' });
      assert.deepEqual(
        { ...reply, map: reply.map?.version },
        {
          session: 100,
          sessionTimeoutMs: SESSION_TIMEOUT_MS,
          clusterId: 'c1',
          map: harness.state.mapVersion(),
          metaservers: ['a:1'],
          serverId: 1,
          leaseMs: CLIENT_LEASE_MS,
          quotas: { rules: [] },
        },
      );
    }));

  it('refuses another protocol, another cluster and an unknown session, and ends the stream', () =>
    withHarness(async (harness) => {
      const refusals = [
        { hello: { protocol: 99 }, name: 'VERSION' },
        { hello: { clusterId: 'other' }, name: 'WRONG_CLUSTER' },
        { hello: { session: 12345 }, name: 'SESSION_EXPIRED' },
      ];
      for (const { hello, name } of refusals) {
        const client = harness.client();
        await assert.rejects(client.hello(hello), fails(name));
        await client.pushes.ended;
      }
      assert.deepEqual(harness.state.applied, ['initCluster']);
    }));

  it('refuses requests before Hello', () =>
    withHarness(async (harness) => {
      await assert.rejects(harness.client().call(keepAlive), fails('PROTOCOL'));
    }));

  it('refuses a stream on which no Hello comes', () =>
    withHarness(async (harness) => {
      const silent = harness.client();
      const greeted = await harness.connect();
      await harness.clock.advance(GREETING_TIMEOUT_MS);
      const { error } = await silent.pushes.take((push) => push.error !== 0);
      assert.equal(error, errorCode('PROTOCOL'));
      await silent.pushes.ended;
      await greeted.call(keepAlive);
    }));

  it('gives up a read that waited beyond its deadline', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      harness.replica.lease = false;
      harness.replica.onBarrier = () => harness.clock.pause(60_000);
      await assert.rejects(client.read(lookup('f')), fails('DEADLINE_EXCEEDED'));
    }));

  it('names the leader when it is not the leader', () =>
    withHarness(async (harness) => {
      harness.replica.leaderAddress = 'other:7';
      harness.replica.lead(false);
      await assert.rejects(harness.client().hello(), (error) => {
        assert.equal((error as HoldfastError).leaderHint, 'other:7');
        return fails('NOT_LEADER')(error);
      });
    }));

  it('resumes a session on a new stream, and only with the uuid that it was opened with', () =>
    withHarness(async (harness) => {
      const first = await harness.connect();
      const second = await harness.connect({ session: first.session });
      assert.equal(second.session, first.session);
      await first.pushes.ended;
      await second.call(keepAlive);
      await assert.rejects(
        harness.client().hello({ session: first.session, clientUuid: 'u2' }),
        fails('SESSION_EXPIRED'),
      );
      assert.equal((await harness.connect()).session, first.session);
    }));

  it('gives a retry of a mutation the first answer, also across a change of leader', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      const made = await client.mutate(makeNode('f'), 1);
      assert.deepEqual(await client.mutate(makeNode('f'), 1), made);
      harness.replica.lead(false);
      await client.pushes.ended;
      harness.replica.lead(true);
      const again = await harness.connect({ session: client.session });
      assert.deepEqual(await again.mutate(makeNode('f'), 1), made);
      await assert.rejects(again.mutate(makeNode('f'), 2), fails('EEXIST'));
    }));

  it('answers reads at once under the lease, and behind one barrier for all that wait without it', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      await client.create('f');
      const before = harness.replica.barriers;
      await client.read(lookup('f'));
      assert.equal(harness.replica.barriers, before);
      harness.replica.lease = false;
      const replies = await Promise.all(Array.from({ length: 50 }, () => client.read(lookup('f'))));
      assert.equal(replies.length, 50);
      const barriers = harness.replica.barriers - before;
      assert.ok(barriers >= 1 && barriers < 50, `${barriers} barriers`);
      await assert.rejects(client.read(lookup('none')), fails('ENOENT'));
    }));

  it('passes a retriable failure of the log on', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      harness.replica.failures.push(new HoldfastError('UNAVAILABLE'));
      await assert.rejects(client.create('f'), fails('UNAVAILABLE'));
      assert.equal((await client.create('f')).created, true);
    }));

  it('refuses a mutation that names another session', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      client.session++;
      await assert.rejects(client.create('f'), fails('PROTOCOL'));
    }));

  it('bounds the requests in flight of one stream and serves it again when they are done', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      harness.replica.hold = true;
      const inFlight = Array.from({ length: REQUESTS_IN_FLIGHT_MAX }, (_, i) => client.create(`f${i}`));
      await assert.rejects(client.create('one too many'), fails('OVERLOADED'));
      harness.replica.release();
      assert.equal((await Promise.all(inFlight)).length, REQUESTS_IN_FLIGHT_MAX);
      assert.equal((await client.create('again')).created, true);
    }));

  it('pushes the map to every client when it changes', () =>
    withHarness(async (harness) => {
      const clients = [await harness.connect(), await harness.connect({ clientUuid: 'u2' })];
      await harness.chunkServer(5).register();
      for (const client of clients) {
        const { body } = await client.pushes.take((push) => push.body?.$case === 'map');
        assert.ok(body?.$case === 'map');
        assert.deepEqual(
          body.value.servers.map((server) => server.id),
          [5],
        );
      }
    }));

  it('ends all streams when the leadership is lost', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      harness.replica.hold = true;
      const pending = client.create('f');
      await client.call(keepAlive);
      harness.replica.lead(false);
      await client.pushes.ended;
      await assert.rejects(pending, fails('CONNECTION_LOST'));
    }));

  it('expires a silent session, tells its client, and keeps those that are heard', () =>
    withHarness(async (harness) => {
      const silent = await harness.connect({ clientUuid: 'silent' });
      const alive = await harness.connect({ clientUuid: 'alive' });
      for (let waited = 0; waited <= SESSION_TIMEOUT_MS + 1000; waited += 1000) {
        await harness.clock.advance(1000);
        await alive.call(keepAlive);
      }
      await silent.pushes.take((push) => push.body?.$case === 'sessionExpired');
      await silent.pushes.ended;
      assert.deepEqual([...harness.state.sessionRecords.keys()], [alive.session]);
    }));

  it('does not wait out the time of a mount that has ended when another one is at its place', () =>
    withHarness(async (harness) => {
      const ended = await harness.connect({ clientUuid: 'ended', place: 'boot mnt /m' });
      const elsewhere = await harness.connect({ clientUuid: 'elsewhere', place: 'boot mnt /other' });
      const connected = await harness.connect({ clientUuid: 'connected', place: 'boot mnt /m' });
      for (const client of [ended, elsewhere]) client.close();
      await harness.settle();
      const next = await harness.connect({ clientUuid: 'next', place: 'boot mnt /m' });
      assert.equal(harness.state.sessionRecords.has(ended.session), true);
      await harness.clock.advance(FORMER_MOUNT_GRACE_MS + 100);
      assert.deepEqual(
        [...harness.state.sessionRecords.keys()],
        [elsewhere.session, connected.session, next.session],
      );
    }));

  it('keeps a detached mount that is back at the new leader when another one has taken its place', () =>
    withHarness(async (harness) => {
      const detached = await harness.connect({ clientUuid: 'detached', place: 'boot mnt /m' });
      harness.replica.lead(false);
      harness.replica.lead(true);
      await detached.pushes.ended;
      await harness.connect({ clientUuid: 'next', place: 'boot mnt /m' });
      const back = harness.client();
      await back.hello({ session: detached.session, clientUuid: 'detached' });
      await harness.clock.advance(FORMER_MOUNT_GRACE_MS + 100);
      assert.equal(harness.state.sessionRecords.has(detached.session), true);
    }));

  it('gives sessions that it has not heard of yet a full time-out under a new leader', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      await harness.clock.advance(SESSION_TIMEOUT_MS - 1000);
      harness.replica.lead(false);
      harness.replica.lead(true);
      await harness.settle();
      await harness.clock.advance(SESSION_TIMEOUT_MS - 1000);
      assert.equal(harness.state.sessionRecords.has(client.session), true);
      await harness.clock.advance(3000);
      assert.equal(harness.state.sessionRecords.has(client.session), false);
    }));

  it('expires nobody for a silence during which it was stopped itself', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      harness.clock.pause(10 * SESSION_TIMEOUT_MS);
      await harness.clock.advance(2000);
      assert.equal(harness.state.sessionRecords.has(client.session), true);
    }));

  it('forgets a session that closes', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      await client.mutate({ $case: 'closeSession', value: {} });
      await assert.rejects(harness.client().hello({ session: client.session }), fails('SESSION_EXPIRED'));
    }));

  it('opens an inode without a name only while somebody holds it open', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      const other = await harness.connect({ clientUuid: 'u2' });
      const made = await client.create('f', true);
      assert.ok(made.result?.$case === 'attr');
      const { ino } = made.result.value;
      await client.mutate({ $case: 'unlink', value: { parent: 1, name: Buffer.from('f'), uid: 0 } });
      await other.read(open(ino));
      client.push({ $case: 'openFiles', value: { opened: [], closed: [ino] } });
      other.push({ $case: 'openFiles', value: { opened: [], closed: [ino] } });
      await client.call(keepAlive);
      await other.call(keepAlive);
      await assert.rejects(client.read(open(ino)), fails('ESTALE'));
    }));

  it('answers statfs from what the chunkservers report, divided by the replication, and not before they did', () =>
    withHarness(async (harness) => {
      const client = await harness.connect();
      const statFs = { $case: 'statFs' as const, value: {} };
      await assert.rejects(client.read(statFs), fails('UNAVAILABLE'));
      const servers = await harness.cluster();
      for (const [i, server] of servers.entries()) await server.heartbeat({ freeBytes: 3000 * (i + 1) });
      assert.deepEqual(await client.read(statFs), {
        result: {
          $case: 'statFs',
          value: { totalBytes: 9000, freeBytes: 6000, availBytes: 3000, inodesUsed: 0, inodesFree: 7 },
        },
        leases: [],
      });
    }));

  it('cancels the wait for a lock also while the request itself waits for a barrier', () =>
    withHarness(async (harness) => {
      const [holder, waiter] = [await harness.connect(), await harness.connect({ clientUuid: 'u2' })];
      const lock = (wait: number, owner: number) => {
        const kind = LockKind.LOCK_POSIX;
        const type = LockType.LOCK_WRITE;
        const one = Lock.create({ ino: 5, kind, type, ownerLow: owner, start: 0, end: 9, pid: owner });
        const operation = LockOperation.LOCK_SET_WAIT;
        return { $case: 'lock' as const, value: LockRequest.create({ lock: one, operation, wait }) };
      };
      await holder.call(lock(1, 1));
      harness.replica.lease = false;
      const waiting = waiter.call(lock(1, 2));
      waiter.push({ $case: 'cancelLock', value: { wait: 1 } });
      await assert.rejects(waiting, fails('EINTR'));
    }));
});
