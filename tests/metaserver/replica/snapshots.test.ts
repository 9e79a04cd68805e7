import assert from 'node:assert/strict';
import { systemClock } from '../../../common/clock.js';
import { crc32c } from '../../../common/crc32c.js';
import { readWholeFile } from '../../../common/disk.js';
import { silentLogger } from '../../../common/logger.js';
import { MemoryDisk } from '../../../common/memory-disk.js';
import type { PeerStream } from '../../../metaserver/replica/peer-link.js';
import { SnapshotReceiver } from '../../../metaserver/replica/snapshot-receiver.js';
import {
  SNAPSHOT_CHUNK_BYTES,
  SNAPSHOT_WINDOW_CHUNKS,
  sendSnapshot,
} from '../../../metaserver/replica/snapshot-sender.js';
import {
  RaftAccepted,
  type RaftEnvelope,
  type RaftHello,
  RaftServiceDefinition,
  type SnapshotChunk,
} from '../../../proto/gen/raft.js';
import { RpcClient, RpcServer } from '../../../proto/rpc.js';
import { until } from './cluster.js';

const META = { index: 9, term: 2, conf: { voters: [1, 2], votersOutgoing: [], learners: [], roster: [] } };
const HELLO: RaftHello = { protocol: 1, clusterId: 'c', from: 1, to: 2, diskUuid: '' };
const TERM = 3;

describe('snapshot transfer', () => {
  let disk: MemoryDisk;
  let server: RpcServer;
  let client: RpcClient;
  let onStream: (stream: PeerStream) => void;

  beforeEach(async () => {
    disk = new MemoryDisk();
    server = new RpcServer(silentLogger);
    server.addStream(RaftServiceDefinition.fullName, RaftServiceDefinition.methods.channel, (stream) =>
      onStream(stream),
    );
    client = new RpcClient(`127.0.0.1:${await server.listen('127.0.0.1', 0)}`);
  });

  afterEach(() => {
    client.close();
    server.close();
  });

  async function copyOf(bytes: number): Promise<Buffer> {
    const content = Buffer.alloc(bytes);
    for (let i = 0; i < bytes; i += 997) content[i] = i % 251;
    const file = await disk.open('/send', 'create');
    await file.write([content], 0);
    return content;
  }

  const send = (): Promise<number> =>
    sendSnapshot({
      disk,
      path: '/send',
      meta: META,
      term: TERM,
      hello: HELLO,
      stream: client.openStream(RaftServiceDefinition.fullName, RaftServiceDefinition.methods.channel),
      clock: systemClock,
    });

  /** Receives as a server does; `change` may tamper with each chunk, `answer` is what installing says. */
  function receive(
    change: (chunk: SnapshotChunk) => SnapshotChunk = (chunk) => chunk,
    answer?: string,
  ): { installed: string[]; receiver: () => SnapshotReceiver } {
    const installed: string[] = [];
    let receiver: SnapshotReceiver | undefined;
    onStream = (stream) => {
      receiver = new SnapshotReceiver({
        disk,
        path: '/receive',
        from: 1,
        stream,
        log: silentLogger,
        install: async (meta, term, from, path) => {
          installed.push(`${meta.index} ${meta.term} ${term} ${from}`);
          if (answer === undefined) await disk.rename(path, '/installed');
          return answer;
        },
      });
      stream.onMessage(({ body }: RaftEnvelope) => {
        if (body?.$case === 'hello')
          stream.send({ body: { $case: 'accepted', value: RaftAccepted.create() } });
        else if (body?.$case === 'chunk') receiver?.chunk(change(body.value));
      });
    };
    return { installed, receiver: () => receiver as SnapshotReceiver };
  }

  async function nothingLeft(receiver: SnapshotReceiver): Promise<void> {
    await receiver.settled();
    await assert.rejects(readWholeFile(disk, '/receive'), /ENOENT/);
  }

  for (const bytes of [0, 1, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNK_BYTES * 9 + 5]) {
    it(`delivers ${bytes} bytes whole, then installs them once`, async () => {
      const content = await copyOf(bytes);
      const { installed, receiver } = receive();
      assert.equal(await send(), bytes);
      assert.deepEqual(installed, ['9 2 3 1']);
      assert.ok((await readWholeFile(disk, '/installed')).equals(content));
      await nothingLeft(receiver());
    });
  }

  it('sends no further than its window ahead of the acknowledgements', async () => {
    await copyOf(SNAPSHOT_CHUNK_BYTES * 12);
    let outstanding = 0;
    let most = 0;
    onStream = (stream) => {
      const accept = () => stream.send({ body: { $case: 'accepted', value: RaftAccepted.create() } });
      stream.onMessage(({ body }) => {
        if (body?.$case !== 'chunk') return accept();
        most = Math.max(most, ++outstanding);
        setImmediate(() => {
          outstanding--;
          accept();
        });
      });
    };
    await send();
    assert.ok(most <= SNAPSHOT_WINDOW_CHUNKS, `${most} chunks outstanding`);
  });

  const tampered: [string, (chunk: SnapshotChunk) => SnapshotChunk, RegExp][] = [
    ['damaged data', (chunk) => ({ ...chunk, crc32c: chunk.crc32c ^ 1 }), /wrong checksum/],
    ['a gap', (chunk) => ({ ...chunk, offset: chunk.offset + (chunk.last ? 1 : 0) }), /where .* belongs/],
    [
      'another snapshot amid this one',
      (chunk) => ({ ...chunk, term: chunk.last ? 8 : TERM }),
      /another snapshot/,
    ],
    ['an end that is none', (chunk) => ({ ...chunk, last: true }), /beyond the end/],
    ['no place in the log', (chunk) => ({ ...chunk, meta: undefined }), /without a place/],
    [
      'more than was announced',
      (chunk) => {
        const data = Buffer.concat([chunk.data, Buffer.from('x')]);
        return chunk.last ? { ...chunk, data, crc32c: crc32c(data) } : chunk;
      },
      /beyond the end/,
    ],
  ];
  for (const [what, change, reason] of tampered) {
    it(`refuses ${what} and leaves nothing behind`, async () => {
      await copyOf(SNAPSHOT_CHUNK_BYTES * 2 + 7);
      const { installed, receiver } = receive(change);
      await assert.rejects(send(), reason);
      assert.deepEqual(installed, []);
      await nothingLeft(receiver());
    });
  }

  it('tells the sender why a snapshot was not wanted', async () => {
    await copyOf(100);
    const { receiver } = receive(undefined, 'the snapshot is not needed');
    await assert.rejects(send(), { errorName: 'UNAVAILABLE', message: /the snapshot is not needed/ });
    await nothingLeft(receiver());
  });

  it('removes what it has when the sender breaks off', async () => {
    await copyOf(SNAPSHOT_CHUNK_BYTES * 20);
    const { installed, receiver } = receive();
    disk.fail('read', 'EIO', 5);
    await assert.rejects(send(), /EIO/);
    await until(() => receiver().ended, 'the receiver notices');
    assert.deepEqual(installed, []);
    await nothingLeft(receiver());
  });

  it('refuses when its disk is full', async () => {
    await copyOf(SNAPSHOT_CHUNK_BYTES * 4);
    disk.capacityBytes = SNAPSHOT_CHUNK_BYTES * 6;
    const { receiver } = receive();
    await assert.rejects(send(), /ENOSPC/);
    await nothingLeft(receiver());
  });
});
