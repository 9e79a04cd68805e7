import assert from 'node:assert/strict';
import { packList } from '../../../chunkserver/pg/pack.js';
import {
  MAP_WAIT_MS,
  PEERING_CONNECT_TIMEOUT_MS,
  REPORT_INTERVAL_MS,
  SEQ_JUMP,
  SPACE_MARGIN_BYTES,
} from '../../../chunkserver/pg/types.js';
import { replicateFields } from '../../../chunkserver/service/calls.js';
import { HoldfastError } from '../../../proto/errors.js';
import { FRAME_FLAG_END, FrameType } from '../../../proto/frame-header.js';
import type { Replica } from '../../../proto/gen/cluster.js';
import {
  answers,
  asksOf,
  CoreFixture,
  call,
  IN_SYNC,
  OUT,
  only,
  pgMap,
  RECOVERING,
  request,
  versionOf,
} from './core-fixture.js';

const LOST = new HoldfastError('CONNECTION_LOST');

describe('the primary of a group', () => {
  it('acknowledges a write when itself and every in-sync replica have it', () => {
    const f = new CoreFixture().lead();
    const effects = f.request('write');
    const { op } = only(effects, 'apply')[0]!;
    assert.deepEqual(only(effects, 'replicate')[0]?.to, [2, 3]);
    assert.deepEqual(answers(f.step({ kind: 'acked', op, server: 2, error: undefined })), []);
    assert.deepEqual(answers(f.step({ kind: 'applied', op, error: undefined, allocatedDelta: 4 })), []);
    const [answer] = only(f.step({ kind: 'acked', op, server: 3, error: undefined }), 'answer');
    assert.equal(answer?.error, undefined);
    assert.equal(answer?.aux, 4);
    assert.deepEqual(answer?.version, op.version);
  });

  it('numbers operations one after the other over all epochs', () => {
    const f = new CoreFixture().lead();
    const first = versionOf(f.request('write'));
    f.map(pgMap(2, 1, [1, IN_SYNC], [2, IN_SYNC], [3, OUT]));
    const second = versionOf(f.request('write'));
    assert.deepEqual(second, { epoch: 2, seq: first.seq + 1 });
  });

  it('leaves numbers out when it cannot know what an earlier process of it gave', () => {
    assert.ok(versionOf(new CoreFixture().lead().request('write')).seq > SEQ_JUMP);
    const f = new CoreFixture();
    f.link('out2');
    f.map(pgMap(1, 1, [2, IN_SYNC], [1, IN_SYNC]));
    const asks = asksOf(f.map(pgMap(2, 2, [1, IN_SYNC], [2, OUT])));
    assert.equal(asks.length, 0);
    f.minInSync = 1;
    assert.equal(versionOf(f.request('write', { epoch: 2 })).seq, 1);
  });

  it('reports a replica that is lost, and acknowledges when the map has dropped it', () => {
    const f = new CoreFixture().lead();
    const { op } = only(f.request('write'), 'apply')[0]!;
    f.step({ kind: 'applied', op, error: undefined, allocatedDelta: 4 });
    f.step({ kind: 'acked', op, server: 2, error: undefined });
    const effects = f.step({ kind: 'acked', op, server: 3, error: LOST });
    assert.deepEqual(
      only(effects, 'reportFailed').map(({ server, epoch }) => ({ server, epoch })),
      [{ server: 3, epoch: 1 }],
    );
    f.now += REPORT_INTERVAL_MS;
    assert.equal(only(f.step({ kind: 'tick' }), 'reportFailed').length, 1);
    assert.deepEqual(answers(f.map(pgMap(2, 1, [1, IN_SYNC], [2, IN_SYNC], [3, OUT]))), [undefined]);
    f.now += REPORT_INTERVAL_MS;
    assert.equal(only(f.step({ kind: 'tick' }), 'reportFailed').length, 0);
  });

  it('answers nothing once its lease is over, as after a pause, until the next', () => {
    const f = new CoreFixture().lead();
    const { op } = only(f.request('write'), 'apply')[0]!;
    f.step({ kind: 'acked', op, server: 2, error: undefined });
    f.step({ kind: 'acked', op, server: 3, error: undefined });
    const read = request('read', { ino: 6 });
    f.step({ kind: 'request', request: read });
    f.now = f.leaseUntil;
    assert.deepEqual(answers(f.step({ kind: 'applied', op, error: undefined, allocatedDelta: 0 })), []);
    const done = f.step({ kind: 'readDone', request: read, error: undefined, version: undefined });
    assert.deepEqual(answers(done), ['NOT_PRIMARY']);
    assert.deepEqual(only(f.request('read'), 'read'), []);
    f.leaseUntil += 1000;
    const effects = f.step({ kind: 'lease' });
    assert.deepEqual(answers(effects), [undefined]);
    assert.equal(only(effects, 'read').length, 1);
  });

  it('serves nothing while its heartbeat stream is down', () => {
    const f = new CoreFixture().lead();
    f.registered = false;
    assert.deepEqual(answers(f.request('read')), ['NOT_PRIMARY']);
  });

  it('holds a read back while a write that it shows may still be lost', () => {
    const f = new CoreFixture().lead();
    const { op } = only(f.request('write'), 'apply')[0]!;
    const read = request('read');
    const other = request('read', { chunk: 1 });
    const version = op.version;
    for (const each of [read, other]) f.step({ kind: 'request', request: each });
    const done = (each: typeof read) =>
      answers(f.step({ kind: 'readDone', request: each, error: undefined, version }));
    assert.deepEqual(done(other), [undefined]);
    assert.deepEqual(done(read), []);
    f.step({ kind: 'applied', op, error: undefined, allocatedDelta: 4 });
    f.step({ kind: 'acked', op, server: 2, error: undefined });
    assert.deepEqual(answers(f.step({ kind: 'acked', op, server: 3, error: undefined })), [
      undefined,
      undefined,
    ]);
  });

  it('asks the others for a damaged chunk, and lets its reader come again while they are out of reach', () => {
    const f = new CoreFixture().lead();
    const damaged = new HoldfastError('CORRUPT');
    const begin = () => {
      const read = request('read');
      f.step({ kind: 'request', request: read });
      return {
        read,
        effects: f.step({ kind: 'readDone', request: read, error: damaged, version: undefined }),
      };
    };
    const { read, effects } = begin();
    assert.deepEqual(only(effects, 'repair')[0]?.from, [2, 3]);
    const cut = new HoldfastError('UNAVAILABLE');
    assert.deepEqual(answers(f.step({ kind: 'repaired', request: read, error: cut })), ['UNAVAILABLE']);
    const other = begin();
    assert.deepEqual(answers(f.step({ kind: 'repaired', request: other.read, error: damaged })), ['EIO']);

    const { op } = only(f.request('write', { chunk: 1 }), 'apply')[0]!;
    for (const server of [2, 3]) f.step({ kind: 'acked', op, server, error: LOST });
    assert.deepEqual(answers(begin().effects), ['UNAVAILABLE']);
    f.map(pgMap(2, 1, [1, IN_SYNC], [2, OUT], [3, OUT]));
    assert.deepEqual(answers(begin().effects), ['EIO'], 'nobody else counts as whole any more');
  });

  it('lets the reader of a damaged chunk come again while replicas that are whole are on their way back', () => {
    const f = new CoreFixture().lead();
    const whole = pgMap(2, 2, [1, IN_SYNC], [2, RECOVERING], [3, OUT]);
    (whole.replicas[1] as Replica).wholeDisk = 'the disk of server 2';
    f.map(whole);
    const read = request('read', { epoch: 2 });
    f.step({ kind: 'request', request: read });
    const error = new HoldfastError('CORRUPT');
    const effects = f.step({ kind: 'readDone', request: read, error, version: undefined });
    assert.deepEqual([only(effects, 'repair'), answers(effects)], [[], ['UNAVAILABLE']]);
  });

  it('lets writes wait for min_in_sync, in their order, and refuses at their deadline', () => {
    const f = new CoreFixture().lead();
    f.map(pgMap(3, 1, [1, IN_SYNC], [2, OUT], [3, OUT]));
    assert.deepEqual(f.request('write', { deadline: 500 }), []);
    assert.deepEqual(f.request('write', { ino: 8 }), []);
    assert.deepEqual(f.request('sync'), []);
    assert.equal(only(f.request('read'), 'read').length, 1);
    f.now = 500;
    assert.deepEqual(answers(f.step({ kind: 'tick' })), ['NOT_ENOUGH_REPLICAS']);
    f.minInSync = 1;
    const effects = f.step({ kind: 'lease' });
    assert.deepEqual(
      only(effects, 'apply').map(({ op }) => op.ino),
      [8],
    );
    assert.equal(only(effects, 'sync').length, 1);
  });

  it('refuses a write for which a disk has no room before it has a version', () => {
    const f = new CoreFixture().lead();
    const { seq } = versionOf(f.request('write'));
    f.free = 1000;
    assert.deepEqual(
      f.request('write').map((effect) => effect.kind),
      ['answer'],
    );
    assert.deepEqual(answers(f.request('write')), ['ENOSPC']);
    const truncate = f.request('truncate', { truncateSeq: 1 });
    assert.equal(versionOf(truncate).seq, seq + 1);
  });

  describe('reserved space', () => {
    const nothing = Buffer.alloc(0);
    const reserve = { payload: nothing, reserves: true, offset: 0, length: 1000 };

    it('needs the room that the bytes would, and goes to all replicas as what it is', () => {
      const f = new CoreFixture().lead();
      f.free = SPACE_MARGIN_BYTES + 999;
      assert.deepEqual(answers(f.request('write', reserve)), ['ENOSPC']);
      f.free++;
      const effects = f.request('write', reserve);
      const [replicated] = only(effects, 'replicate');
      assert.deepEqual(replicated?.to, [2, 3]);
      const { hole, reserves, takes } = replicated.op;
      assert.deepEqual({ hole, reserves, takes }, { hole: 1000, reserves: true, takes: 1000 });
      assert.equal(replicateFields(0, replicated.op).type, FrameType.REPLICATE_RESERVE);
    });

    it('is written when nothing else is, and only what lies in it needs no room', async () => {
      const f = new CoreFixture().lead();
      await f.store.reserve(0, { ino: 5, chunk: 0 }, 100, 1000, { epoch: 1, seq: 1 });
      f.free = 0;
      const payload = Buffer.alloc(1000);
      versionOf(f.request('write', { payload, offset: 100 }));
      assert.deepEqual(answers(f.request('write', { payload, offset: 101 })), ['ENOSPC']);
      const runs = [
        { start: 100, end: 200 },
        { start: 500, end: 600 },
      ];
      versionOf(f.request('write', { payload: Buffer.alloc(216), runs, length: 0 }));
      const beyond = [...runs, { start: 1000, end: 1101 }];
      assert.deepEqual(answers(f.request('write', { payload: Buffer.alloc(325), runs: beyond, length: 0 })), [
        'ENOSPC',
      ]);
      f.free = SPACE_MARGIN_BYTES + 1;
      versionOf(f.request('write', { payload, offset: 101 }));
      f.promised = 999;
      assert.deepEqual(
        answers(f.request('write', { payload, offset: 100 })),
        ['ENOSPC'],
        'the disk has none left',
      );
    });

    it('is given back on a full disk, and what a truncate has overtaken is not reserved', async () => {
      const f = new CoreFixture().lead();
      f.free = 0;
      versionOf(f.request('write', { payload: nothing }));
      f.free = 2 ** 40;
      await f.store.truncate(0, 5, 0, 100, 3, { epoch: 1, seq: 1 });
      assert.deepEqual(answers(f.request('write', { ...reserve, truncateSeq: 2 })), ['CUT']);
      versionOf(f.request('write', { ...reserve, truncateSeq: 3 }));
    });
  });

  for (const [server, what] of [
    [1, 'its own disk'],
    [3, 'the way to a replica'],
  ] as const) {
    it(`lets a writer come again while ${what} is behind, before the write has a version`, () => {
      const f = new CoreFixture().lead();
      const { seq } = versionOf(f.request('write'));
      f.behind.add(server);
      assert.deepEqual(answers(f.request('write')), ['OVERLOADED']);
      f.behind.clear();
      assert.equal(versionOf(f.request('write')).seq, seq + 1);
    });
  }

  it('acknowledges a sync when all in-sync disks have confirmed it', () => {
    const f = new CoreFixture().lead();
    const [sync] = only(f.request('sync'), 'sync');
    assert.deepEqual(sync?.servers, [1, 2, 3]);
    const synced = (server: number) =>
      answers(f.step({ kind: 'synced', barrier: sync!.barrier, server, error: undefined }));
    assert.deepEqual([synced(3), synced(1), synced(2)], [[], [], [undefined]]);
  });

  it('takes no sync from a replica that was lost and is reached again, for its disk may be another one', () => {
    const f = new CoreFixture().lead();
    const [earlier] = only(f.request('sync'), 'sync');
    f.step({ kind: 'linkDown', server: 2, side: 'out', reason: 'killed' });
    f.step({ kind: 'linkUp', server: 2, side: 'out' });
    const [later] = only(f.request('sync'), 'sync');
    assert.deepEqual(later?.servers, [1, 3]);
    for (const { barrier } of [earlier!, later!]) {
      for (const server of [1, 2, 3])
        assert.deepEqual(answers(f.step({ kind: 'synced', barrier, server, error: undefined })), []);
    }
    const dropped = f.map(pgMap(2, 1, [1, IN_SYNC], [2, RECOVERING], [3, IN_SYNC]));
    assert.deepEqual(answers(dropped), [undefined, undefined]);
  });

  it('deletes an inode of which it holds nothing by a sync alone', async () => {
    const f = new CoreFixture().lead();
    f.store.list = () => assert.fail('whoever removes a million files asks each group about each of them');
    assert.deepEqual(
      f.request('delete', { ino: 7 }).map(({ kind }) => kind),
      ['sync'],
    );
    await f.store.write(0, { ino: 7, chunk: 3 }, 0, Buffer.from('x'), { epoch: 1, seq: 1 });
    assert.equal(only(f.request('delete', { ino: 7 }), 'apply')[0]?.op.kind, 'delete');
    assert.equal(only(f.request('delete', { ino: 6 }), 'apply').length, 0);
  });

  it('answers at once for an inode of which it holds nothing when all removals are durable', () => {
    const f = new CoreFixture().lead();
    const syncAll = (): void => {
      const [sync] = only(f.request('sync'), 'sync');
      for (const server of sync!.servers)
        f.step({ kind: 'synced', barrier: sync!.barrier, server, error: undefined });
    };
    const deleteNothing = (): string[] => f.request('delete', { ino: 7 }).map(({ kind }) => kind);
    assert.deepEqual(deleteNothing(), ['sync'], 'what an earlier primary removed may not be on disk');
    const [early] = only(f.request('sync'), 'sync');
    f.request('truncate', { truncateSeq: 1, sync: true });
    for (const server of early!.servers)
      f.step({ kind: 'synced', barrier: early!.barrier, server, error: undefined });
    assert.deepEqual(deleteNothing(), ['answer']);
    const [open] = only(f.request('sync'), 'sync');
    f.request('truncate', { truncateSeq: 2 });
    for (const server of open!.servers)
      f.step({ kind: 'synced', barrier: open!.barrier, server, error: undefined });
    assert.deepEqual(deleteNothing(), ['sync'], 'a truncate that was not synced, behind the sync');
    syncAll();
    assert.deepEqual(deleteNothing(), ['answer']);
    f.map(pgMap(2, 2, [1, IN_SYNC], [2, IN_SYNC], [3, IN_SYNC]));
    const next = f.request('delete', { ino: 7, epoch: 2 });
    assert.ok(!answers(next).includes(undefined), 'of another interval nothing is known');
  });

  it('makes the repetition of a truncate durable when it is asked to, for the first one may not be', async () => {
    const f = new CoreFixture().lead();
    await f.store.truncate(0, 5, 0, 100, 3, { epoch: 1, seq: 1 });
    const repeated = f.request('truncate', { truncateSeq: 3, sync: true });
    assert.deepEqual(
      repeated.map(({ kind }) => kind),
      ['sync'],
    );
    assert.deepEqual(answers(f.request('truncate', { truncateSeq: 3 })), [undefined]);
  });

  it('refuses bytes that a truncate has overtaken: they may lie behind the end', async () => {
    const f = new CoreFixture().lead();
    await f.store.truncate(0, 5, 0, 100, 3, { epoch: 1, seq: 1 });
    const runs = [{ start: 0, end: 4 }];
    for (const late of [{}, { truncateSeq: 2 }, { truncateSeq: 2, runs }])
      assert.deepEqual(answers(f.request('write', late)), ['CUT']);
    const before = f.core.last;
    assert.deepEqual(answers(f.request('write', { truncateSeq: 4 })), ['NEED_TRUNCATE']);
    assert.deepEqual(f.core.last, before, 'none of them has a version');
    versionOf(f.request('write', { truncateSeq: 3 }));
    versionOf(f.request('write', { ino: 6 }));
    versionOf(f.request('write', { payload: Buffer.alloc(0), truncateSeq: 2 }));
  });

  it('refuses what it holds when another server takes over', () => {
    const f = new CoreFixture().lead();
    f.request('write');
    f.request('read');
    f.request('sync');
    const refused = answers(f.map(pgMap(2, 2, [1, OUT], [2, IN_SYNC], [3, IN_SYNC])));
    assert.deepEqual(refused, ['NOT_PRIMARY', 'NOT_PRIMARY', 'NOT_PRIMARY']);
    assert.deepEqual(answers(f.request('read', { epoch: 2 })), ['NOT_PRIMARY']);
  });

  it('waits for the map that a client has already seen, but not for ever', () => {
    const f = new CoreFixture().lead();
    assert.deepEqual(f.request('read', { epoch: 2 }), []);
    assert.equal(only(f.map(pgMap(2, 1, [1, IN_SYNC], [2, IN_SYNC], [3, OUT])), 'read').length, 1);
    f.request('read', { epoch: 9 });
    f.now += MAP_WAIT_MS;
    assert.deepEqual(answers(f.step({ kind: 'tick' })), ['STALE_EPOCH']);
  });

  it('counts a recovering replica only from its CAUGHT_UP on, and then with its disk', () => {
    const f = new CoreFixture().lead();
    f.map(pgMap(2, 1, [1, IN_SYNC], [2, IN_SYNC], [3, RECOVERING]));
    const { op } = only(f.request('write', { epoch: 2 }), 'apply')[0]!;
    f.step({ kind: 'applied', op, error: undefined, allocatedDelta: 0 });
    assert.deepEqual(answers(f.step({ kind: 'acked', op, server: 2, error: undefined })), [undefined]);
    const { seq } = op.version;
    const caughtUp = (versionSeq: number) =>
      f.step({ kind: 'call', call: call(3, FrameType.CAUGHT_UP, { epoch: 2, versionSeq }) });
    assert.equal(only(caughtUp(seq - 2), 'answerCall')[0]?.error, 'STALE_EPOCH');
    const effects = caughtUp(seq);
    assert.equal(only(effects, 'answerCall')[0]?.error, undefined);
    const [sync] = only(effects, 'sync');
    const next = only(f.request('write', { epoch: 2 }), 'apply')[0]!.op;
    f.step({ kind: 'applied', op: next, error: undefined, allocatedDelta: 0 });
    assert.deepEqual(answers(f.step({ kind: 'acked', op: next, server: 2, error: undefined })), []);
    const reported = f.step({ kind: 'synced', barrier: sync!.barrier, server: 3, error: undefined });
    assert.deepEqual(
      only(reported, 'reportCaughtUp').map(({ server, epoch }) => ({ server, epoch })),
      [{ server: 3, epoch: 2 }],
    );
    assert.deepEqual(answers(f.step({ kind: 'acked', op: next, server: 3, error: undefined })), [undefined]);
  });
});

describe('a primary that peers', () => {
  const infoAsks = (f: CoreFixture) =>
    asksOf(f.map(pgMap(2, 2, [1, IN_SYNC], [2, IN_SYNC], [3, IN_SYNC])), FrameType.PG_INFO);

  it('copies from the replica that is ahead, and has the others copy from itself', () => {
    const f = new CoreFixture({ last: { epoch: 1, seq: 5 }, clean: true });
    f.map(pgMap(1, 1, [2, IN_SYNC], [1, IN_SYNC], [3, IN_SYNC]));
    f.link('out2', 'out3');
    const [two, three] = infoAsks(f);
    f.reply(two!, { versionEpoch: 1, versionSeq: 5, flags: FRAME_FLAG_END });
    const pulling = f.reply(three!, { versionEpoch: 1, versionSeq: 7, flags: FRAME_FLAG_END });
    const [seqs] = asksOf(pulling, FrameType.LIST);
    assert.equal(seqs?.to, 3);
    assert.equal(only(pulling, 'setState')[0]?.state.clean, false);
    const [list] = asksOf(f.reply(seqs!, { flags: FRAME_FLAG_END }), FrameType.LIST);
    const chunk = { ino: 4, chunk: 0, version: { epoch: 1, seq: 7 }, bytes: 4 };
    const [fetch] = asksOf(f.reply(list!, { flags: FRAME_FLAG_END, versionSeq: 7 }, packList([chunk])));
    assert.equal(fetch?.fields.type, FrameType.FETCH);
    const [install] = only(f.reply(fetch!, { aux: 0, versionSeq: 7 }), 'install');
    assert.deepEqual(install?.key, { ino: 4, chunk: 0 });
    const [state] = only(f.step({ kind: 'stored', done: install!.done!, error: undefined }), 'setState');
    assert.deepEqual(state?.state, { last: { epoch: 1, seq: 7 }, clean: true });
    const resyncs = asksOf(
      f.step({ kind: 'stored', done: state!.done!, error: undefined }),
      FrameType.RESYNC,
    );
    assert.deepEqual(
      resyncs.map((ask) => [ask.to, ask.fields.versionSeq, ask.fields.flags]),
      [[2, 7, 0]],
    );
    assert.equal(f.core.active, false);
    f.reply(resyncs[0]!);
    assert.equal(f.core.active, true);
  });

  it('has nothing copied when all are clean and at the same operation', () => {
    const f = new CoreFixture({ last: { epoch: 1, seq: 5 }, clean: true });
    f.map(pgMap(1, 1, [2, IN_SYNC], [1, IN_SYNC], [3, IN_SYNC]));
    f.link('out2', 'out3');
    for (const ask of infoAsks(f)) {
      assert.deepEqual(asksOf(f.reply(ask, { versionEpoch: 1, versionSeq: 5, flags: FRAME_FLAG_END })), []);
    }
    assert.equal(f.core.active, true);
  });

  it('reports a replica that it cannot reach only when that can have no lease any more', () => {
    const f = new CoreFixture();
    f.map(pgMap(1, 1, [2, IN_SYNC], [1, IN_SYNC], [3, IN_SYNC]));
    f.link('out2', 'out3');
    const [two, three] = infoAsks(f);
    f.reply(three!, { flags: FRAME_FLAG_END });
    const down = (server: number) => f.step({ kind: 'linkDown', server, side: 'out', reason: 'cut' });
    f.links.delete('out2');
    assert.deepEqual(down(2), []);
    assert.ok(two?.cancelled);
    f.now += PEERING_CONNECT_TIMEOUT_MS;
    assert.deepEqual(
      only(f.step({ kind: 'tick' }), 'reportFailed').map(({ server }) => server),
      [2],
    );
    assert.deepEqual(
      only(down(3), 'reportFailed').map(({ server }) => server),
      [3],
    );
  });

  it('lets requests wait until it is active', () => {
    const f = new CoreFixture();
    f.map(pgMap(1, 1, [2, IN_SYNC], [1, IN_SYNC], [3, IN_SYNC]));
    f.link('out2', 'out3');
    const [two, three] = infoAsks(f);
    assert.deepEqual(f.request('read', { epoch: 2 }), []);
    const info = { versionEpoch: 0, versionSeq: 0, flags: FRAME_FLAG_END };
    f.reply(two!, info);
    assert.equal(only(f.reply(three!, info), 'read').length, 1);
  });
});
