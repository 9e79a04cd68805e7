import assert from 'node:assert/strict';
import type { HoldfastError } from '../../../proto/errors.js';
import { type Lease, LeaseMode, type MutationReply, type ReadReply } from '../../../proto/gen/meta.js';
import {
  CLIENT_LEASE_OVER_MS,
  LEASES_PER_ANNOUNCEMENT_MAX,
  S_IFDIR,
  S_IFREG,
  SESSION_TIMEOUT_MS,
  SYMLINK_MODE,
} from '../../../proto/types.js';
import { type Harness, makeNode, type TestChunkServer, type TestClient, withHarness } from './harness.js';

const { LEASE_NONE: NONE, LEASE_SHARED: SHARED, LEASE_EXCLUSIVE: EXCLUSIVE } = LeaseMode;
const ROOT = 1;

const lookup = (name: string) => ({
  $case: 'lookup' as const,
  value: { parent: ROOT, name: Buffer.from(name) },
});
const getAttr = (ino: number, want?: LeaseMode) => ({ $case: 'getAttr' as const, value: { ino, want } });
const open = (ino: number, write = false) => ({ $case: 'open' as const, value: { ino, write } });
const unlink = (name: string) => ({
  $case: 'unlink' as const,
  value: { parent: ROOT, name: Buffer.from(name), uid: 0 },
});

function lease(ino: number): Lease {
  return { ino, mode: SHARED, seq: 1 };
}

function announce(leases: Lease[], last = false) {
  return { $case: 'announce' as const, value: { leases, last } };
}

/** [inode, mode] of each lease. */
function modes({ leases }: { leases: Lease[] }): number[][] {
  return leases.map(({ ino, mode }) => [ino, mode]);
}

function inoOf(reply: MutationReply | ReadReply): number {
  assert.ok(reply.result?.$case === 'attr');
  return reply.result.value.ino;
}

async function pair(harness: Harness): Promise<[TestClient, TestClient]> {
  const one = await harness.connect({ clientUuid: 'one', wantsLeases: true });
  return [one, await harness.connect({ clientUuid: 'two', wantsLeases: true })];
}

/** Whether the promise is settled, when all that is due has happened. */
async function isSettled(harness: Harness, promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const done = (): void => {
    settled = true;
  };
  promise.then(done, done);
  for (let i = 0; i < 20; i++) await harness.settle();
  return settled;
}

/** Lets time pass until whoever is silent has expired. */
async function expire(harness: Harness, clients: TestClient[], servers: TestChunkServer[]): Promise<void> {
  for (let waited = 0; waited <= SESSION_TIMEOUT_MS + 1000; waited += 500) {
    await harness.clock.advance(500);
    for (const server of servers) await server.heartbeat();
    for (const client of clients) await client.call({ $case: 'keepAlive', value: {} });
  }
}

describe('leases of the client service', () => {
  it('come with what was read and made', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const made = await one.create('f');
      const f = inoOf(made);
      assert.deepEqual(modes(made), [[f, EXCLUSIVE]]);
      one.giveBack([f, SHARED, made.leases[0]?.seq ?? 0]);
      assert.deepEqual(modes(await one.read(lookup('f'))), [
        [ROOT, SHARED],
        [f, SHARED],
      ]);
      assert.deepEqual(modes(await two.read(getAttr(f))), [[f, SHARED]]);
    }));

  it('are exclusive on what a mount has made by itself, of each kind that it makes so', () =>
    withHarness(async (harness) => {
      const [one] = await pair(harness);
      for (const mode of [S_IFREG | 0o644, S_IFDIR | 0o755, SYMLINK_MODE]) {
        const making = makeNode(`of mode ${mode}`);
        assert.ok(making.$case === 'makeNode');
        const made = await one.mutate({ ...making, value: { ...making.value, mode, ino: 1000 + mode } });
        assert.deepEqual(modes(made), [[inoOf(made), EXCLUSIVE]]);
      }
    }));

  it('come with the answer that a name does not exist', () =>
    withHarness(async (harness) => {
      const [one] = await pair(harness);
      const op = lookup('nothing');
      await one.calls
        .call((id) => ({ id, deadlineMs: 5000, body: { $case: 'read', value: { op } } }), 5000)
        .catch((error: HoldfastError) => assert.equal(error.errorName, 'ENOENT'));
      const two = await harness.connect({ clientUuid: 'two' });
      const made = two.create('nothing');
      assert.deepEqual(await one.recalled(), [[ROOT, NONE, 1]]);
      one.giveBack([ROOT, NONE, 1]);
      await made;
    }));

  it('are not granted to who did not ask for any', () =>
    withHarness(async (harness) => {
      const old = await harness.connect({ clientUuid: 'old' });
      assert.deepEqual(modes(await old.create('f')), []);
      assert.deepEqual(modes(await old.read(lookup('f'))), []);
    }));

  it('hold a reader back until the exclusive holder has flushed, which its own changes do not wait for', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const made = await one.create('f');
      const f = inoOf(made);
      const read = two.read(lookup('f'));
      const recall = await one.recalled();
      assert.deepEqual(recall, [[f, SHARED, made.leases[0]?.seq]]);
      assert.equal(await isSettled(harness, read), false);
      await one.mutate(commitWrite(f, 5));
      one.giveBack([f, SHARED, recall[0]?.[2] ?? 0]);
      assert.deepEqual(modes(await read), [
        [ROOT, SHARED],
        [f, SHARED],
      ]);
    }));

  it('hold a change back until everybody has given back what it changes, and what it unlinks', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const f = inoOf(await one.create('f'));
      const { leases } = await one.read(lookup('f'));
      const gone = two.mutate(unlink('f'));
      assert.deepEqual(await one.recalled(), [[ROOT, NONE, leases[0]?.seq]]);
      one.giveBack([ROOT, NONE, leases[0]?.seq ?? 0]);
      assert.deepEqual(await one.recalled(), [[f, NONE, leases[1]?.seq]]);
      assert.equal(await isSettled(harness, gone), false);
      assert.equal(harness.state.names.has('f'), true);
      one.giveBack([f, NONE, leases[1]?.seq ?? 0]);
      await gone;
      assert.equal(harness.state.names.has('f'), false);
    }));

  it('are not granted on what is being changed', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const f = inoOf(await one.create('f'));
      one.giveBack([f, NONE, 1]);
      harness.replica.hold = true;
      const gone = one.mutate(unlink('f'));
      while (harness.replica.held.length === 0) await harness.settle();
      assert.deepEqual(modes(await two.read(lookup('f'))), []);
      harness.replica.release();
      await gone;
    }));

  it('let changes of one name go one after the other', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const first = inoOf(await one.create('f'));
      one.giveBack([first, NONE, 1]);
      harness.replica.hold = true;
      const gone = one.mutate(unlink('f'));
      while (harness.replica.held.length === 0) await harness.settle();
      const made = two.create('f');
      assert.equal(await isSettled(harness, made), false);
      assert.equal(harness.replica.held.length, 1);
      harness.replica.release();
      await gone;
      assert.notEqual(inoOf(await made), first);
    }));

  it('are exclusive for who opens a file for writing, unless somebody else has it open', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const f = inoOf(await one.create('f'));
      const opened = two.read(open(f, true));
      assert.deepEqual(await one.recalled(), [[f, SHARED, 1]]);
      one.giveBack([f, SHARED, 1]);
      assert.deepEqual(await one.recalled(), [[f, NONE, 1]]);
      one.giveBack([f, NONE, 1]);
      const reply = await opened;
      assert.deepEqual(modes(reply), [[f, EXCLUSIVE]]);
      const read = one.read(open(f));
      assert.deepEqual(await two.recalled(), [[f, SHARED, reply.leases[0]?.seq]]);
      two.giveBack([f, SHARED, reply.leases[0]?.seq ?? 0]);
      assert.equal(inoOf(await read), f);
      assert.deepEqual(one.pushes.all, []);
    }));

  it('are granted to nobody while one session writes what another has open', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const f = inoOf(await one.create('f'));
      one.giveBack([f, NONE, 1]);
      await one.read(open(f, true));
      one.giveBack([f, NONE, 2]);
      assert.deepEqual(modes(await two.read(open(f))), []);
      assert.deepEqual(modes(await one.read(getAttr(f, EXCLUSIVE))), []);
      one.push({ $case: 'openFiles', value: { opened: [], closed: [f] } });
      await one.call({ $case: 'keepAlive', value: {} });
      assert.deepEqual(modes(await two.read(getAttr(f))), [[f, SHARED]]);
      const write = one.read(open(f, true));
      assert.deepEqual(await two.recalled(), [[f, NONE, 3]]);
      two.giveBack([f, NONE, 3]);
      assert.deepEqual(modes(await write), []);
    }));

  it('are asked for again on the next stream of a session', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const { leases } = await one.create('f');
      const f = leases[0]?.ino as number;
      one.close();
      const read = two.read(getAttr(f));
      const again = harness.client();
      const hello = { session: one.session, clientUuid: 'one', wantsLeases: true };
      await again.hello({ ...hello, leases });
      assert.deepEqual(await again.recalled(), [[f, SHARED, leases[0]?.seq]]);
      again.giveBack([f, SHARED, leases[0]?.seq ?? 0]);
      assert.equal(inoOf(await read), f);
    }));

  it('keep everybody waiting under a new leader until all who may hold some have announced themselves', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const { leases } = await one.create('f');
      const f = leases[0]?.ino as number;
      harness.replica.lead(false);
      harness.replica.lead(true);
      await Promise.all([one.pushes.ended, two.pushes.ended]);
      const reader = harness.client();
      await reader.hello({ session: two.session, clientUuid: 'two', wantsLeases: true });
      const read = reader.read(getAttr(f));
      const made = reader.create('g');
      assert.equal(await isSettled(harness, Promise.race([read, made])), false);
      const holder = harness.client();
      await holder.hello({ session: one.session, clientUuid: 'one', wantsLeases: true, leases });
      await made;
      assert.deepEqual(await holder.recalled(), [[f, SHARED, leases[0]?.seq]]);
      holder.giveBack([f, SHARED, leases[0]?.seq ?? 0]);
      assert.equal(inoOf(await read), f);
    }));

  it('that are announced in parts keep everybody waiting until the last part is here', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const { leases: f } = await one.create('f');
      const { leases: g } = await one.create('g');
      harness.replica.lead(false);
      harness.replica.lead(true);
      await Promise.all([one.pushes.ended, two.pushes.ended]);
      const reader = harness.client();
      await reader.hello({ session: two.session, clientUuid: 'two', wantsLeases: true });
      const reads = [f, g].map((leases) => reader.read(getAttr(leases[0]?.ino as number)));
      const holder = harness.client();
      const hello = { session: one.session, clientUuid: 'one', wantsLeases: true, leasesFollow: true };
      assert.equal((await holder.hello(hello)).session, one.session);
      await holder.call(announce(f));
      assert.equal(await isSettled(harness, Promise.race(reads)), false);
      await reader.call({ $case: 'keepAlive', value: {} });
      assert.deepEqual([holder.pushes.all, harness.state.sessionRecords.size], [[], 2]);
      await holder.call(announce(g, true));
      const asked = [...f, ...g].map(({ ino, seq }): [number, LeaseMode, number] => [ino, SHARED, seq]);
      assert.deepEqual(await holder.recalled(), asked);
      holder.giveBack(...asked);
      await Promise.all(reads);
    }));

  it('of a client that breaks off amid its announcement are waited for until nobody can believe them', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const { leases } = await one.create('f');
      harness.replica.lead(false);
      harness.replica.lead(true);
      await Promise.all([one.pushes.ended, two.pushes.ended]);
      const reader = harness.client();
      await reader.hello({ session: two.session, clientUuid: 'two', wantsLeases: true });
      const read = reader.read(getAttr(leases[0]?.ino as number));
      const holder = harness.client();
      const hello = { session: one.session, clientUuid: 'one', wantsLeases: true, leasesFollow: true };
      await holder.hello(hello);
      await holder.call(announce(leases));
      await harness.clock.advance(CLIENT_LEASE_OVER_MS - 100);
      assert.equal(await isSettled(harness, read), false);
      await harness.clock.advance(1100);
      await read;
      await holder.pushes.ended;
      const late = harness.client();
      await assert.rejects(
        late.hello(hello),
        (error: HoldfastError) => error.errorName === 'SESSION_EXPIRED',
      );
    }));

  it('are announced in parts of a bounded size, with nothing in between', () =>
    withHarness(async (harness) => {
      const [one] = await pair(harness);
      const hello = { session: one.session, clientUuid: 'one', wantsLeases: true, leasesFollow: true };
      const refused = (error: HoldfastError): boolean => error.errorName === 'PROTOCOL';
      const greedy = harness.client();
      await greedy.hello(hello);
      const many = Array.from({ length: LEASES_PER_ANNOUNCEMENT_MAX + 1 }, (_, i) => lease(i + 1));
      await assert.rejects(greedy.call(announce(many)), refused);
      const hasty = harness.client();
      await hasty.hello(hello);
      await assert.rejects(hasty.read(getAttr(ROOT)), refused);
    }));

  it('of a client that does not come to a new leader keep others waiting until nobody can believe them, not longer', () =>
    withHarness(async (harness) => {
      const [dead, two] = await pair(harness);
      const f = inoOf(await dead.create('f'));
      await harness.clock.advance(SESSION_TIMEOUT_MS / 2);
      harness.replica.lead(false);
      harness.replica.lead(true);
      await Promise.all([dead.pushes.ended, two.pushes.ended]);
      const reader = harness.client();
      await reader.hello({ session: two.session, clientUuid: 'two', wantsLeases: true });
      const read = reader.read(getAttr(f));
      await harness.settle();
      await harness.clock.advance(CLIENT_LEASE_OVER_MS - 100);
      assert.equal(await isSettled(harness, read), false);
      assert.equal(harness.state.sessionRecords.has(dead.session), true);
      await harness.clock.advance(1100);
      assert.equal(inoOf(await read), f);
      assert.deepEqual([...harness.state.sessionRecords.keys()], [two.session]);
    }));

  it('of a client that does not come to a new leader are kept for its whole time-out while nobody waits', () =>
    withHarness(async (harness) => {
      const [away, two] = await pair(harness);
      const { leases } = await away.create('f');
      harness.replica.lead(false);
      harness.replica.lead(true);
      await Promise.all([away.pushes.ended, two.pushes.ended]);
      const other = harness.client();
      await other.hello({ session: two.session, clientUuid: 'two', wantsLeases: true });
      await harness.clock.advance(SESSION_TIMEOUT_MS - 1000);
      const back = harness.client();
      await back.hello({ session: away.session, clientUuid: 'one', wantsLeases: true, leases });
      assert.deepEqual([...harness.state.sessionRecords.keys()], [away.session, two.session]);
    }));

  it('do not keep who ends its session waiting for others', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      harness.replica.lead(false);
      harness.replica.lead(true);
      await Promise.all([one.pushes.ended, two.pushes.ended]);
      const leaver = harness.client();
      await leaver.hello({ session: two.session, clientUuid: 'two', wantsLeases: true });
      await leaver.mutate({ $case: 'closeSession', value: {} });
    }));

  it('go to others when a session ends', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const f = inoOf(await one.create('f'));
      const read = two.read(getAttr(f));
      await one.recalled();
      await one.mutate({ $case: 'closeSession', value: {} });
      assert.equal(inoOf(await read), f);
    }));

  it('are taken from a session that is heard but answers no recall within its time-out', () =>
    withHarness(async (harness) => {
      const [one, two] = await pair(harness);
      const f = inoOf(await one.create('f'));
      const refused = two.read(getAttr(f)).catch((error: HoldfastError) => error.errorName);
      await one.recalled();
      for (let waited = 0; waited <= SESSION_TIMEOUT_MS + 1000; waited += 1000) {
        await harness.clock.advance(1000);
        for (const client of [one, two]) await client.call({ $case: 'keepAlive', value: {} }).catch(() => {});
      }
      await one.pushes.take((push) => push.body?.$case === 'sessionExpired');
      const read = two.read(getAttr(f));
      // Its end may not have reached the client, which was answered a moment ago: it may believe its lease for a while.
      assert.equal(await isSettled(harness, read), false);
      await harness.clock.advance(CLIENT_LEASE_OVER_MS);
      assert.equal(await refused, 'DEADLINE_EXCEEDED');
      assert.equal(inoOf(await read), f);
    }));

  it('of a session that ends with writes on their way are given away only when it is shut out', () =>
    withHarness(async (harness) => {
      const servers = await harness.cluster();
      const [one, two] = await pair(harness);
      const f = inoOf(await one.create('f'));
      await one.mutate({ $case: 'closeSession', value: { unfinished: true } });
      const fences = await Promise.all(servers.map((server) => server.fence()));
      for (const { live } of fences) assert.deepEqual(live, [two.session]);
      const read = two.read(getAttr(f));
      assert.equal(await isSettled(harness, read), false);
      assert.deepEqual([...harness.state.toFence], [one.session]);
      for (const [at, server] of servers.entries()) server.fenced(fences[at]?.version ?? 0);
      assert.equal(inoOf(await read), f);
      await harness.settle();
      assert.deepEqual([...harness.state.toFence], []);
    }));

  it('of a session that expired are given away only when every chunkserver shuts it out', () =>
    withHarness(async (harness) => {
      const servers = await harness.cluster();
      const [one, two] = await pair(harness);
      const f = inoOf(await one.create('f'));
      await expire(harness, [two], servers);
      const fences = await Promise.all(servers.map((server) => server.fence()));
      for (const { upto, live } of fences) assert.deepEqual([upto, live], [two.session, [two.session]]);
      const read = two.read(getAttr(f));
      servers[0]?.fenced(fences[0]?.version ?? 0);
      servers[1]?.fenced(fences[1]?.version ?? 0);
      assert.equal(await isSettled(harness, read), false);
      assert.deepEqual([...harness.state.toFence], [one.session]);
      servers[2]?.fenced(fences[2]?.version ?? 0);
      assert.equal(inoOf(await read), f);
      await harness.settle();
      assert.deepEqual([...harness.state.toFence], []);
    }));

  it('of a session that a former leader expired wait for its fence, too', () =>
    withHarness(async (harness) => {
      const servers = await harness.cluster();
      const [one, two] = await pair(harness);
      const f = inoOf(await one.create('f'));
      await expire(harness, [two], servers);
      harness.replica.lead(false);
      harness.replica.lead(true);
      await two.pushes.ended;
      const again = [1, 2, 3].map((id) => harness.chunkServer(id));
      const fences = [];
      for (const server of again) fences.push((await server.register()).fence);
      const reader = harness.client();
      await reader.hello({ session: two.session, clientUuid: 'two', wantsLeases: true });
      const read = reader.read(getAttr(f));
      assert.equal(await isSettled(harness, read), false);
      for (const [i, server] of again.entries()) server.fenced(fences[i]?.version ?? 0);
      assert.equal(await isSettled(harness, read), false);
      await harness.clock.advance(CLIENT_LEASE_OVER_MS);
      assert.equal(inoOf(await read), f);
    }));

  it('are not believed of an answer that is repeated, which tells the attributes of now', () =>
    withHarness(async (harness) => {
      const [one] = await pair(harness);
      const f = inoOf(await one.mutate(makeF, 1));
      await one.mutate(commitWrite(f, 8), 2);
      const { leases, parents, result } = await one.mutate(makeF, 1);
      assert.deepEqual([leases, parents], [[], []]);
      assert.ok(result?.$case === 'attr');
      assert.deepEqual([result.value.ino, result.value.size], [f, 8]);
    }));

  it('of a repeated answer about a file that is gone tell what it was', () =>
    withHarness(async (harness) => {
      const [one] = await pair(harness);
      const f = inoOf(await one.mutate(makeF, 1));
      await one.mutate({ $case: 'unlink', value: { parent: ROOT, name: Buffer.from('f'), uid: 0 } }, 2);
      assert.equal(inoOf(await one.mutate(makeF, 1)), f);
    }));
});

const commitWrite = (ino: number, newSize: number) => ({
  $case: 'commitWrite' as const,
  value: {
    ino,
    newSize,
    allocatedDelta: 0,
    killPriv: false,
    truncateSeq: 0,
    mtime: undefined,
    ctime: undefined,
  },
});

const makeF = {
  $case: 'makeNode' as const,
  value: {
    parent: ROOT,
    name: Buffer.from('f'),
    mode: 0o644,
    uid: 0,
    gid: 0,
    rdev: 0,
    target: Buffer.alloc(0),
    existingOk: false,
    open: false,
  },
};
