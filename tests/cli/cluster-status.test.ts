import assert from 'node:assert/strict';
import { mergeStatus, unnamedMembers } from '../../cli/cluster-status.js';
import { renderRecovery, renderStatus } from '../../cli/status.js';
import { ChunkServerStatus, MetaServerStatus, StatusReply } from '../../proto/gen/admin.js';
import { ClusterMap, type Replica, ReplicaState } from '../../proto/gen/cluster.js';

const { REPLICA_IN_SYNC: IN_SYNC, REPLICA_RECOVERING: RECOVERING } = ReplicaState;
const MIB = 2 ** 20;

function leader(pgs: Replica[][], chunkservers: Partial<ChunkServerStatus>[]): StatusReply {
  const map = ClusterMap.fromPartial({
    replicas: 2,
    servers: chunkservers.map(({ id, alive }) => ({ id, alive })),
    pgs: pgs.map((replicas, id) => ({ id, replicas })),
  });
  const servers = chunkservers.map((one) => ChunkServerStatus.fromPartial(one));
  return StatusReply.fromPartial({ serverId: 1, role: 'leader', term: 3, map, chunkservers: servers });
}

const status = (reply: StatusReply) => mergeStatus([{ address: 'a:1', reply }], 0)!;

describe('the status of a cluster', () => {
  it('adds up the recovery of all servers; the slowest one decides when it ends', () => {
    const { recovery, chunkservers } = status(
      leader(
        [
          [
            { server: 1, state: IN_SYNC },
            { server: 2, state: RECOVERING },
          ],
        ],
        [
          { id: 1, alive: true },
          ...[2, 3].map((id) => ({
            ...{ id, alive: true, pgsRecovering: 5, recoveryLeftBytes: id * 100 * MIB },
            ...{ recoveryDoneBytes: 10 * MIB, recoveryBytesPerSecond: 50 * MIB },
          })),
        ],
      ),
    );
    assert.deepEqual(recovery, {
      ...{ pgs: 1, doneBytes: 20 * MIB, leftBytes: 500 * MIB, bytesPerSecond: 100 * MIB, etaSeconds: 6 },
    });
    assert.equal(renderRecovery(recovery), '1 PGs, 20.0 MiB done, 500 MiB left, 104.9 MB/s, about 6 s to go');
    assert.deepEqual(
      chunkservers.map((one) => one.recovery.etaSeconds),
      [null, 4, 6],
    );
  });

  it('is asked of the members that were not named, too', () => {
    const members = ['d1', 'd2', 'd3', ''].map((diskUuid, n) =>
      MetaServerStatus.fromPartial({ id: n + 1, address: `m${n + 1}:1`, diskUuid }),
    );
    const reply = { ...leader([], []), metaservers: members };
    assert.deepEqual(unnamedMembers([{ address: 'm1:1', reply }]), ['m2:1', 'm3:1']);
    const down = { address: 'm3:1', reply: undefined };
    const alias = { address: 'alias:1', reply: StatusReply.fromPartial({ serverId: 2, role: 'follower' }) };
    assert.deepEqual(unnamedMembers([{ address: 'm1:1', reply }, down, alias]), []);
    const follower = StatusReply.fromPartial({ serverId: 2, role: 'follower', metaservers: members });
    const byFollower = unnamedMembers([{ address: 'm2:1', reply: follower }]);
    assert.deepEqual(byFollower, ['m1:1', 'm3:1'], 'one that does not lead knows who may');
  });

  it('calls a PG unavailable when nobody alive has it, and names the disk that is missed', () => {
    const { pgs, problems } = status(
      leader(
        [
          [
            { server: 1, state: IN_SYNC },
            { server: 2, state: IN_SYNC },
          ],
          [{ server: 3, state: IN_SYNC }],
          [{ server: 1, state: RECOVERING, wholeDisk: 'd1' }],
        ],
        [
          { id: 1, alive: true },
          { id: 2, alive: true },
          { id: 3, alive: false },
        ],
      ),
    );
    assert.deepEqual(pgs, { total: 3, inSync: 1, recovering: 1, degraded: 2, unavailable: 2, moving: 0 });
    assert.ok(
      problems.some((problem) => /^1 PGs are unavailable: only disk d1 of chunkserver-1/.test(problem)),
    );
  });

  it('shows nothing that only a leader knows while there is none', () => {
    const follower = StatusReply.fromPartial({ serverId: 1, role: 'follower', term: 3 });
    const text = renderStatus(status(follower));
    assert.match(text, /^health +no leader is known$/m);
    assert.match(text, /^metaserver-1 +a:1 +alive +follower, term 3/m);
    assert.doesNotMatch(text, /PGs|capacity/);
  });
});
