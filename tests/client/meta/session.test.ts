import assert from 'node:assert/strict';
import { attrOf, type MutationOp } from '../../../client/meta/api.js';
import { MetaSession } from '../../../client/meta/session.js';
import type { SessionOptions } from '../../../client/meta/session-options.js';
import { silentLogger } from '../../../common/logger.js';
import { createPrng } from '../../../common/prng.js';
import { HoldfastError } from '../../../proto/errors.js';
import { ClusterMap } from '../../../proto/gen/cluster.js';
import { MakeNode } from '../../../proto/gen/meta.js';
import { FakeMetaservers } from '../support/fake-metaservers.js';
import { ManualClock, settle } from '../support/manual-clock.js';

const GET_ATTR = { $case: 'getAttr' as const, value: { ino: 1 } };

function make(name: string, open = false): MutationOp {
  return { $case: 'makeNode', value: { ...MakeNode.create({}), name: Buffer.from(name), open } };
}

function setUp(servers: FakeMetaservers, options: Partial<SessionOptions> = {}) {
  const clock = new ManualClock();
  servers.clock = clock;
  const session = new MetaSession(
    { metaservers: servers.addresses, clusterId: '', hostname: 'h', mountPoint: '/m', ...options },
    { clock, log: silentLogger, prng: createPrng(1), dial: servers.dial },
  );
  return { clock, session };
}

async function connected(servers: FakeMetaservers, options: Partial<SessionOptions> = {}) {
  const made = setUp(servers, options);
  await made.session.start(1_000);
  await settle();
  return made;
}

const named = (name: string) => (error: unknown) =>
  error instanceof HoldfastError && error.errorName === name;

describe('MetaSession', () => {
  it('finds the leader among the servers and keeps one stream', async () => {
    const servers = new FakeMetaservers(3);
    servers.elect('meta2:1');
    const { session } = await connected(servers);
    assert.equal(session.leader, 'meta2:1');
    assert.equal(servers.streams, 1);
    assert.equal(session.clusterId, 'c1');
  });

  it('follows the hint of a follower to a server that it was not told of', async () => {
    const servers = new FakeMetaservers(3);
    servers.elect('meta3:1');
    const { session } = await connected(servers, { metaservers: ['meta1:1'] });
    assert.equal(session.leader, 'meta3:1');
  });

  it('says which servers it asked when none answers', async () => {
    const servers = new FakeMetaservers(2);
    servers.dead.add('meta1:1').add('meta2:1');
    const { session, clock } = setUp(servers);
    const refused = assert.rejects(session.start(3_000), (error: HoldfastError) => {
      assert.match(error.message, /meta1:1 \(.*refused\), meta2:1/);
      return error.errorName === 'ETIMEDOUT';
    });
    await clock.advance(3_000);
    await refused;
    const { length } = servers.dials;
    await clock.advance(10_000);
    assert.equal(servers.dials.length, length, 'it has stopped asking');
  });

  it('numbers mutations 1, 2, 3 and says which answers it has', async () => {
    const servers = new FakeMetaservers(1);
    const { session } = await connected(servers);
    await Promise.all(['a', 'b', 'c'].map((name) => session.mutate(make(name))));
    await session.mutate(make('d'));
    assert.deepEqual(
      servers.applied.map(({ seq, ackedBelow }) => [seq, ackedBelow]),
      [
        [1, 1],
        [2, 1],
        [3, 1],
        [4, 4],
      ],
    );
  });

  it('repeats a mutation whose answer was lost under the same number, and gets the first answer', async () => {
    const servers = new FakeMetaservers(3);
    const { session, clock } = await connected(servers);
    servers.loseAnswers = true;
    const replies = Promise.all(['a', 'b'].map((name) => session.mutate(make(name))));
    await settle();
    assert.equal(servers.applied.length, 2);
    servers.loseAnswers = false;
    servers.elect(undefined);
    servers.kill('meta1:1');
    await clock.advance(400);
    servers.elect('meta2:1');
    await clock.advance(150);
    const inodes = (await replies).map((reply) => attrOf(reply.result).ino);
    assert.deepEqual(inodes, [10, 11]);
    assert.equal(servers.applied.length, 2, 'applied once each');
    assert.deepEqual(
      servers.received.map(({ seq }) => seq),
      [1, 2, 1, 2],
    );
    assert.equal(session.leader, 'meta2:1');
    assert.deepEqual(new Set(servers.hellos.map((hello) => hello.clientUuid)).size, 1);
    assert.equal(servers.hellos.at(-1)?.session, 100, 'the session is resumed');
  });

  it('finds a leader that accepts everything and answers nothing', async () => {
    const servers = new FakeMetaservers(3);
    const { session, clock } = await connected(servers);
    servers.frozen.add('meta1:1');
    const reply = session.mutate(make('a'));
    await settle();
    servers.elect('meta3:1');
    await clock.advance(3_000);
    assert.equal(attrOf((await reply).result).ino, 10);
    assert.equal(session.leader, 'meta3:1');
  });

  it('goes to the new leader when the old one steps down', async () => {
    const servers = new FakeMetaservers(2);
    const { session, clock } = await connected(servers);
    servers.elect('meta2:1');
    const reply = session.read(GET_ATTR);
    await clock.advance(100);
    await reply;
    assert.equal(session.leader, 'meta2:1');
  });

  it('repeats what is refused for the moment, and hands on what is refused for good', async () => {
    const servers = new FakeMetaservers(1);
    const { session, clock } = await connected(servers);
    servers.refusals.push('UNAVAILABLE', 'OVERLOADED');
    const reply = session.mutate(make('a'));
    await clock.advance(200);
    await reply;
    assert.deepEqual(
      servers.received.map(({ seq }) => seq),
      [1, 1, 1],
    );
    servers.refusals.push('EEXIST');
    await assert.rejects(session.mutate(make('b')), named('EEXIST'));
    await session.mutate(make('c'));
    assert.deepEqual([servers.applied.at(-1)?.seq, servers.applied.at(-1)?.ackedBelow], [3, 3]);
  });

  it('takes for an answer that a name does not exist, also when no lease comes with it', async () => {
    const servers = new FakeMetaservers(1);
    const { session } = await connected(servers);
    servers.refusals.push('ENOENT', 'ENOENT');
    const value = { parent: 1, name: Buffer.from('a') };
    const { result, error } = await session.ask({ $case: 'lookup', value });
    assert.deepEqual([result, error?.errorName], [undefined, 'ENOENT']);
    await assert.rejects(session.ask(GET_ATTR), named('ENOENT'));
  });

  it('waits without a leader until interrupted; what was sent is still applied once', async () => {
    const servers = new FakeMetaservers(1);
    const { session, clock } = await connected(servers);
    servers.loseAnswers = true;
    const interrupt = new AbortController();
    const sent = assert.rejects(session.mutate(make('a', true), interrupt.signal), named('EINTR'));
    await settle();
    servers.elect(undefined);
    servers.push({ error: 1000, errorText: 'stepped down' });
    const waiting = assert.rejects(session.mutate(make('b'), interrupt.signal), named('EINTR'));
    await clock.advance(60_000);
    interrupt.abort();
    await Promise.all([sent, waiting]);
    await assert.rejects(session.read(GET_ATTR, interrupt.signal), named('EINTR'));
    servers.loseAnswers = false;
    servers.elect('meta1:1');
    await clock.advance(1_000);
    assert.deepEqual(
      servers.applied.map(({ seq }) => seq),
      [1],
      'the second one was never sent',
    );
    await clock.advance(100);
    assert.deepEqual(
      servers.openFiles,
      [{ opened: [], closed: [10] }],
      'nobody holds what the lost call opened',
    );
  });

  it('gives up after the soft time-out', async () => {
    const servers = new FakeMetaservers(1);
    const { session, clock } = await connected(servers, { softTimeoutMs: 2_000 });
    servers.elect(undefined);
    const refused = [
      assert.rejects(session.mutate(make('a')), named('ETIMEDOUT')),
      assert.rejects(session.read(GET_ATTR), named('ETIMEDOUT')),
    ];
    await clock.advance(2_500);
    await Promise.all(refused);
  });

  it('opens a new session when the old one has expired: sent changes fail with EIO, others go on', async () => {
    const servers = new FakeMetaservers(1);
    const { session, clock } = await connected(servers);
    session.retainOpen(77);
    servers.loseAnswers = true;
    const lost = assert.rejects(session.mutate(make('a')), named('EIO'));
    await settle();
    servers.loseAnswers = false;
    servers.expireSessions();
    servers.push({ body: { $case: 'sessionExpired', value: {} } });
    const waiting = session.mutate(make('b'));
    await lost;
    await clock.advance(200);
    await waiting;
    assert.equal(session.id, 101);
    const [first, second] = [servers.hellos[0], servers.hellos.at(-1)];
    assert.notEqual(first?.clientUuid, second?.clientUuid);
    assert.deepEqual(second?.openInodes, [77]);
    assert.deepEqual([servers.applied.at(-1)?.session, servers.applied.at(-1)?.seq], [101, 1]);
  });

  it('tells of the last close of an inode, together and not of one opened again', async () => {
    const servers = new FakeMetaservers(1);
    const { session, clock } = await connected(servers);
    for (const ino of [5, 5, 6, 7]) session.retainOpen(ino);
    for (const ino of [5, 6, 7]) session.releaseOpen(ino);
    session.retainOpen(6);
    await clock.advance(100);
    assert.deepEqual(servers.openFiles, [{ opened: [], closed: [7] }]);
    session.releaseOpen(5);
    session.releaseOpen(6);
    await clock.advance(100);
    assert.deepEqual(servers.openFiles[1], { opened: [], closed: [5, 6] });
  });

  it('tells of last closes with the next request, rather than in a message that wakes the server for itself', async () => {
    const servers = new FakeMetaservers(1);
    const { session, clock } = await connected(servers);
    for (const ino of [5, 6]) session.retainOpen(ino);
    session.releaseOpen(5);
    await session.mutate(make('a'));
    assert.deepEqual(servers.openFiles.splice(0), [{ opened: [], closed: [5] }]);
    await clock.advance(1000);
    assert.deepEqual(servers.openFiles, [], 'nothing is left to tell');
    session.releaseOpen(6);
    await clock.advance(49);
    assert.deepEqual(servers.openFiles, []);
    await clock.advance(1);
    assert.deepEqual(servers.openFiles, [{ opened: [], closed: [6] }]);
  });

  it('tells again of a file that was closed before the batch that makes it reached the server', async () => {
    const servers = new FakeMetaservers(1);
    const { session, clock } = await connected(servers);
    const [closedInode, openInode] = [10, 11];
    for (const ino of [closedInode, openInode]) session.retainOpen(ino);
    session.releaseOpen(closedInode);
    await clock.advance(100);
    assert.deepEqual(servers.openFiles.splice(0), [{ opened: [], closed: [closedInode] }]);
    const results = await session.mutateBatch([{ op: make('a', true) }, { op: make('b', true) }]);
    assert.deepEqual(
      results.map(({ mutation }) => attrOf(mutation?.result).ino),
      [closedInode, openInode],
    );
    await clock.advance(100);
    assert.deepEqual(servers.openFiles, [{ opened: [], closed: [closedInode] }]);
  });

  it('keeps an idle session alive, and would notice a silent leader within 3 s', async () => {
    const servers = new FakeMetaservers(1);
    const { session, clock } = await connected(servers);
    await clock.advance(21_000);
    assert.ok(servers.keepAlives >= 15 && servers.keepAlives <= 22, `${servers.keepAlives} in 21 s`);
    assert.equal(session.leader, 'meta1:1');
    servers.frozen.add('meta1:1');
    await clock.advance(3_000);
    assert.equal(session.leader, '');
  });

  it('hands maps on, from Hello and from pushes', async () => {
    const servers = new FakeMetaservers(1);
    servers.map = { ...ClusterMap.create({}), version: 4 };
    const { session } = setUp(servers);
    const versions: number[] = [];
    session.onMap((map) => versions.push(map.version));
    await session.start(1_000);
    servers.push({ body: { $case: 'map', value: { ...ClusterMap.create({}), version: 5 } } });
    assert.deepEqual(versions, [4, 5]);
  });

  it('announces its leases to the leader alone, in parts of a bounded size', async () => {
    const servers = new FakeMetaservers(3);
    const { session, clock } = await connected(servers, { leasesPerAnnouncement: 2 });
    assert.equal(servers.announcements.length, 0, 'a new session holds nothing');
    for (let ino = 1; ino <= 5; ino++) session.leases.granted({ ino, mode: 1, seq: ino });
    servers.elect('meta2:1');
    await clock.advance(1_000);
    assert.equal(session.leader, 'meta2:1');
    assert.deepEqual(
      servers.announcements.map(({ leases, last }) => [leases.map(({ ino }) => ino), last]),
      [
        [[1, 2], false],
        [[3, 4], false],
        [[5], true],
      ],
    );
    assert.ok(servers.hellos.every(({ leases }) => leases.length === 0));
  });

  it('begins its announcement anew at the next leader when one ends amid it, and asks for nothing before', async () => {
    const servers = new FakeMetaservers(2);
    const { session, clock } = await connected(servers, { leasesPerAnnouncement: 1 });
    for (let ino = 1; ino <= 3; ino++) session.leases.granted({ ino, mode: 1, seq: ino });
    const reads = session.requests.read;
    servers.onAnnouncement = (at) => {
      if (at === 2) servers.elect('meta1:1');
    };
    servers.elect('meta2:1');
    const read = session.read(GET_ATTR);
    await clock.advance(1_000);
    await read;
    assert.equal(session.leader, 'meta1:1');
    assert.deepEqual(
      servers.announcements.map(({ leases }) => leases[0]?.ino),
      [1, 2, 1, 2, 3],
    );
    assert.ok(session.requests.read - reads <= 2, 'one lost with the first leader, one answered');
  });

  it('loses no push that comes right behind the answer to Hello', async () => {
    const servers = new FakeMetaservers(1);
    servers.map = ClusterMap.create({ version: 3 });
    const recall = { leases: [{ ino: 7, mode: 0, seq: 4 }] };
    servers.behindHello = [
      { body: { $case: 'recall', value: recall } },
      { body: { $case: 'map', value: ClusterMap.create({ version: 4 }) } },
    ];
    const { session } = setUp(servers);
    const seen: string[] = [];
    session.onMap((map) => seen.push(`map ${map.version}`));
    session.listenToLeases({
      onRecall: (orders) => seen.push(...orders.map(({ ino, seq }) => `recall ${ino} ${seq}`)),
      onSessionLost: () => seen.push('lost'),
    });
    await session.start(1_000);
    await settle();
    assert.deepEqual(seen, ['map 3', 'recall 7 4', 'map 4']);
  });

  it('ends the session and every wait when it is closed', async () => {
    const servers = new FakeMetaservers(2);
    const { session, clock } = await connected(servers);
    const closing = session.close(1_000, true);
    await clock.advance(10);
    await closing;
    assert.deepEqual(servers.applied.at(-1)?.op, { $case: 'closeSession', value: { unfinished: true } });
    assert.equal(servers.streams, 0);
    assert.equal(clock.timers, 0);
    await assert.rejects(session.read(GET_ATTR), named('EIO'));
  });
});
