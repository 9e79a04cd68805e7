import { systemClock } from '../../../common/clock.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { silentLogger } from '../../../common/logger.js';
import { createServices, type Services } from '../../../metaserver/service/services.js';
import {
  type ChunkServerEnvelope,
  ClusterServiceDefinition,
  type Fence,
  type Heartbeat,
  type MetaToChunkServer,
  type PurgeDone,
  RegisterChunkServer,
} from '../../../proto/gen/cluster.js';
import {
  type ClientEnvelope,
  Hello,
  type HelloReply,
  type LeaseMode,
  MetaServiceDefinition,
  Mutation,
  type MutationReply,
  type ReadReply,
  type ServerEnvelope,
} from '../../../proto/gen/meta.js';
import { CallStream, RpcClient, RpcServer } from '../../../proto/rpc.js';
import { PROTOCOL_VERSION } from '../../../proto/types.js';
import { FakeClock, FakeReplica, FakeState, INIT, settled } from './fakes.js';

const CALL_DEADLINE_MS = 20_000;

/** What arrives on a stream without being asked for; `take` waits for the first that fits. */
export class Inbox<T> {
  readonly all: T[] = [];
  readonly #waiting: { fits: (message: T) => boolean; done: Deferred<T> }[] = [];
  readonly ended: Promise<string>;
  readonly #ended = deferred<string>();

  constructor() {
    this.ended = this.#ended.promise;
  }

  push(message: T): void {
    const at = this.#waiting.findIndex((waiting) => waiting.fits(message));
    if (at >= 0) this.#waiting.splice(at, 1)[0]?.done.resolve(message);
    else this.all.push(message);
  }

  end(reason: string): void {
    this.#ended.resolve(reason);
    for (const { done } of this.#waiting.splice(0)) done.reject(new Error(`stream ended: ${reason}`));
  }

  take(fits: (message: T) => boolean): Promise<T> {
    const at = this.all.findIndex(fits);
    if (at >= 0) return Promise.resolve(this.all.splice(at, 1)[0] as T);
    const done = deferred<T>();
    this.#waiting.push({ fits, done });
    return done.promise;
  }
}

/** The client's end of MetaService.Connect. */
export class TestClient {
  readonly pushes = new Inbox<ServerEnvelope>();
  readonly calls: CallStream<ClientEnvelope, ServerEnvelope>;
  readonly #rpc: RpcClient;
  session = 0;
  #seq = 0;

  constructor(address: string) {
    this.#rpc = new RpcClient(address);
    const { fullName, methods } = MetaServiceDefinition;
    this.calls = new CallStream(
      this.#rpc.openStream(fullName, methods.connect),
      systemClock,
      (push) => this.pushes.push(push),
      (reason) => this.pushes.end(reason),
    );
  }

  async call(body: ClientEnvelope['body']): Promise<ServerEnvelope> {
    return this.calls.call((id) => ({ id, deadlineMs: CALL_DEADLINE_MS, body }), CALL_DEADLINE_MS);
  }

  async hello(fields: Partial<Hello> = {}): Promise<HelloReply> {
    const value = Hello.create({ protocol: PROTOCOL_VERSION, clientUuid: 'u1', hostname: 'h', ...fields });
    const { body } = await this.call({ $case: 'hello', value });
    if (body?.$case !== 'hello') throw new Error(`not an answer to hello: ${body?.$case}`);
    this.session = body.value.session;
    return body.value;
  }

  async mutate(op: Mutation['op'], seq = ++this.#seq): Promise<MutationReply> {
    const value = Mutation.create({ session: this.session, seq, op });
    const { body } = await this.call({ $case: 'mutation', value });
    if (body?.$case !== 'mutation') throw new Error(`not an answer to a mutation: ${body?.$case}`);
    return body.value;
  }

  create(name: string, open = false): Promise<MutationReply> {
    return this.mutate(makeNode(name, open));
  }

  async read(
    op: NonNullable<Extract<ClientEnvelope['body'], { $case: 'read' }>['value']['op']>,
  ): Promise<ReadReply> {
    const { body } = await this.call({ $case: 'read', value: { op } });
    if (body?.$case !== 'read') throw new Error(`not an answer to a read: ${body?.$case}`);
    return body.value;
  }

  push(body: ClientEnvelope['body']): void {
    this.calls.push((id) => ({ id, deadlineMs: 0, body }));
  }

  /** The leases of the next recall, as [inode, mode, number]. */
  async recalled(): Promise<number[][]> {
    const { body } = await this.pushes.take((push) => push.body?.$case === 'recall');
    if (body?.$case !== 'recall') throw new Error('unreachable');
    return body.value.leases.map(({ ino, mode, seq }) => [ino, mode, seq]);
  }

  giveBack(...leases: [ino: number, mode: LeaseMode, seq: number][]): void {
    const value = { leases: leases.map(([ino, mode, seq]) => ({ ino, mode, seq })) };
    this.push({ $case: 'leaseReturn', value });
  }

  close(): void {
    this.calls.close('test');
    this.#rpc.close();
  }
}

export function makeNode(name: string, open = false): NonNullable<Mutation['op']> {
  const value = {
    parent: 1,
    name: Buffer.from(name),
    mode: 0o644,
    uid: 0,
    gid: 0,
    rdev: 0,
    target: Buffer.alloc(0),
    existingOk: false,
    open,
  };
  return { $case: 'makeNode', value };
}

/** The chunkserver's end of ClusterService.Heartbeat. */
export class TestChunkServer {
  readonly pushes = new Inbox<MetaToChunkServer>();
  readonly calls: CallStream<ChunkServerEnvelope, MetaToChunkServer>;
  readonly #rpc: RpcClient;
  readonly id: number;

  constructor(address: string, id: number) {
    this.id = id;
    this.#rpc = new RpcClient(address);
    const { fullName, methods } = ClusterServiceDefinition;
    this.calls = new CallStream(
      this.#rpc.openStream(fullName, methods.heartbeat),
      systemClock,
      (push) => this.pushes.push(push),
      (reason) => this.pushes.end(reason),
    );
  }

  call(body: ChunkServerEnvelope['body']): Promise<MetaToChunkServer> {
    return this.calls.call((id) => ({ id, body }), CALL_DEADLINE_MS);
  }

  async register(fields: Partial<RegisterChunkServer> = {}) {
    const value = RegisterChunkServer.create({
      protocol: PROTOCOL_VERSION,
      serverId: this.id,
      diskUuid: `disk-${this.id}`,
      host: '127.0.0.1',
      port: 7000 + this.id,
      ...fields,
    });
    const { body } = await this.call({ $case: 'register', value });
    if (body?.$case !== 'registered') throw new Error(`not an answer to a registration: ${body?.$case}`);
    return body.value;
  }

  /** @returns the lease in ms */
  async heartbeat(fields: Partial<Heartbeat> = {}): Promise<number> {
    const heartbeat = {
      sequence: 1,
      capacityBytes: 9000,
      usedBytes: 3000,
      freeBytes: 6000,
      pgs: [],
      ...fields,
    };
    const { body } = await this.call({ $case: 'heartbeat', value: heartbeat });
    if (body?.$case !== 'heartbeatAck') throw new Error(`not an answer to a heartbeat: ${body?.$case}`);
    return body.value.leaseMs;
  }

  async purge() {
    const { body } = await this.pushes.take((push) => push.body?.$case === 'purge');
    if (body?.$case !== 'purge') throw new Error('unreachable');
    return body.value;
  }

  /** The pushed map that fits. */
  async map(fits: (version: number) => boolean = () => true) {
    const push = await this.pushes.take(({ body }) => body?.$case === 'map' && fits(body.value.version));
    if (push.body?.$case !== 'map') throw new Error('unreachable');
    return push.body.value;
  }

  /** The next fence that is pushed. */
  async fence(): Promise<Fence> {
    const { body } = await this.pushes.take((push) => push.body?.$case === 'fence');
    if (body?.$case !== 'fence') throw new Error('unreachable');
    return body.value;
  }

  fenced(version: number): void {
    this.calls.push((id) => ({ id, body: { $case: 'fenced', value: { version } } }));
  }

  purgeDone(value: PurgeDone): void {
    this.calls.push((id) => ({ id, body: { $case: 'purgeDone', value } }));
  }

  close(): void {
    this.calls.close('test');
    this.#rpc.close();
  }
}

/** The services over a fake replica and state machine, behind a real port. */
export class Harness {
  readonly clock = new FakeClock();
  readonly state = new FakeState();
  readonly replica = new FakeReplica(this.state);
  readonly services: Services;
  readonly #server = new RpcServer(silentLogger);
  readonly #closing: { close(): void }[] = [];
  address = '';

  constructor() {
    this.services = createServices({
      replica: this.replica,
      state: this.state,
      clock: this.clock,
      log: silentLogger,
      serverId: 1,
      init: INIT,
      rssBytes: () => 4242,
    });
  }

  async start(): Promise<this> {
    this.services.attach(this.#server);
    this.address = `127.0.0.1:${await this.#server.listen('127.0.0.1', 0)}`;
    this.services.start();
    this.replica.lead(true);
    await this.settle();
    return this;
  }

  /** Lets what is due happen, without time passing. */
  async settle(): Promise<void> {
    for (let i = 0; i < 5; i++) await settled();
  }

  client(): TestClient {
    return this.#keep(new TestClient(this.address));
  }

  async connect(fields: Partial<Hello> = {}): Promise<TestClient> {
    const client = this.client();
    await client.hello(fields);
    return client;
  }

  chunkServer(id: number): TestChunkServer {
    return this.#keep(new TestChunkServer(this.address, id));
  }

  /** Three registered chunkservers, and the PGs that are placed on them. */
  async cluster(): Promise<TestChunkServer[]> {
    const servers = [1, 2, 3].map((id) => this.chunkServer(id));
    for (const server of servers) await server.register();
    await this.settle();
    return servers;
  }

  close(): void {
    for (const each of this.#closing.splice(0)) each.close();
    this.services.close();
    this.#server.close();
  }

  #keep<T extends { close(): void }>(each: T): T {
    this.#closing.push(each);
    return each;
  }
}

/** Runs a test against a started harness and takes it down. */
export async function withHarness(test: (harness: Harness) => Promise<void>): Promise<void> {
  const harness = new Harness();
  try {
    await test(await harness.start());
  } finally {
    harness.close();
  }
}
