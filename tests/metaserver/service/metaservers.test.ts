import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { delay, systemClock } from '../../../common/clock.js';
import { silentLogger } from '../../../common/logger.js';
import { systemPrng } from '../../../common/prng.js';
import { type MetaserverOptions, runMetaserver } from '../../../metaserver/main.js';
import { HoldfastError } from '../../../proto/errors.js';
import { AdminServiceDefinition, type StatusReply, StatusRequest } from '../../../proto/gen/admin.js';
import { RpcClient } from '../../../proto/rpc.js';
import { takePorts } from '../../ports.js';
import { INIT } from './fakes.js';
import { makeNode, TestChunkServer, TestClient } from './harness.js';

const CHILD = fileURLToPath(new URL('./metaserver-process.js', import.meta.url));
const RETRY_MS = 20;
const PATIENCE_MS = 15_000;
const UNARY_DEADLINE_MS = 2000;

/** Three metaservers, each a process of its own. */
class Trio {
  readonly #children = new Map<number, ChildProcess>();
  #options: MetaserverOptions[] = [];
  #dir = '';

  async start(): Promise<void> {
    this.#dir = await mkdtemp(path.join(tmpdir(), 'holdfast-metaservers-'));
    const first = takePorts(3);
    const ports = [first, first + 1, first + 2];
    const peers = ports.map((port, i) => ({ id: i + 1, address: `127.0.0.1:${port}` }));
    this.#options = peers.map(({ id }) => ({
      id,
      host: '127.0.0.1',
      port: ports[id - 1] as number,
      dataDir: path.join(this.#dir, String(id)),
      clusterId: INIT.clusterId,
      peers,
      init: INIT,
    }));
    await Promise.all(peers.map(({ id }) => this.run(id)));
  }

  async run(id: number): Promise<void> {
    // TypeScript sources run under a loader, built ones do not: the child is what this process is.
    const file = import.meta.url.endsWith('.ts') ? CHILD.replace(/\.js$/, '.ts') : CHILD;
    const child = fork(file, [JSON.stringify(this.#options[id - 1])], { execArgv: process.execArgv });
    this.#children.set(id, child);
    const [message] = await Promise.race([once(child, 'message'), once(child, 'exit')]);
    assert.equal(message, 'listening');
  }

  async kill(id: number): Promise<void> {
    const child = this.#children.get(id) as ChildProcess;
    this.#children.delete(id);
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  signal(id: number, signal: NodeJS.Signals): void {
    this.#children.get(id)?.kill(signal);
  }

  address(id: number): string {
    return `127.0.0.1:${this.#options[id - 1]?.port}`;
  }

  async status(id: number): Promise<StatusReply> {
    const client = new RpcClient(this.address(id));
    const { fullName, methods } = AdminServiceDefinition;
    try {
      return await client.unary(fullName, methods.status, StatusRequest.create({}), UNARY_DEADLINE_MS);
    } finally {
      client.close();
    }
  }

  /** The first of the running servers whose status fits; `except` is not asked. */
  async where(fits: (status: StatusReply) => boolean, except = 0): Promise<StatusReply> {
    return eventually(async () => {
      for (const id of this.#children.keys()) {
        if (id === except) continue;
        const status = await this.status(id);
        if (fits(status)) return status;
      }
      throw new Error('no status fits');
    });
  }

  leader(): Promise<StatusReply> {
    return this.where((status) => status.role === 'leader' && status.map !== undefined);
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#children.keys()].map((id) => this.kill(id)));
    await rm(this.#dir, { recursive: true, force: true });
  }
}

/** Tries until it succeeds; gives up with the last error. */
async function eventually<T>(attempt: () => Promise<T>): Promise<T> {
  const end = systemClock.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (systemClock.now() > end) throw error;
      await delay(systemClock, RETRY_MS);
    }
  }
}

describe('three metaservers', () => {
  const trio = new Trio();
  const clients: { close(): void }[] = [];

  // Starting processes is what costs here: the tests share them, each leaves all three running.
  before(async function () {
    this.timeout(60_000);
    await trio.start();
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.close();
  });
  after(() => trio.stop());

  async function connect(address: string, session = 0, clientUuid = 'u1'): Promise<TestClient> {
    const client = new TestClient(address);
    clients.push(client);
    await client.hello({ session, clientUuid, clusterId: INIT.clusterId });
    return client;
  }

  const readName = (client: TestClient, name: string) =>
    client.read({ $case: 'lookup', value: { parent: 1, name: Buffer.from(name) } });

  it('point at the leader, and take chunkservers into one map', async function () {
    this.timeout(60_000);
    const leader = await trio.leader();
    const follower = [1, 2, 3].find((id) => id !== leader.serverId) as number;
    await trio.where((status) => status.serverId === follower && status.leaderId === leader.serverId);
    const stranger = new TestClient(trio.address(follower));
    clients.push(stranger);
    await assert.rejects(stranger.hello(), (error) => {
      assert.ok(error instanceof HoldfastError);
      assert.deepEqual([error.errorName, error.leaderHint], ['NOT_LEADER', leader.leaderAddress]);
      return true;
    });
    const servers = [1, 2, 3].map((id) => new TestChunkServer(leader.leaderAddress, id));
    clients.push(...servers);
    for (const server of servers) await server.register();
    const placed = await trio.where((status) => status.map?.pgs.length === INIT.pgCount);
    assert.deepEqual(
      placed.chunkservers.map(({ id, alive, pgsInSync, pgsPrimary }) => ({
        id,
        alive,
        pgsInSync,
        pgsPrimary,
      })),
      [1, 2, 3].map((id) => ({ id, alive: true, pgsInSync: INIT.pgCount, pgsPrimary: INIT.pgCount / 3 })),
    );
    for (const server of servers) assert.equal(await server.heartbeat(), 1500);
    servers[1]?.close();
    const dropped = await trio.where((status) => status.chunkservers.some((server) => !server.alive));
    assert.deepEqual(
      dropped.chunkservers.map((server) => server.alive),
      [true, false, true],
    );
  });

  it('keep what was acknowledged, and the session with its answers, when the leader is killed', async function () {
    this.timeout(60_000);
    const first = await trio.leader();
    const client = await connect(first.leaderAddress);
    const made = await client.mutate(makeNode('f'), 1);
    const read = await readName(client, 'f');
    await trio.kill(first.serverId);
    await client.pushes.ended;

    const second = await trio.leader();
    assert.notEqual(second.serverId, first.serverId);
    assert.ok(second.term > first.term);
    const dead = second.metaservers.find((server) => server.id === first.serverId);
    assert.deepEqual([dead?.alive, dead?.role], [false, 'unknown']);
    const again = await connect(second.leaderAddress, client.session);
    assert.deepEqual(await readName(again, 'f'), read);
    // The directory may have changed since: a repeated answer says nothing of it.
    assert.deepEqual(await again.mutate(makeNode('f'), 1), { ...made, parents: [] });
    await assert.rejects(
      again.mutate(makeNode('f'), 2),
      (error) => (error as HoldfastError).errorName === 'EEXIST',
    );

    await trio.run(first.serverId);
    const back = await trio.where(
      (status) => status.metaservers.every((server) => server.alive) && !!status.map,
    );
    assert.equal(back.clusterId, INIT.clusterId);
  });

  it('answer nothing from a leader that was stopped while another one took over', async function () {
    this.timeout(60_000);
    const first = await trio.leader();
    const paused = await connect(first.leaderAddress, 0, 'u3');
    await paused.create('h');
    trio.signal(first.serverId, 'SIGSTOP');
    const read = readName(paused, 'h');
    const second = await trio.where(
      (status) => status.serverId !== first.serverId && !!status.map,
      first.serverId,
    );
    const client = await connect(second.leaderAddress, 0, 'u4');
    await client.mutate({ $case: 'unlink', value: { parent: 1, name: Buffer.from('h'), uid: 0 } });
    trio.signal(first.serverId, 'SIGCONT');
    await assert.rejects(read, (error) => (error as HoldfastError).retriable);
    await paused.pushes.ended;
    await trio.where((status) => !!status.map && status.metaservers.every((server) => server.alive));
  });

  it('bring everything back after all of them were killed', async function () {
    this.timeout(60_000);
    const before = await trio.leader();
    const client = await connect(before.leaderAddress, 0, 'u2');
    await client.create('g');
    const read = await readName(client, 'g');
    await Promise.all([1, 2, 3].map((id) => trio.kill(id)));
    await Promise.all([1, 2, 3].map((id) => trio.run(id)));
    const after = await trio.leader();
    const again = await connect(after.leaderAddress, client.session, 'u2');
    assert.deepEqual(await readName(again, 'g'), read);
  });
});

describe('a metaserver', () => {
  let dir: string;
  const deps = { clock: systemClock, log: silentLogger, prng: systemPrng() };
  const options = (): MetaserverOptions => ({
    id: 1,
    host: '127.0.0.1',
    port: 0,
    dataDir: path.join(dir, 'm'),
    clusterId: 'c1',
    peers: [{ id: 1, address: '127.0.0.1:1' }],
    init: { ...INIT, clusterId: 'c1' },
  });

  beforeEach(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'holdfast-metaserver-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  it('refuses the data of another cluster and of another server, and starts again with its own', async () => {
    await (await runMetaserver(options(), deps)).close();
    await assert.rejects(
      runMetaserver({ ...options(), clusterId: 'c2' }, deps),
      /data of cluster c1, not of c2/,
    );
    const two = { ...options(), id: 2, peers: [{ id: 2, address: '127.0.0.1:1' }] };
    await assert.rejects(runMetaserver(two, deps), /data of metaserver 1, not of 2/);
    await (await runMetaserver(options(), deps)).close();
  });

  it('refuses a directory that holds something else, and a port or directory in use', async () => {
    await assert.rejects(runMetaserver({ ...options(), dataDir: process.cwd() }, deps), /not empty/);
    const first = await runMetaserver(options(), deps);
    const second = { ...options(), port: first.port, dataDir: path.join(dir, 'n') };
    await assert.rejects(runMetaserver(second, deps), /EADDRINUSE/);
    await assert.rejects(runMetaserver(options(), deps), /is in use by process/);
    await first.close();
  });

  it('refuses settings that cannot work', async () => {
    const init = { ...INIT, replicas: 1, minInSync: 2 };
    await assert.rejects(runMetaserver({ ...options(), init }, deps), /2 in-sync copies cannot be had of 1/);
    await assert.rejects(runMetaserver({ ...options(), id: 4 }, deps), /not among its peers/);
  });
});
