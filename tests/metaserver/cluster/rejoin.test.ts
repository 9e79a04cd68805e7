import assert from 'node:assert/strict';
import { ChunkServerRegistry } from '../../../metaserver/cluster/chunk-server-registry.js';
import {
  REJOIN_CALM_MS,
  REJOIN_DELAY_MAX_MS,
  REJOIN_DELAY_MS,
  Rejoin,
} from '../../../metaserver/cluster/rejoin.js';
import { ClusterMap, type Pg, ReplicaState } from '../../../proto/gen/cluster.js';

const { REPLICA_OUT, REPLICA_RECOVERING, REPLICA_IN_SYNC } = ReplicaState;

function mapOf(pgs: [number, ReplicaState][][], dead: number[] = []): ClusterMap {
  const ids = [...new Set(pgs.flat().map(([server]) => server))].sort();
  return ClusterMap.create({
    replicas: 2,
    servers: ids.map((id) => ({
      id,
      diskUuid: `d${id}`,
      host: 'h',
      port: id,
      alive: !dead.includes(id),
      domain: '',
    })),
    pgs: pgs.map(
      (replicas, id): Pg => ({
        id,
        epoch: 1,
        interval: 1,
        replicas: replicas.map(([server, state]) => ({ server, state })),
      }),
    ),
  });
}

const healthy = mapOf([
  [
    [1, REPLICA_IN_SYNC],
    [2, REPLICA_RECOVERING],
  ],
]);
const outcast = mapOf([
  [
    [1, REPLICA_IN_SYNC],
    [2, REPLICA_OUT],
  ],
]);

describe('rejoin of connected chunkservers', () => {
  it('leaves those alone that receive writes', () => {
    const rejoin = new Rejoin();
    for (let now = 0; now < 100_000; now += 1000) assert.deepEqual(rejoin.due(healthy, [1, 2], now), []);
  });

  it('takes one back after a delay, and later each time that it is dropped again', () => {
    const rejoin = new Rejoin();
    const times: number[] = [];
    for (let now = 0; now < 200_000; now += 100)
      if (rejoin.due(outcast, [1, 2], now).length > 0) times.push(now);
    const gaps = times.map((time, i) => time - (times[i - 1] ?? 0));
    assert.deepEqual(times[0], REJOIN_DELAY_MS);
    assert.ok(
      gaps.every((gap, i) => i === 0 || gap >= (gaps[i - 1] as number) || gap >= REJOIN_DELAY_MAX_MS),
    );
    assert.ok(gaps.every((gap) => gap <= REJOIN_DELAY_MAX_MS + 100));
  });

  it('counts a server as out that the map calls down, and none that is not connected', () => {
    const rejoin = new Rejoin();
    const down = mapOf(
      [
        [
          [1, REPLICA_IN_SYNC],
          [2, REPLICA_IN_SYNC],
        ],
      ],
      [2],
    );
    rejoin.due(down, [1, 2], 0);
    assert.deepEqual(rejoin.due(down, [1], REJOIN_DELAY_MS), []);
    assert.deepEqual(rejoin.due(down, [1, 2], REJOIN_DELAY_MS), [2]);
  });

  it('starts at the shortest delay again after a calm time, and after a registration', () => {
    for (const calm of [
      (rejoin: Rejoin) => rejoin.due(healthy, [2], REJOIN_DELAY_MS + REJOIN_CALM_MS),
      undefined,
    ]) {
      const rejoin = new Rejoin();
      rejoin.due(outcast, [2], 0);
      assert.deepEqual(rejoin.due(outcast, [2], REJOIN_DELAY_MS), [2]);
      if (calm) calm(rejoin);
      else rejoin.forget(2);
      const again = 10 * REJOIN_CALM_MS;
      rejoin.due(outcast, [2], again);
      assert.deepEqual(rejoin.due(outcast, [2], again + REJOIN_DELAY_MS), [2]);
    }
  });
});

describe('registry of chunkservers', () => {
  const beat = (freeBytes: number) => ({
    sequence: 1,
    capacityBytes: 10_000,
    usedBytes: 1,
    freeBytes,
    pgs: [],
  });

  it('is complete when everybody who is alive has reported', () => {
    const registry = new ChunkServerRegistry();
    assert.equal(registry.complete(ClusterMap.create({})), false);
    registry.heartbeat(1, beat(1));
    assert.equal(registry.complete(healthy), false);
    assert.equal(
      registry.complete(
        mapOf(
          [
            [
              [1, REPLICA_IN_SYNC],
              [2, REPLICA_OUT],
            ],
          ],
          [2],
        ),
      ),
      true,
    );
  });

  it('divides by the replication, and lets the fullest server limit what can be written', () => {
    const registry = new ChunkServerRegistry();
    const map = mapOf([
      [
        [1, REPLICA_IN_SYNC],
        [2, REPLICA_IN_SYNC],
      ],
      [
        [1, REPLICA_IN_SYNC],
        [3, REPLICA_IN_SYNC],
      ],
    ]);
    for (const [server, free] of [
      [1, 2000],
      [2, 8000],
      [3, 8000],
    ] as const)
      registry.heartbeat(server, beat(free));
    assert.deepEqual(registry.capacity(map), { totalBytes: 15_000, freeBytes: 9000, availBytes: 2000 });
    registry.heartbeat(2, beat(500));
    assert.equal(registry.capacity(map).availBytes, 1000);
  });

  it('adds up what each server still has to recover', () => {
    const registry = new ChunkServerRegistry();
    const pg = { pg: 0, epoch: 1, state: 'recovering', recoveryDoneBytes: 1, recoveryLeftBytes: 70 };
    registry.heartbeat(2, { ...beat(5), pgs: [pg, { ...pg, pg: 1, recoveryLeftBytes: 7 }] });
    const [one, two] = registry.statuses(healthy);
    assert.deepEqual(
      [one?.pgsPrimary, one?.pgsInSync, one?.pgsRecovering, one?.recoveryLeftBytes],
      [1, 1, 0, 0],
    );
    assert.deepEqual(
      [two?.pgsPrimary, two?.pgsInSync, two?.pgsRecovering, two?.recoveryLeftBytes],
      [0, 0, 1, 77],
    );
  });
});
