import assert from 'node:assert/strict';
import fc from 'fast-check';
import { applyMapCommand, createMap, type MapCommand } from '../../../metaserver/cluster/map-commands.js';
import { primaryOf } from '../../../metaserver/cluster/pg-change.js';
import { placePgs } from '../../../metaserver/cluster/placement.js';
import {
  COMING_PATIENCE_MS,
  LEAVING_PATIENCE_MS,
  MOVES_MAX,
  Rebalancer,
} from '../../../metaserver/cluster/rebalance.js';
import type { HoldfastError } from '../../../proto/errors.js';
import { type ClusterMap, type Pg, ReplicaState } from '../../../proto/gen/cluster.js';

const { REPLICA_IN_SYNC: IN_SYNC, REPLICA_RECOVERING: RECOVERING } = ReplicaState;

const put = (id: number, domain = ''): MapCommand => ({
  $case: 'putChunkServer',
  value: { server: { id, diskUuid: `d${id}`, host: 'h', port: id, alive: true, domain } },
});
const down = (server: number): MapCommand => ({ $case: 'serverDown', value: { server } });
const drain = (server: number, draining = true): MapCommand => ({
  $case: 'drainChunkServer',
  value: { server, draining },
});
const remove = (server: number): MapCommand => ({ $case: 'removeChunkServer', value: { server } });

/** A cluster under a leader that moves PGs; copies are made as soon as they are asked for. */
class Cluster {
  map: ClusterMap;
  now = 0;
  /** Versions by which servers act; missing: the newest. */
  readonly acts = new Map<number, number>();
  readonly rebalancer = new Rebalancer();
  added = 0;

  constructor(domains: string[], pgCount: number, replicas: number, minInSync = Math.min(2, replicas)) {
    const init = { clusterId: 'c', replicas, minInSync, chunkSize: 4096, pgCount, chunkservers: 1 };
    this.map = createMap({ ...init, rootUid: 0, rootGid: 0 });
    for (const [i, domain] of domains.entries()) this.run(put(i + 1, domain));
    this.run({ $case: 'createPgs', value: { pgs: placePgs(this.map.servers, pgCount, replicas) } });
  }

  run(...commands: MapCommand[]): void {
    for (const command of commands) this.map = applyMapCommand(this.map, command);
  }

  /** What the leader does now. @returns how many commands */
  step(ms = 500): number {
    this.now += ms;
    const actsBy = (server: number): number => this.acts.get(server) ?? this.map.version;
    const commands = this.rebalancer.next(this.map, actsBy, this.now);
    for (const command of commands) {
      const before = this.map;
      this.run(command);
      assert.notEqual(this.map, before, 'no command is in vain');
      if (command.$case === 'replicaAdd') this.added++;
    }
    return commands.length;
  }

  catchUp(): void {
    for (const pg of this.map.pgs) {
      const alive = (id: number) => this.map.servers.some((info) => info.id === id && info.alive);
      const primary = primaryOf(pg);
      if (primary === undefined || !alive(primary)) continue;
      for (const { server, state } of pg.replicas) {
        if (state !== RECOVERING || !alive(server)) continue;
        const { epoch } = this.map.pgs[pg.id] as Pg;
        this.run({ $case: 'replicaInSync', value: { pg: pg.id, epoch, server } });
      }
    }
  }

  /** Until nothing is left to do. */
  settle(): void {
    for (let round = 0; round < 1000; round++) {
      const did = this.step();
      this.catchUp();
      this.check();
      if (did === 0) return;
    }
    assert.fail('it never ends');
  }

  check(): void {
    for (const { replicas } of this.map.pgs) {
      const servers = replicas.map(({ server }) => server);
      assert.equal(new Set(servers).size, servers.length, 'one replica of a PG on a server');
      assert.ok(replicas.filter(({ leaving }) => leaving).length <= 1);
    }
  }

  held(): number[] {
    return this.map.servers.map(({ id }) =>
      this.count((pg) => pg.replicas.some(({ server }) => server === id)),
    );
  }

  leads(): number[] {
    return this.map.servers.map(({ id }) => this.count((pg) => primaryOf(pg) === id));
  }

  count(test: (pg: Pg) => boolean): number {
    return this.map.pgs.filter(test).length;
  }
}

const spread = (counts: number[]): number => Math.max(...counts) - Math.min(...counts);

describe('moving PGs between servers', () => {
  it('leaves an even cluster alone, with servers that are down too', () => {
    const cluster = new Cluster(['', '', ''], 48, 3);
    cluster.settle();
    cluster.run(down(2));
    cluster.settle();
    assert.equal(cluster.added, 0);
  });

  it('gives a new server its share, and moves nothing else', () => {
    const cluster = new Cluster(['', '', ''], 48, 3);
    cluster.run(put(4));
    cluster.settle();
    assert.deepEqual(cluster.held(), [36, 36, 36, 36]);
    assert.deepEqual(cluster.leads(), [12, 12, 12, 12]);
    assert.equal(cluster.added, 36);
  });

  it('moves a few PGs at one time', () => {
    const cluster = new Cluster(['', '', ''], 48, 3);
    cluster.run(put(4));
    assert.equal(cluster.step(), MOVES_MAX);
    assert.equal(cluster.step(), 0);
    cluster.catchUp();
    assert.equal(cluster.step(), MOVES_MAX, 'the leaving ones go');
    assert.equal(cluster.step(), MOVES_MAX);
  });

  it('takes everything off a server that drains, which may be removed then', () => {
    const cluster = new Cluster(['', '', '', ''], 48, 3);
    assert.throws(() => cluster.run(remove(2)), /holds 36 PGs: drain it first/);
    cluster.run(drain(2));
    for (let round = 0; cluster.step() > 0 && round < 100; round++) {
      cluster.catchUp();
      for (const pg of cluster.map.pgs)
        assert.ok(pg.replicas.filter(({ state }) => state === IN_SYNC).length >= 3, 'never fewer copies');
    }
    assert.deepEqual(cluster.held(), [48, 0, 48, 48]);
    assert.deepEqual(cluster.leads(), [16, 0, 16, 16]);
    cluster.run(remove(2));
    assert.deepEqual(
      cluster.map.servers.map(({ id }) => id),
      [1, 3, 4],
    );
    assert.throws(
      () => cluster.run(put(2)),
      (error: HoldfastError) => /disk d2 was removed/.test(error.message),
    );
  });

  it('takes everything off a dead server that drains', () => {
    const cluster = new Cluster(['', '', '', ''], 24, 3);
    cluster.run(down(2), drain(2));
    cluster.settle();
    assert.deepEqual(cluster.held(), [24, 0, 24, 24]);
    assert.equal(
      cluster.count((pg) => pg.replicas.every(({ state }) => state === IN_SYNC)),
      24,
    );
  });

  it('leaves PGs on a draining server while there is no other one for them', () => {
    const cluster = new Cluster(['', '', ''], 24, 3);
    cluster.run(drain(2));
    cluster.settle();
    assert.deepEqual(cluster.held(), [24, 24, 24]);
    cluster.run(put(4));
    cluster.settle();
    assert.deepEqual(cluster.held(), [24, 0, 24, 24]);
  });

  it('completes PGs that have too few copies once there are servers for them', () => {
    const cluster = new Cluster(['', ''], 24, 3);
    cluster.run(put(3));
    cluster.settle();
    assert.deepEqual(cluster.held(), [24, 24, 24]);
  });

  it('removes no replica before its server knows that it does not lead the PG any more', () => {
    const cluster = new Cluster(['', '', ''], 3, 3);
    const led = cluster.map.pgs.find((pg) => primaryOf(pg) === 2) as Pg;
    cluster.run(put(4), drain(2));
    cluster.acts.set(2, cluster.map.version);
    cluster.step();
    cluster.catchUp();
    cluster.step();
    const pg = (): Pg => cluster.map.pgs[led.id] as Pg;
    assert.equal(primaryOf(pg()), 4, 'the coming one leads in its place');
    assert.ok(pg().replicas.some(({ server }) => server === 2));
    cluster.acts.delete(2);
    cluster.step();
    assert.deepEqual(
      pg()
        .replicas.map(({ server }) => server)
        .sort(),
      [1, 3, 4],
    );
  });

  it('gives up a coming replica whose server stays down, and keeps the leaving one meanwhile', () => {
    const cluster = new Cluster(['', '', ''], 6, 3);
    cluster.run(put(4), drain(1));
    cluster.step();
    cluster.run(down(4));
    cluster.step();
    cluster.step(COMING_PATIENCE_MS - 1000);
    assert.equal(cluster.held()[3], 6);
    cluster.step(1500);
    assert.deepEqual(cluster.held(), [6, 6, 6, 0]);
    assert.equal(
      cluster.count((pg) => pg.replicas.some(({ leaving }) => leaving)),
      0,
    );
  });

  it('keeps a leaving replica that is in-sync for a while when another one of the PG is down', () => {
    const cluster = new Cluster(['', '', ''], 6, 3);
    cluster.run(put(4), drain(1));
    cluster.step();
    cluster.catchUp();
    cluster.run(down(2));
    cluster.step();
    assert.equal(cluster.held()[0], 6);
    cluster.step(LEAVING_PATIENCE_MS);
    assert.equal(cluster.held()[0], 0);
  });

  it('keeps copies in different domains, as far as there are enough of them', () => {
    const cluster = new Cluster(['a', 'b', 'c'], 30, 3);
    cluster.run(put(4, 'a'), put(5, 'b'));
    cluster.settle();
    const domain = new Map(cluster.map.servers.map((info) => [info.id, info.domain]));
    for (const { replicas } of cluster.map.pgs)
      assert.equal(new Set(replicas.map(({ server }) => domain.get(server))).size, 3);
    assert.deepEqual(cluster.held(), [15, 15, 30, 15, 15]);
  });

  it('ends evenly and with full copies whatever servers come, drain, die and return meanwhile', () => {
    const server = fc.integer({ min: 1, max: 7 });
    const event = fc.record({
      kind: fc.constantFrom('put', 'down', 'drain', 'keep', 'nothing', 'nothing'),
      server,
      caught: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.integer({ min: 3, max: 5 }), fc.array(event, { maxLength: 40 }), (count, events) => {
        const cluster = new Cluster(Array(count).fill(''), 20, 3);
        const known = (id: number) => cluster.map.servers.some((info) => info.id === id);
        for (const { kind, server: id, caught } of events) {
          if (kind === 'put') cluster.run(put(id));
          else if (kind !== 'nothing' && known(id))
            cluster.run(kind === 'down' ? down(id) : drain(id, kind === 'drain'));
          cluster.step(kind === 'nothing' ? COMING_PATIENCE_MS : 500);
          if (caught) cluster.catchUp();
          cluster.check();
          for (const pg of cluster.map.pgs) assert.ok(primaryOf(pg) !== undefined);
        }
        for (const { id } of cluster.map.servers) cluster.run(put(id), drain(id, false));
        cluster.catchUp();
        cluster.settle();
        assert.ok(spread(cluster.held()) <= 1, cluster.held().join());
        assert.ok(spread(cluster.leads()) <= 1, cluster.leads().join());
        for (const { replicas } of cluster.map.pgs) assert.equal(replicas.length, 3);
      }),
      { numRuns: 60, seed: 5 },
    );
  });
});
