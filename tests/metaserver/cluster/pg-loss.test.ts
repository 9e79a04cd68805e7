import assert from 'node:assert/strict';
import { lossOf } from '../../../cli/pg.js';
import { applyMapCommand } from '../../../metaserver/cluster/map-commands.js';
import { primaryOf } from '../../../metaserver/cluster/pg-change.js';
import { chooseSurvivors, missedDisks, survivorsOf } from '../../../metaserver/cluster/pg-loss.js';
import { HoldfastError } from '../../../proto/errors.js';
import { type ClusterMap, type Pg, type Replica, ReplicaState } from '../../../proto/gen/cluster.js';
import type { PgChoice } from '../../../proto/gen/meta.js';

const { REPLICA_OUT, REPLICA_RECOVERING, REPLICA_IN_SYNC } = ReplicaState;

/** One PG; servers with these disks are alive, `down` ones are not. */
function cluster(replicas: Replica[], down: number[] = [], more: Partial<Pg> = {}): ClusterMap {
  const servers = [1, 2, 3].map((id) => ({
    ...{ id, diskUuid: `disk-${id}`, host: 'h', port: id, domain: '' },
    alive: !down.includes(id),
  }));
  const pg = { id: 0, epoch: 7, interval: 5, replicas, ...more };
  return { version: 20, clusterId: 'c', replicas: 3, minInSync: 2, chunkSize: 4096, servers, pgs: [pg] };
}

const replica = (server: number, state: ReplicaState, wholeDisk?: string): Replica => ({
  ...{ server, state },
  ...(wholeDisk && { wholeDisk }),
});
/** 2 and 3 came back empty, 1 was dropped before. */
const LOST = cluster([
  replica(1, REPLICA_RECOVERING),
  replica(2, REPLICA_RECOVERING, 'old-2'),
  replica(3, REPLICA_RECOVERING, 'old-3'),
]);
const accept = (map: ClusterMap, ...choices: PgChoice[]): ClusterMap =>
  applyMapCommand(map, { $case: 'acceptLoss', value: { choices } });
const only = (map: ClusterMap): Pg => map.pgs[0] as Pg;
const servers = (map: ClusterMap) => new Map(map.servers.map((one) => [one.id, one]));

function refused(name: string, text: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof HoldfastError && error.errorName === name && text.test(error.message);
}

describe('the accepted loss of a PG', () => {
  it('makes the best surviving replica primary, in a new interval and a new lineage, and forgets what was missed', () => {
    const choices = chooseSurvivors(LOST, [0, 0], undefined);
    assert.deepEqual(choices, [{ pg: 0, epoch: 7, server: 1 }]);
    const after = accept(LOST, ...choices);
    assert.equal(after.version, 21);
    assert.deepEqual(only(after), {
      ...{ id: 0, epoch: 8, interval: 8, lineage: 8, formerLineage: 0 },
      replicas: [replica(1, REPLICA_IN_SYNC), replica(2, REPLICA_RECOVERING), replica(3, REPLICA_RECOVERING)],
    });
  });

  it('does not let a disk that was given up take over when it returns', () => {
    const after = accept(LOST, { pg: 0, epoch: 7, server: 1 });
    const server = { id: 3, diskUuid: 'old-3', host: 'h', port: 3, alive: true, domain: '' };
    const back = applyMapCommand(after, { $case: 'putChunkServer', value: { server } });
    assert.equal(primaryOf(only(back)), 1);
    assert.deepEqual(only(back).replicas[2], replica(3, REPLICA_RECOVERING));
  });

  it('prefers a disk that holds everything to an outdated one, and that to an empty one', () => {
    const map = cluster([
      replica(1, REPLICA_RECOVERING, 'old-1'),
      replica(2, REPLICA_RECOVERING),
      replica(3, REPLICA_IN_SYNC),
    ]);
    const order = (down: number[]) => {
      const now = cluster(only(map).replicas, down);
      return survivorsOf(only(now), servers(now));
    };
    assert.deepEqual(order([3]), [
      { server: 2, holds: 'stale' },
      { server: 1, holds: 'empty' },
    ]);
    const remembered = cluster(
      [replica(1, REPLICA_RECOVERING), replica(2, REPLICA_OUT, 'disk-2'), replica(3, REPLICA_IN_SYNC)],
      [3],
    );
    assert.deepEqual(chooseSurvivors(remembered, [0], undefined), [{ pg: 0, epoch: 7, server: 2 }]);
    assert.throws(
      () => chooseSurvivors(remembered, [0], 1),
      refused('EINVAL', /chunkserver-2 holds everything/),
    );
  });

  it('gives up a server that was the last in-sync one and is gone', () => {
    const map = cluster(
      [replica(1, REPLICA_IN_SYNC), replica(2, REPLICA_RECOVERING), replica(3, REPLICA_OUT)],
      [1, 3],
    );
    assert.deepEqual(missedDisks(only(map), servers(map)), [{ server: 1, disk: 'disk-1' }]);
    const after = only(accept(map, ...chooseSurvivors(map, [0], undefined)));
    assert.deepEqual(after.replicas, [
      replica(1, REPLICA_OUT),
      replica(2, REPLICA_IN_SYNC),
      replica(3, REPLICA_OUT),
    ]);
    assert.deepEqual([after.interval, after.lineage], [8, 8]);
  });

  it('is refused for a PG that is served, changed, unknown, or has nobody left, and then nothing changes', () => {
    const served = cluster([replica(1, REPLICA_IN_SYNC), replica(2, REPLICA_OUT), replica(3, REPLICA_OUT)]);
    assert.throws(() => chooseSurvivors(served, [0], 2), refused('EINVAL', /PG 0 is served/));
    assert.throws(() => accept(served, { pg: 0, epoch: 7, server: 2 }), refused('EINVAL', /is served/));
    assert.throws(() => accept(LOST, { pg: 0, epoch: 6, server: 1 }), refused('EAGAIN', /changed meanwhile/));
    assert.throws(() => chooseSurvivors(LOST, [0, 1], undefined), refused('ENOENT', /no PG 1/));
    assert.throws(() => chooseSurvivors(LOST, [0], 9), refused('ENOENT', /no living replica/));
    const alone = cluster(only(LOST).replicas, [1, 2, 3]);
    assert.throws(
      () => chooseSurvivors(alone, [0], undefined),
      refused('EINVAL', /no replica of PG 0 is alive/),
    );
    assert.throws(() => accept(LOST), refused('EINVAL', /0 PGs/));
  });

  it('is told in words before it is done', () => {
    assert.match(
      lossOf(LOST, 0, undefined).text,
      /^PG 0: chunkserver-1 takes over with what it had .* disk old-2 of chunkserver-2 and disk old-3 of chunkserver-3 is given up/,
    );
    assert.match(lossOf(LOST, 0, 2).text, /empty disk: everything in the PG is lost/);
    assert.throws(() => lossOf(LOST, 4, undefined), /there is no PG 4/);
  });
});
