import assert from 'node:assert/strict';
import { systemClock } from '../../../common/clock.js';
import { silentLogger } from '../../../common/logger.js';
import { createPrng } from '../../../common/prng.js';
import { makeMessage } from '../../../metaserver/raft/messages.js';
import { PEER_QUEUE_MAX, type PeerStream } from '../../../metaserver/replica/peer-link.js';
import { Peers } from '../../../metaserver/replica/peers.js';
import {
  RaftAccepted,
  type RaftEntryType,
  type RaftEnvelope,
  type RaftHello,
  type RaftMessage,
  RaftMessageType,
  RaftServiceDefinition,
} from '../../../proto/gen/raft.js';
import { RpcClient, RpcServer } from '../../../proto/rpc.js';
import { PROTOCOL_VERSION } from '../../../proto/types.js';
import { takePorts } from '../../ports.js';
import { until } from './cluster.js';

interface Node {
  peers: Peers;
  server: RpcServer;
  port: number;
  messages: RaftMessage[];
  events: string[];
}

/** Members' ids are the servers' numbers. */
const uuid = (id: number): string => `0000000${id}-d15c-4000-8000-000000000000`;

const HELLO: RaftHello = {
  protocol: PROTOCOL_VERSION,
  clusterId: 'cluster',
  from: 2,
  to: 1,
  diskUuid: uuid(2),
};

function heartbeat(from: number, to: number, term = 1): RaftMessage {
  return makeMessage(RaftMessageType.RAFT_HEARTBEAT, from, to, term);
}

describe('Peers', () => {
  const opened: { close(): void }[] = [];
  /** How far the servers' clocks were moved on. */
  let skewMs = 0;

  afterEach(() => {
    for (const each of opened.splice(0).reverse()) each.close();
  });

  /** A server that knows the others at the given ports. */
  async function node(
    id: number,
    ports: Record<number, number>,
    port = takePorts(1),
    clusterId = 'cluster',
    disk = uuid(id),
  ): Promise<Node> {
    const messages: RaftMessage[] = [];
    const events: string[] = [];
    const peers = new Peers({
      identity: { clusterId, serverId: id, diskUuid: disk },
      present: () => RaftAccepted.create({ diskUuid: disk }),
      peers: Object.entries(ports).map(([peer, at]) => ({ id: Number(peer), address: `127.0.0.1:${at}` })),
      clock: { ...systemClock, now: () => systemClock.now() + skewMs },
      prng: createPrng(id),
      log: silentLogger,
      events: {
        onMessage: (message) => messages.push(message),
        onUp: (peer) => events.push(`up ${peer}`),
        onDown: (peer) => events.push(`down ${peer}`),
        onSnapshot: () => () => undefined,
      },
    });
    const server = new RpcServer(silentLogger);
    peers.attach(server);
    const bound = await server.listen('127.0.0.1', port);
    opened.push(server, peers);
    return { peers, server, port: bound, messages, events };
  }

  /** A stream to `port` that a test drives by hand, and what comes back on it. */
  function dial(port: number): {
    stream: PeerStream;
    answers: RaftEnvelope['body'][];
    ended: Promise<string>;
  } {
    const client = new RpcClient(`127.0.0.1:${port}`);
    opened.push(client);
    const stream: PeerStream = client.openStream(
      RaftServiceDefinition.fullName,
      RaftServiceDefinition.methods.channel,
    );
    const answers: RaftEnvelope['body'][] = [];
    stream.onMessage(({ body }) => answers.push(body));
    const ended = new Promise<string>((resolve) => stream.onEnd(resolve));
    return { stream, answers, ended };
  }

  it('carry messages in order, each server on the stream that it dialled', async () => {
    const first = await node(1, { 1: 0, 2: 0 });
    const second = await node(2, { 1: first.port });
    second.peers.start();
    await until(() => second.events.includes('up 1'), 'the connection stands');
    for (let term = 1; term <= 100; term++) assert.equal(second.peers.send(heartbeat(2, 1, term)), true);
    await until(() => first.messages.length === 100, 'all arrive');
    assert.deepEqual(
      first.messages.map(({ term }) => term),
      Array.from({ length: 100 }, (_, i) => i + 1),
    );
    assert.equal(
      first.peers.send(heartbeat(1, 2)),
      false,
      'the stream of the other direction is not its own',
    );
  });

  it('drop messages while there is no connection, and dial again by themselves', async () => {
    const first = await node(1, { 2: 0 });
    const second = await node(2, { 1: first.port });
    second.peers.start();
    await until(() => second.peers.connected(1), 'the connection stands');
    first.peers.close();
    first.server.close();
    await until(() => second.events.includes('down 1'), 'the loss is reported');
    assert.equal(second.peers.send(heartbeat(2, 1)), false);
    const again = await node(1, { 2: 0 }, first.port);
    await until(() => second.peers.connected(1), 'the connection stands again');
    assert.equal(second.peers.send(heartbeat(2, 1, 9)), true);
    await until(() => again.messages.length === 1, 'the message arrives');
    assert.equal(second.events[0], 'up 1');
    assert.equal(second.events.at(-1), 'up 1');
  });

  it('report the loss of a stream that the other side had dialled', async () => {
    const first = await node(1, { 2: 1 });
    const { stream } = dial(first.port);
    stream.send({ body: { $case: 'hello', value: HELLO } });
    stream.send({ body: { $case: 'message', value: heartbeat(2, 1) } });
    await until(() => first.messages.length === 1, 'the message arrives');
    assert.deepEqual(first.events, []);
    stream.destroy('test');
    await until(() => first.events.length === 1, 'the loss is reported');
    assert.deepEqual(first.events, ['down 2']);
  });

  it('make a connection anew on which nothing is answered, and leave one alone that is', async () => {
    const first = await node(1, { 2: 0 });
    const second = await node(2, { 1: first.port });
    second.peers.start();
    await until(() => second.peers.connected(1), 'the connection stands');
    const answer = dial(second.port);
    answer.stream.send({ body: { $case: 'hello', value: { ...HELLO, from: 1, to: 2, diskUuid: uuid(1) } } });
    for (let term = 1; term <= 3; term++) {
      second.peers.send(heartbeat(2, 1));
      skewMs += 2_000;
      answer.stream.send({ body: { $case: 'message', value: heartbeat(1, 2, term) } });
      await until(() => second.messages.length === term, 'the peer is heard');
    }
    assert.deepEqual(second.events, ['up 1']);
    second.peers.send(heartbeat(2, 1));
    skewMs += 5_000;
    assert.equal(second.peers.send(heartbeat(2, 1)), false);
    await until(() => second.events.length === 3, 'the connection is made anew');
    assert.deepEqual(second.events, ['up 1', 'down 1', 'up 1']);
    assert.equal(second.peers.send(heartbeat(2, 1)), true);
  });

  it('drop messages instead of queueing without bound', async () => {
    const first = await node(1, { 2: 0 });
    const second = await node(2, { 1: first.port });
    second.peers.start();
    await until(() => second.peers.connected(1), 'the connection stands');
    let dropped = 0;
    for (let i = 0; i < PEER_QUEUE_MAX * 3; i++) if (!second.peers.send(heartbeat(2, 1))) dropped++;
    assert.ok(dropped >= PEER_QUEUE_MAX, `${dropped} dropped`);
    await until(() => first.messages.length === PEER_QUEUE_MAX * 3 - dropped, 'the others arrive');
  });

  const refusals: [string, Partial<RaftHello>, RegExp][] = [
    [
      'another protocol version',
      { protocol: 99 },
      new RegExp(`protocol version 99; this server speaks ${PROTOCOL_VERSION}`),
    ],
    ['another cluster', { clusterId: 'other' }, /server of cluster other, not of cluster/],
    ['a server that looks for another one', { to: 3 }, /meant for metaserver 3; this is 1/],
    ['a server that is no member', { from: 7 }, /metaserver 7 is not a member/],
  ];
  for (const [what, change, reason] of refusals) {
    it(`refuse ${what}, with the reason`, async () => {
      const first = await node(1, { 2: 0, 3: 0 });
      const { stream, answers, ended } = dial(first.port);
      stream.send({ body: { $case: 'hello', value: { ...HELLO, ...change } } });
      await ended;
      assert.equal(answers.length, 1);
      assert.ok(answers[0]?.$case === 'refused');
      assert.match(answers[0].value.reason, reason);
    });
  }

  it('are not connected where they were refused', async () => {
    const first = await node(1, { 2: 0 });
    const second = await node(2, { 1: first.port }, 0, 'other');
    second.peers.setRoster([{ id: 1, server: 1, diskUuid: uuid(1), address: '' }]);
    second.peers.start();
    await until(() => second.events.length > 0, 'the refusal is noticed');
    assert.deepEqual(second.events, ['down 1']);
    assert.equal(second.peers.connected(1), false);
  });

  const good = heartbeat(2, 1);
  const entry = { term: 1, index: 1, type: 0, data: Buffer.alloc(0) };
  const append = { ...good, type: RaftMessageType.RAFT_APPEND };
  const malformed: [string, RaftEnvelope][] = [
    ['an empty envelope', { body: undefined }],
    ['a second hello', { body: { $case: 'hello', value: HELLO } }],
    ['a message in the name of another', { body: { $case: 'message', value: { ...good, from: 3 } } }],
    ['a message for another', { body: { $case: 'message', value: { ...good, to: 3 } } }],
    [
      'an unknown message type',
      { body: { $case: 'message', value: { ...good, type: 77 as RaftMessageType } } },
    ],
    [
      'entries that do not follow',
      { body: { $case: 'message', value: { ...append, entries: [{ ...entry, index: 5 }] } } },
    ],
    [
      'entries of a later term',
      { body: { $case: 'message', value: { ...append, entries: [{ ...entry, term: 8 }] } } },
    ],
    [
      'entries of an unknown type',
      { body: { $case: 'message', value: { ...append, entries: [{ ...entry, type: 9 as RaftEntryType }] } } },
    ],
    ['entries in a heartbeat', { body: { $case: 'message', value: { ...good, entries: [entry] } } }],
    [
      'a snapshot without its bytes',
      { body: { $case: 'message', value: { ...good, type: RaftMessageType.RAFT_SNAPSHOT } } },
    ],
  ];
  for (const [what, envelope] of malformed) {
    it(`end the stream on ${what}, and go on with others`, async () => {
      const first = await node(1, { 2: 0, 3: 0 });
      const bad = dial(first.port);
      bad.stream.send({ body: { $case: 'hello', value: HELLO } });
      bad.stream.send(envelope);
      await bad.ended;
      const next = dial(first.port);
      next.stream.send({ body: { $case: 'hello', value: HELLO } });
      next.stream.send({ body: { $case: 'message', value: good } });
      await until(() => first.messages.length > 0, 'the good message arrives');
      assert.deepEqual(
        first.messages.map(({ type }) => type),
        [RaftMessageType.RAFT_HEARTBEAT],
      );
    });
  }

  it('refuse a stream that does not begin with hello', async () => {
    const first = await node(1, { 2: 0 });
    const { stream, answers, ended } = dial(first.port);
    stream.send({ body: { $case: 'message', value: good } });
    await ended;
    assert.ok(answers[0]?.$case === 'refused');
    assert.deepEqual(first.messages, []);
  });
});
