import assert from 'node:assert/strict';
import fc from 'fast-check';
import { applyMapCommand, createMap, type MapCommand } from '../../../metaserver/cluster/map-commands.js';
import { primaryOf } from '../../../metaserver/cluster/pg-change.js';
import { placePgs } from '../../../metaserver/cluster/placement.js';
import { HoldfastError } from '../../../proto/errors.js';
import {
  type ChunkServerInfo,
  type ClusterMap,
  type Pg,
  type Replica,
  ReplicaState,
} from '../../../proto/gen/cluster.js';

const { REPLICA_OUT, REPLICA_RECOVERING, REPLICA_IN_SYNC } = ReplicaState;
const PG_COUNT = 6;

const INIT = {
  clusterId: 'c',
  replicas: 3,
  minInSync: 2,
  chunkSize: 4096,
  pgCount: PG_COUNT,
  chunkservers: 3,
  rootUid: 0,
  rootGid: 0,
};

const put = (id: number, more: Partial<ChunkServerInfo> = {}): MapCommand => ({
  $case: 'putChunkServer',
  value: {
    server: { id, diskUuid: `disk-${id}`, host: 'h', port: id, alive: false, domain: '', ...more },
  },
});
const down = (server: number): MapCommand => ({ $case: 'serverDown', value: { server } });
const drop = (pg: number, epoch: number, server: number): MapCommand => ({
  $case: 'replicaDrop',
  value: { pg, epoch, server },
});
const caughtUp = (pg: number, epoch: number, server: number): MapCommand => ({
  $case: 'replicaInSync',
  value: { pg, epoch, server },
});
const create = (pgs: Pg[]): MapCommand => ({ $case: 'createPgs', value: { pgs } });

function run(map: ClusterMap, ...commands: MapCommand[]): ClusterMap {
  return commands.reduce((before, command) => applyMapCommand(before, command), map);
}

/** Three servers, PGs placed. */
function threeServers(): ClusterMap {
  const map = run(createMap(INIT), put(1), put(2), put(3));
  return run(map, create(placePgs(map.servers, PG_COUNT, 3)));
}

/** A PG as text: "epoch/interval 1I 2R 3O=whole-disk". */
function show(pg: Pg | undefined): string {
  const letters = { [REPLICA_OUT]: 'O', [REPLICA_RECOVERING]: 'R', [REPLICA_IN_SYNC]: 'I' } as Record<
    number,
    string
  >;
  const one = ({ server, state, wholeDisk }: Replica): string =>
    `${server}${letters[state]}${wholeDisk ? `=${wholeDisk}` : ''}`;
  return `${pg?.epoch}/${pg?.interval} ${pg?.replicas.map(one).join(' ')}`;
}

/** The one PG whose replicas are listed as 1 2 3, to read the transitions easily. */
function onePg(): ClusterMap {
  const replicas = [1, 2, 3].map((server) => ({ server, state: REPLICA_IN_SYNC }));
  return run(
    createMap({ ...INIT, pgCount: 1 }),
    put(1),
    put(2),
    put(3),
    create([{ id: 0, epoch: 1, interval: 1, replicas }]),
  );
}

const shows = (map: ClusterMap, ...commands: MapCommand[]): string => show(run(map, ...commands).pgs[0]);

function refused(name: string): (error: unknown) => boolean {
  return (error) => error instanceof HoldfastError && error.errorName === name;
}

describe('cluster map commands', () => {
  it('registers servers in order of their ids, alive, one version each', () => {
    const map = run(createMap(INIT), put(3), put(1));
    assert.deepEqual(
      map.servers.map(({ id, alive }) => [id, alive]),
      [
        [1, true],
        [3, true],
      ],
    );
    assert.equal(map.version, 3);
    const again = run(map, put(3));
    assert.equal(again, map);
    const moved = run(map, put(3, { port: 99 }));
    assert.deepEqual([moved.version, moved.servers[1]?.port], [4, 99]);
  });

  it('places PGs once, all in-sync, without a server that went down meanwhile', () => {
    const empty = run(createMap(INIT), put(1), put(2), put(3));
    const placement = placePgs(empty.servers, PG_COUNT, 3);
    const map = run(empty, create(placement));
    assert.equal(map.version, empty.version + 1);
    assert.deepEqual(map.pgs, placement);
    assert.equal(run(map, create(placement)), map);
    const late = run(empty, down(2), create(placement));
    for (const pg of late.pgs) {
      assert.equal(pg.replicas.find(({ server }) => server === 2)?.state, REPLICA_OUT);
      assert.notEqual(primaryOf(pg), 2);
    }
  });

  it('refuses senseless settings, placements and servers', () => {
    assert.throws(() => createMap({ ...INIT, minInSync: 4 }), refused('EINVAL'));
    assert.throws(() => createMap({ ...INIT, clusterId: '' }), refused('EINVAL'));
    assert.throws(() => createMap({ ...INIT, pgCount: 0 }), refused('EINVAL'));
    const map = run(createMap(INIT), put(1));
    const replica = { server: 1, state: REPLICA_IN_SYNC };
    const pg = { id: 0, epoch: 1, interval: 1 };
    for (const pgs of [
      [],
      [{ ...pg, replicas: [] }],
      [{ ...pg, replicas: [replica, replica] }],
      [{ ...pg, replicas: [{ server: 9, state: REPLICA_IN_SYNC }] }],
      [{ ...pg, id: 1, replicas: [replica] }],
    ]) {
      assert.throws(() => run(map, create(pgs)), refused('EINVAL'));
    }
    assert.throws(() => run(map, put(0)), refused('EINVAL'));
    assert.throws(() => run(map, down(9)), refused('ENOENT'));
  });

  it('takes a dead server out; the next in-sync replica becomes primary in a new interval', () => {
    assert.equal(shows(onePg(), down(1)), '2/2 1O 2I 3I');
    assert.equal(shows(onePg(), down(2)), '2/1 1I 2O 3I');
    assert.equal(shows(onePg(), down(1), down(2)), '3/3 1O 2O=disk-2 3I');
    const map = run(onePg(), down(1));
    assert.deepEqual(
      map.servers.map(({ alive }) => alive),
      [false, true, true],
    );
    assert.equal(run(map, down(1)), map);
  });

  it('leaves the last in-sync replica in-sync, down or not', () => {
    const alone = [down(1), down(2)];
    assert.equal(shows(onePg(), ...alone, down(3)), '3/3 1O 2O=disk-2 3I');
    assert.equal(run(onePg(), ...alone, down(3)).servers[2]?.alive, false);
    assert.equal(shows(onePg(), ...alone, drop(0, 3, 3)), '3/3 1O 2O=disk-2 3I');
    assert.equal(shows(onePg(), ...alone, down(3), put(3)), '3/3 1O 2O=disk-2 3I');
  });

  it('lets a returned server recover, and takes it back only at the present epoch', () => {
    const returned = [down(1), put(1)];
    assert.equal(shows(onePg(), ...returned), '3/2 1R 2I 3I');
    assert.equal(shows(onePg(), ...returned, caughtUp(0, 2, 1)), '3/2 1R 2I 3I');
    assert.equal(shows(onePg(), ...returned, caughtUp(0, 3, 1)), '4/4 1I 2I 3I');
    assert.equal(shows(onePg(), ...returned, caughtUp(0, 3, 1), caughtUp(0, 3, 1)), '4/4 1I 2I 3I');
    assert.equal(shows(onePg(), down(1), caughtUp(0, 2, 1)), '2/2 1O 2I 3I');
    assert.equal(shows(onePg(), ...returned, down(1)), '4/2 1O 2I 3I');
  });

  it('makes a server with another disk recover, whether its death was noticed or not', () => {
    const wiped = put(1, { diskUuid: 'new' });
    assert.equal(shows(onePg(), wiped), '2/2 1R 2I 3I');
    assert.equal(shows(onePg(), down(1), wiped), '3/2 1R 2I 3I');
    assert.equal(shows(onePg(), down(1), wiped, put(1, { diskUuid: 'newer' })), '3/2 1R 2I 3I');
  });

  it('remembers the disks that hold everything, until a write may be acknowledged without them', () => {
    assert.equal(shows(onePg(), down(2)), '2/1 1I 2O 3I');
    assert.equal(shows(onePg(), down(2), down(3)), '3/1 1I 2O 3O=disk-3');
    const alone = [down(2), down(3), put(3), put(2)];
    assert.equal(shows(onePg(), ...alone), '5/1 1I 2R 3R=disk-3');
    assert.equal(shows(onePg(), ...alone, caughtUp(0, 5, 2)), '6/1 1I 2I 3R');
  });

  it('lets the disk that was in-sync before take over when the last in-sync one is replaced by an empty one', () => {
    const wiped = put(1, { diskUuid: 'new' });
    const alone = [down(2), down(3)];
    assert.equal(shows(onePg(), ...alone, put(3), put(2), wiped), '6/6 1R=disk-1 2R 3I');
    assert.equal(shows(onePg(), ...alone, put(2), wiped), '5/5 1R=disk-1 2R 3O=disk-3');
    assert.equal(shows(onePg(), ...alone, put(2), wiped, put(3)), '6/6 1R=disk-1 2R 3I');
    assert.equal(shows(onePg(), ...alone, put(2), wiped, put(3), caughtUp(0, 6, 2)), '7/7 1R 2I 3I');
  });

  it('leaves a PG without a primary when nobody has all of it, until that disk comes back', () => {
    const gone = [down(2), down(3), put(3, { diskUuid: 'x' }), down(1), put(1, { diskUuid: 'y' }), put(2)];
    const map = run(onePg(), ...gone);
    assert.equal(show(map.pgs[0]), '6/5 1R=disk-1 2R 3R=disk-3');
    assert.equal(primaryOf(map.pgs[0] as Pg), undefined);
    assert.equal(shows(map, caughtUp(0, 5, 2)), show(map.pgs[0]));
    assert.equal(shows(map, down(3), put(3)), '8/8 1R=disk-1 2R 3I');
    assert.equal(shows(map, put(1)), '7/7 1I 2R 3R=disk-3');
  });

  it('takes an empty disk for whole while nothing is stored in the cluster', () => {
    const map = run(onePg(), down(2), down(3));
    const wiped = put(1, { diskUuid: 'new' });
    assert.equal(show(applyMapCommand(map, wiped, { nothingStored: true }).pgs[0]), '4/4 1I 2O 3O=disk-3');
    assert.equal(
      show(applyMapCommand(map, wiped, { nothingStored: false }).pgs[0]),
      '4/4 1R=disk-1 2O 3O=disk-3',
    );
  });

  it('drops a replica of the named epoch: to recover if its server is alive, else out', () => {
    assert.equal(shows(onePg(), drop(0, 1, 1)), '2/2 1R 2I 3I');
    assert.equal(shows(onePg(), drop(0, 1, 1), drop(0, 1, 1)), '2/2 1R 2I 3I');
    assert.equal(shows(onePg(), drop(0, 2, 1)), '1/1 1I 2I 3I');
    assert.equal(shows(onePg(), drop(0, 1, 1), drop(0, 2, 1)), '3/2 1O 2I 3I');
    assert.equal(shows(onePg(), drop(7, 1, 1)), '1/1 1I 2I 3I');
    assert.equal(shows(onePg(), drop(0, 1, 9)), '1/1 1I 2I 3I');
  });

  it('changes nothing but the PG concerned', () => {
    const before = threeServers();
    const after = run(before, drop(2, 1, 1));
    assert.equal(after.version, before.version + 1);
    for (const pg of after.pgs) assert.equal(pg === before.pgs[pg.id], pg.id !== 2);
  });

  it('spreads primaries as placed once everybody is back', () => {
    const before = threeServers();
    let map = run(before, down(1), put(1), down(3), put(3), down(2), put(2));
    for (let round = 0; round < 3; round++) {
      for (const { id } of map.pgs) {
        for (const server of [1, 2, 3]) map = run(map, caughtUp(id, map.pgs[id]?.epoch ?? 0, server));
      }
    }
    assert.deepEqual(map.pgs.map(primaryOf), before.pgs.map(primaryOf));
  });
});

describe('cluster map invariants', () => {
  const server = fc.integer({ min: 1, max: 4 });
  const pg = fc.nat(PG_COUNT);
  const step = fc.oneof(
    fc.record({ kind: fc.constant('down' as const), server }),
    fc.record({
      kind: fc.constant('put' as const),
      server,
      disk: fc.constantFrom('same', 'same', 'same', 'x', 'y'),
    }),
    fc.record({ kind: fc.constantFrom('drop' as const), server, pg, age: fc.constantFrom(0, 0, 0, 1) }),
    fc.record({ kind: fc.constantFrom('caughtUp' as const), server, pg, age: fc.constantFrom(0, 0, 0, 1) }),
  );

  it('hold for all sequences of commands', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 80 }), (steps) => {
        let map = run(threeServers(), put(4));
        for (const s of steps) {
          const epoch = 'pg' in s ? (map.pgs[s.pg]?.epoch ?? 0) - s.age : 0;
          const command =
            s.kind === 'down'
              ? down(s.server)
              : s.kind === 'put'
                ? put(s.server, s.disk === 'same' ? {} : { diskUuid: s.disk })
                : s.kind === 'drop'
                  ? drop(s.pg, epoch, s.server)
                  : caughtUp(s.pg, epoch, s.server);
          const after = applyMapCommand(map, command);
          checkStep(map, after, command);
          map = after;
        }
      }),
      { numRuns: 300, seed: 2 },
    );
  });
});

function checkStep(before: ClusterMap, after: ClusterMap, command: MapCommand): void {
  const changed = JSON.stringify(before) !== JSON.stringify(after);
  assert.equal(after.version - before.version, changed ? 1 : 0);
  assert.equal(after === before, !changed);
  if (command.$case !== 'putChunkServer')
    assert.equal(applyMapCommand(after, command), after, 'a repeat changes nothing');
  const disks = new Map(after.servers.map((info) => [info.id, info.diskUuid]));
  for (const pg of after.pgs) {
    const old = before.pgs[pg.id] as Pg;
    assert.deepEqual(
      pg.replicas.map((r) => r.server),
      old.replicas.map((r) => r.server),
    );
    if (primaryOf(pg) === undefined)
      assert.ok(
        pg.replicas.some(({ wholeDisk }) => wholeDisk),
        'the disk that is missed is known',
      );
    const same = JSON.stringify(pg.replicas) === JSON.stringify(old.replicas);
    assert.equal(pg.epoch - old.epoch, same ? 0 : 1);
    assert.equal(pg.interval, primaryOf(pg) === primaryOf(old) ? old.interval : pg.epoch);
    for (const [index, replica] of pg.replicas.entries()) {
      if (replica.state !== REPLICA_IN_SYNC || old.replicas[index]?.state === REPLICA_IN_SYNC) continue;
      if (command.$case === 'replicaInSync')
        assert.deepEqual(command.value, { pg: pg.id, epoch: old.epoch, server: replica.server });
      else assert.equal(old.replicas[index]?.wholeDisk, disks.get(replica.server));
    }
  }
}

describe('the lineage of a PG', () => {
  const boot = (id: number, name: string): MapCommand => put(id, { boot: `${id}-${name}` });
  const booted = (...commands: MapCommand[]): Pg =>
    run(onePg(), boot(1, 'a'), boot(2, 'a'), boot(3, 'a'), ...commands).pgs[0] as Pg;
  const began = ({ lineage, formerLineage }: Pg): unknown[] => [lineage, formerLineage];
  const first = booted();

  it('begins anew when the last of the in-sync replicas was started again', () => {
    assert.equal(first.lineage, first.epoch);
    const two = booted(boot(1, 'b'), boot(3, 'b'));
    assert.deepEqual(began(two), began(first));
    assert.deepEqual(
      two.replicas.map(({ restarted }) => restarted ?? false),
      [true, false, true],
    );
    const three = booted(boot(1, 'b'), boot(3, 'b'), boot(2, 'b'));
    assert.deepEqual(began(three), [three.epoch, first.lineage]);
    assert.ok(three.replicas.every((replica) => !('restarted' in replica)));
  });

  it('begins anew when the only in-sync replica that was not started again is dropped', () => {
    const pg = booted(boot(1, 'b'), boot(3, 'b'), down(2));
    assert.equal(pg.lineage, pg.epoch);
  });

  it('begins anew when the only in-sync replica is started again', () => {
    const pg = booted(down(2), down(3), down(1), boot(1, 'b'));
    assert.match(show(pg), / 1I 2O 3O/);
    assert.equal(pg.lineage, pg.epoch);
  });

  it('goes on while one replica after the other is started again and catches up', () => {
    let map = run(onePg(), boot(1, 'a'), boot(2, 'a'), boot(3, 'a'));
    for (const id of [1, 2, 3, 1]) {
      map = run(map, down(id), boot(id, `later-${map.version}`));
      map = run(map, caughtUp(0, map.pgs[0]?.epoch ?? 0, id));
    }
    assert.deepEqual(began(map.pgs[0] as Pg), began(first));
  });

  it('goes on when a server registers again without having been started again', () => {
    assert.deepEqual(began(booted(boot(1, 'a'), boot(2, 'a'), boot(3, 'a'))), began(first));
  });
});

/**
 * A file system of one write after the other, each on all in-sync disks when at least two are: whoever is in-sync by the
 * map, on whichever disk, must hold all of them.
 */
describe('in-sync replicas', () => {
  const server = fc.integer({ min: 1, max: 3 });
  const step = fc.oneof(
    fc.record({ kind: fc.constant('down' as const), server }),
    fc.record({ kind: fc.constant('put' as const), server, disk: fc.constantFrom('a', 'a', 'b') }),
    fc.record({ kind: fc.constantFrom('drop' as const, 'caughtUp' as const, 'caughtUp' as const), server }),
    fc.record({ kind: fc.constant('write' as const), server }),
  );

  it('hold every acknowledged write, whatever disks come and go', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 60 }), (steps) => {
        let map = onePg();
        let acknowledged = 0;
        const held = new Map<string, number>();
        const disk = (id: number): string => map.servers[id - 1]?.diskUuid ?? '';
        const inSync = (): number[] =>
          (map.pgs[0] as Pg).replicas.filter((r) => r.state === REPLICA_IN_SYNC).map((r) => r.server);
        for (const s of steps) {
          const epoch = map.pgs[0]?.epoch ?? 0;
          if (s.kind === 'down') map = run(map, down(s.server));
          else if (s.kind === 'drop') map = run(map, drop(0, epoch, s.server));
          else if (s.kind === 'put')
            map = run(map, put(s.server, s.disk === 'a' ? {} : { diskUuid: `b-${s.server}` }));
          else if (s.kind === 'write') {
            if (inSync().length < 2) continue;
            acknowledged++;
            for (const id of inSync()) held.set(disk(id), acknowledged);
          } else {
            // A primary that is alive vouches for a copy that was made equal to its own.
            const primary = map.servers.find(({ id }) => id === primaryOf(map.pgs[0] as Pg));
            if (!primary?.alive || !map.servers[s.server - 1]?.alive) continue;
            held.set(disk(s.server), held.get(primary.diskUuid) ?? 0);
            map = run(map, caughtUp(0, epoch, s.server));
          }
          for (const id of inSync()) assert.equal(held.get(disk(id)) ?? 0, acknowledged);
        }
      }),
      { numRuns: 1000, seed: 3 },
    );
  });
});
