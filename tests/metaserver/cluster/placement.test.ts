import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type PlacementServer, placePgs } from '../../../metaserver/cluster/placement.js';
import { type Pg, ReplicaState } from '../../../proto/gen/cluster.js';

function spread(counts: number[]): number {
  return Math.max(...counts) - Math.min(...counts);
}

function replicaCounts(servers: PlacementServer[], pgs: Pg[]): number[] {
  return servers.map(
    ({ id }) => pgs.filter((pg) => pg.replicas.some((replica) => replica.server === id)).length,
  );
}

function primaryCounts(servers: PlacementServer[], pgs: Pg[]): number[] {
  return servers.map(({ id }) => pgs.filter((pg) => pg.replicas[0]?.server === id).length);
}

/** Servers with distinct, unordered ids, each in a domain of its own. */
const lonely = fc
  .uniqueArray(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 12 })
  .map((ids) => ids.map((id): PlacementServer => ({ id, domain: '' })));

/** Domains of one size. */
const evenDomains = fc
  .record({ domains: fc.integer({ min: 1, max: 6 }), size: fc.integer({ min: 1, max: 4 }) })
  .map(({ domains, size }) =>
    Array.from(
      { length: domains * size },
      (_, i): PlacementServer => ({
        id: i + 1,
        domain: `rack-${i % domains}`,
      }),
    ),
  );

const anyDomains = fc
  .array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 12 })
  .map((racks) => racks.map((rack, i): PlacementServer => ({ id: i + 1, domain: `rack-${rack}` })));

const pgCount = fc.integer({ min: 1, max: 100 });
const copies = fc.integer({ min: 1, max: 5 });

describe('placement of PGs', () => {
  it('makes dense PGs whose replicas are in-sync and lie on distinct servers', () => {
    fc.assert(
      fc.property(fc.oneof(lonely, anyDomains), pgCount, copies, (servers, count, replicas) => {
        const pgs = placePgs(servers, count, replicas);
        assert.deepEqual(
          pgs.map((pg) => pg.id),
          Array.from({ length: count }, (_, i) => i),
        );
        for (const pg of pgs) {
          const members = pg.replicas.map((replica) => replica.server);
          assert.equal(members.length, Math.min(replicas, servers.length));
          assert.equal(new Set(members).size, members.length);
          assert.ok(members.every((id) => servers.some((server) => server.id === id)));
          assert.ok(pg.replicas.every((replica) => replica.state === ReplicaState.REPLICA_IN_SYNC));
          assert.deepEqual([pg.epoch, pg.interval], [1, 1]);
        }
      }),
    );
  });

  it('uses as many failure domains for each PG as there are', () => {
    fc.assert(
      fc.property(anyDomains, pgCount, copies, (servers, count, replicas) => {
        const domainOf = new Map(servers.map((server) => [server.id, server.domain]));
        const expected = Math.min(replicas, new Set(domainOf.values()).size);
        for (const pg of placePgs(servers, count, replicas)) {
          assert.equal(new Set(pg.replicas.map((replica) => domainOf.get(replica.server))).size, expected);
        }
      }),
    );
  });

  it('keeps replicas and primaries within one of each other on equal domains', () => {
    fc.assert(
      fc.property(fc.oneof(lonely, evenDomains), pgCount, copies, (servers, count, replicas) => {
        const pgs = placePgs(servers, count, replicas);
        assert.ok(spread(replicaCounts(servers, pgs)) <= 1, 'replicas');
        assert.ok(spread(primaryCounts(servers, pgs)) <= 1, 'primaries');
      }),
    );
  });

  it('lets every other server share PGs with each one, where there are enough PGs', () => {
    const servers = Array.from({ length: 6 }, (_, i) => ({ id: i + 1, domain: '' }));
    const pgs = placePgs(servers, 60, 3);
    for (const a of servers) {
      const shared = servers
        .filter((b) => b !== a)
        .map(
          (b) =>
            pgs.filter((pg) => [a.id, b.id].every((id) => pg.replicas.some((r) => r.server === id))).length,
        );
      assert.ok(spread(shared) <= 4, `server ${a.id} shares ${shared}`);
    }
  });

  it('depends on the set of servers alone, not on their order', () => {
    fc.assert(
      fc.property(anyDomains, pgCount, copies, (servers, count, replicas) => {
        assert.deepEqual(
          placePgs([...servers].reverse(), count, replicas),
          placePgs(servers, count, replicas),
        );
      }),
    );
  });

  it('places the usual small cluster in rotation', () => {
    const servers = [1, 2, 3].map((id) => ({ id, domain: '' }));
    const pgs = placePgs(servers, 48, 3);
    assert.deepEqual(primaryCounts(servers, pgs), [16, 16, 16]);
    assert.deepEqual(replicaCounts(servers, pgs), [48, 48, 48]);
  });

  it('refuses input that it cannot place', () => {
    assert.throws(() => placePgs([], 4, 3), /needs a server/);
    assert.throws(() => placePgs([{ id: 1, domain: '' }], 0, 3), /needs PGs/);
    assert.throws(
      () =>
        placePgs(
          [
            { id: 1, domain: 'a' },
            { id: 1, domain: 'b' },
          ],
          4,
          3,
        ),
      /distinct/,
    );
  });
});
