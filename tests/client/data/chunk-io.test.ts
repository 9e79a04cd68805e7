import assert from 'node:assert/strict';
import type { FileLayout } from '../../../client/data/api.js';
import { ChunkConnections, type FrameLink } from '../../../client/data/chunk-connections.js';
import { ChunkIo } from '../../../client/data/chunk-io.js';
import { ClusterView } from '../../../client/data/cluster-view.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { silentLogger } from '../../../common/logger.js';
import { createPrng } from '../../../common/prng.js';
import { type ErrorName, HoldfastError } from '../../../proto/errors.js';
import { type FrameFields, type FrameHeader, FrameType } from '../../../proto/frame-header.js';
import { type Frame, FrameError } from '../../../proto/frames.js';
import { type ClusterMap, ReplicaState } from '../../../proto/gen/cluster.js';
import { FILE_SIZE_MAX_BYTES, pgOfChunk } from '../../../proto/types.js';
import { ManualClock, settle } from '../support/manual-clock.js';

const PGS = 4;
const FILE: FileLayout = { ino: 7, chunkSize: 4096, truncateSeq: 0, truncates: [] };

type Sent = FrameFields & { type: FrameType; server: number };

/** Chunkservers that answer as the test says. */
class FakeServers {
  readonly sent: Sent[] = [];
  readonly dials: number[] = [];
  readonly refused = new Set<number>();
  /** What to do with a request; undefined: it is answered with success. */
  answer: (request: Sent) => ErrorName | Error | 'never' | undefined = () => undefined;
  reply: { aux?: number; versionEpoch?: number; versionSeq?: number; payload?: Buffer } = {};
  readonly links = new Map<number, { link: FrameLink; pending: Set<Deferred<Frame>> }>();

  readonly dial = async (_host: string, port: number): Promise<FrameLink> => {
    this.dials.push(port);
    if (this.refused.has(port)) throw new HoldfastError('UNAVAILABLE', 'refused');
    const closed = deferred<string>();
    const pending = new Set<Deferred<Frame>>();
    let ended = false;
    const link: FrameLink = {
      get ended() {
        return ended;
      },
      closed: closed.promise,
      get inFlight() {
        return pending.size;
      },
      queuedBytes: 0,
      lastHeardAt: 0,
      call: (fields) => this.#call(port, fields, pending),
      close: (reason) => {
        ended = true;
        for (const call of pending) call.reject(new HoldfastError('CONNECTION_LOST', reason));
        closed.resolve(reason);
      },
    };
    this.links.set(port, { link, pending });
    return link;
  };

  async #call(server: number, fields: FrameFields & { type: FrameType }, pending: Set<Deferred<Frame>>) {
    const request = { ...fields, server };
    this.sent.push(request);
    const failure = this.answer(request);
    if (failure === 'never') {
      const never = deferred<Frame>();
      pending.add(never);
      return never.promise;
    }
    await Promise.resolve();
    if (failure instanceof Error) throw failure;
    if (failure) throw new HoldfastError(failure);
    const { payload = Buffer.alloc(0), ...reply } = this.reply;
    return { header: { ...fields, aux: 0, ...reply } as FrameHeader, payload };
  }
}

/** Every group on servers 1 and 2, the first alive one being the primary. */
function mapOf(version: number, alive: number[]): ClusterMap {
  const servers = [1, 2].map((id) => ({
    id,
    diskUuid: `d${id}`,
    host: 'h',
    port: id,
    alive: alive.includes(id),
    domain: '',
  }));
  const replicas = [1, 2].map((server) => ({
    server,
    state: alive.includes(server) ? ReplicaState.REPLICA_IN_SYNC : ReplicaState.REPLICA_OUT,
  }));
  const pgs = Array.from({ length: PGS }, (_, id) => ({ id, epoch: version, interval: version, replicas }));
  return { version, clusterId: 'c', replicas: 2, minInSync: 1, chunkSize: 4096, servers, pgs };
}

function setUp(softTimeoutMs?: number) {
  const clock = new ManualClock();
  const servers = new FakeServers();
  const view = new ClusterView(clock);
  const name = { session: 1 };
  const session = () => name.session;
  const connections = new ChunkConnections(clock, silentLogger, servers.dial, session);
  const log = silentLogger;
  const chunks = new ChunkIo({ clock, log, prng: createPrng(1), view, connections, session, softTimeoutMs });
  return { clock, servers, view, chunks, name };
}

const named = (name: string) => (error: unknown) =>
  error instanceof HoldfastError && error.errorName === name;

describe('ChunkIo', () => {
  it('asks the primary of the chunk under the epoch of the map', async () => {
    const { servers, view, chunks } = setUp();
    view.update(mapOf(3, [1, 2]));
    servers.reply = { payload: Buffer.from('abcdef') };
    assert.equal((await chunks.read(FILE, 5, 10, 4)).toString(), 'abcd', 'never more than was asked for');
    const { server, pg, epoch, ino, chunk, offset, length } = servers.sent[0] as Sent;
    assert.deepEqual([server, pg, epoch], [1, pgOfChunk(7, 5, PGS), 3]);
    assert.deepEqual([ino, chunk, offset, length], [7, 5, 10, 4]);
  });

  it('waits for the first map', async () => {
    const { clock, view, chunks } = setUp();
    const read = chunks.read(FILE, 0, 0, 10);
    const pg = chunks.pgOf(7, 1);
    await clock.advance(1_000);
    view.update(mapOf(1, [1]));
    await clock.advance(300);
    await read;
    assert.equal(await pg, pgOfChunk(7, 1, PGS));
  });

  for (const error of [
    'STALE_EPOCH',
    'NOT_PRIMARY',
    'CONNECTION_LOST',
    'UNAVAILABLE',
    'DEADLINE_EXCEEDED',
    'NOT_ENOUGH_REPLICAS',
    'OVERLOADED',
  ] as const) {
    it(`repeats a write after ${error}`, async () => {
      const { clock, servers, view, chunks } = setUp();
      view.update(mapOf(1, [1, 2]));
      servers.answer = () => (servers.sent.length < 4 ? error : undefined);
      servers.reply = { aux: 5, versionEpoch: 3, versionSeq: 9 };
      const written = chunks.write(FILE, 0, 0, [Buffer.from('hello')], true);
      await clock.advance(500);
      assert.deepEqual(await written, { allocated: 5, version: { epoch: 3, seq: 9 } });
      assert.equal(servers.sent.length, 4);
    });
  }

  it('fails a write whose session has expired, and never sends it in the name of another session', async () => {
    const { clock, servers, view, chunks, name } = setUp();
    view.update(mapOf(1, [1, 2]));
    servers.answer = () => 'SESSION_EXPIRED';
    await assert.rejects(chunks.write(FILE, 0, 0, [Buffer.from('hello')], true), named('EIO'));
    servers.answer = () => 'UNAVAILABLE';
    const late = assert.rejects(chunks.write(FILE, 0, 0, [Buffer.from('hello')], true), named('EIO'));
    await settle();
    const { length } = servers.sent;
    servers.answer = () => undefined;
    name.session = 2;
    await clock.advance(500);
    await late;
    assert.equal(servers.sent.length, length);
    await chunks.write(FILE, 0, 0, [Buffer.from('hello')], true);
    assert.deepEqual(servers.dials, [1, 1], 'another session has its own connections');
  });

  it('reads on in the name of the next session', async () => {
    const { clock, servers, view, chunks, name } = setUp();
    view.update(mapOf(1, [1, 2]));
    servers.answer = () => (name.session === 1 ? 'SESSION_EXPIRED' : undefined);
    const read = chunks.read(FILE, 0, 0, 10);
    await clock.advance(100);
    name.session = 0;
    await clock.advance(1000);
    const { length } = servers.sent;
    name.session = 2;
    await clock.advance(1000);
    await read;
    assert.equal(servers.sent.length, length + 1);
  });

  it('goes to the new primary as soon as the map names it, without waiting out the back-off', async () => {
    const { clock, servers, view, chunks } = setUp();
    view.update(mapOf(1, [1, 2]));
    servers.answer = ({ server }) => (server === 1 ? 'STALE_EPOCH' : undefined);
    const read = chunks.read(FILE, 0, 0, 10);
    await clock.advance(2_000);
    const { length } = servers.sent;
    view.update(mapOf(2, [2]));
    await settle();
    await read;
    assert.deepEqual([servers.sent[length]?.server, servers.sent[length]?.epoch], [2, 2]);
  });

  it('breaks off a connection whose server the map declares dead', async () => {
    const { servers, view, chunks } = setUp();
    view.update(mapOf(1, [1, 2]));
    servers.answer = ({ server }) => (server === 1 ? 'never' : undefined);
    const read = chunks.read(FILE, 0, 0, 10);
    await settle();
    view.update(mapOf(2, [2]));
    await settle();
    await read;
    assert.equal(servers.links.get(1)?.link.ended, true);
  });

  it('dials an unreachable server with a back-off, not once for each request', async () => {
    const { clock, servers, view, chunks } = setUp();
    servers.refused.add(1);
    view.update(mapOf(1, [1, 2]));
    const reads = Promise.all([0, 1, 2, 3].map((chunk) => chunks.read(FILE, chunk, 0, 10)));
    await clock.advance(2_000);
    assert.ok(servers.dials.length < 20, `${servers.dials.length} dials in 2 s`);
    servers.refused.delete(1);
    await clock.advance(600);
    await reads;
  });

  it('hands a final error on at once', async () => {
    const { servers, view, chunks } = setUp();
    view.update(mapOf(1, [1]));
    servers.answer = () => 'ENOSPC';
    await assert.rejects(chunks.write(FILE, 0, 0, [Buffer.from('x')], false), named('ENOSPC'));
    assert.equal(servers.sent.length, 1);
  });

  it('does not repeat a write that a truncate has overtaken', async () => {
    const { servers, view, chunks } = setUp();
    view.update(mapOf(1, [1]));
    servers.answer = () => 'CUT';
    await assert.rejects(chunks.write(FILE, 0, 0, [Buffer.from('x')], false), named('CUT'));
    assert.equal(servers.sent.length, 1);
  });

  it('gives up on a block that stays damaged', async () => {
    const { clock, servers, view, chunks } = setUp();
    view.update(mapOf(1, [1]));
    servers.answer = () => 'CORRUPT';
    const refused = assert.rejects(chunks.read(FILE, 0, 0, 1), named('EIO'));
    await clock.advance(10_000);
    await refused;
  });

  it('brings a group up to the truncates of the file, in order, then repeats the request', async () => {
    const { servers, view, chunks } = setUp();
    view.update(mapOf(1, [1]));
    const file = { ...FILE, truncateSeq: 6, truncates: [3, 4, 5].map((seq) => ({ seq, from: seq * 1000 })) };
    let known = 3;
    servers.answer = ({ type, truncateSeq = 0 }) => {
      if (type === FrameType.TRUNCATE) known = truncateSeq;
      else if (truncateSeq > known) return new FrameError('NEED_TRUNCATE', { truncateSeq: known });
      return undefined;
    };
    await chunks.write(file, 0, 0, [Buffer.from('x')], false);
    assert.deepEqual(
      servers.sent.map(({ type, truncateSeq, aux }) => [type, truncateSeq, aux]),
      [
        [FrameType.WRITE, 6, undefined],
        [FrameType.TRUNCATE, 4, 4000],
        [FrameType.TRUNCATE, 5, 5000],
        [FrameType.TRUNCATE, 6, FILE_SIZE_MAX_BYTES],
        [FrameType.WRITE, 6, undefined],
      ],
    );
    assert.equal(servers.sent[1]?.length, 4096, 'the chunk size goes along');
  });

  it('can be interrupted while it waits', async () => {
    const { clock, servers, view, chunks } = setUp();
    view.update(mapOf(1, [1]));
    for (const behaviour of ['UNAVAILABLE', 'never'] as const) {
      servers.answer = () => behaviour;
      const interrupt = new AbortController();
      const refused = assert.rejects(chunks.read(FILE, 0, 0, 1, interrupt.signal), named('EINTR'));
      await clock.advance(500);
      interrupt.abort();
      await refused;
    }
  });

  it('gives up after the soft time-out', async () => {
    const { clock, servers, view, chunks } = setUp(1_000);
    view.update(mapOf(1, [1]));
    servers.answer = () => 'UNAVAILABLE';
    const refused = assert.rejects(chunks.sync(0), named('ETIMEDOUT'));
    await clock.advance(1_500);
    await refused;
  });

  it('truncates ahead in each group once, however many chunks there are', async () => {
    const { servers, view, chunks } = setUp();
    view.update(mapOf(1, [1]));
    await chunks.sync(0); // connected
    servers.sent.length = 0;
    const file = { ...FILE, truncateSeq: 1, truncates: [{ seq: 1, from: 0 }] };
    chunks.truncateAhead(file, 0, 1_000_000);
    await settle();
    assert.deepEqual(servers.sent.map(({ pg }) => pg).sort(), [0, 1, 2, 3]);
  });
});
