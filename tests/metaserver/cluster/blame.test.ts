import assert from 'node:assert/strict';
import {
  BLAME_WINDOW_MS,
  Blame,
  HEALTHY_DROPS_MAX,
  REPORT_MEMORY_MS,
} from '../../../metaserver/cluster/blame.js';
import { ReplicaState } from '../../../proto/gen/cluster.js';

const { REPLICA_OUT, REPLICA_RECOVERING, REPLICA_IN_SYNC } = ReplicaState;
const everybody = (): boolean => true;
const pg = (...states: ReplicaState[]): { replicas: { server: number; state: ReplicaState }[] } => ({
  replicas: states.map((state, index) => ({ server: index + 1, state })),
});
const ALL = pg(REPLICA_IN_SYNC, REPLICA_IN_SYNC, REPLICA_IN_SYNC);
/** Server 2 was dropped for the report of server 1. */
const TWO = pg(REPLICA_IN_SYNC, REPLICA_RECOVERING, REPLICA_IN_SYNC);

describe('whom the failure of a link is put down to', () => {
  const ask = (blame: Blame, group = TWO, healthy: (id: number) => boolean = everybody, now = 0): boolean =>
    blame.isReporters(group, { reporter: 1, server: 3 }, 2, healthy, now);

  /** Server 1 reaches neither 2 nor 3. */
  function cutOff(): Blame {
    const blame = new Blame();
    blame.report(1, 2, 0);
    blame.report(1, 3, 0);
    return blame;
  }

  it('the other replica, while enough are left without it', () => {
    assert.equal(ask(cutOff(), ALL), false);
  });

  it('the primary, when too few were left and the others reach one another', () => {
    assert.equal(ask(cutOff()), true);
  });

  it('the other replica, when it is down, or does not hold everything', () => {
    assert.equal(
      ask(cutOff(), TWO, (id) => id !== 3),
      false,
    );
    assert.equal(ask(cutOff(), pg(REPLICA_IN_SYNC, REPLICA_RECOVERING, REPLICA_RECOVERING)), false);
  });

  it('the other replica, when nobody is left with whom it could go on', () => {
    assert.equal(
      ask(cutOff(), TWO, (id) => id !== 2),
      false,
    );
    assert.equal(
      ask(cutOff(), pg(REPLICA_IN_SYNC, REPLICA_OUT, REPLICA_IN_SYNC), (id) => id !== 2),
      false,
    );
    const apart = cutOff();
    apart.report(2, 3, 0);
    assert.equal(ask(apart), false, 'those two cannot reach one another either');
  });

  it('the other replica, when the primary reaches the third one, or did not complain of it lately', () => {
    const blame = new Blame();
    blame.report(1, 3, 0);
    assert.equal(ask(blame), false);
    assert.equal(ask(cutOff(), TWO, everybody, REPORT_MEMORY_MS + 1), false);
    const restarted = cutOff();
    restarted.forget(2);
    assert.equal(ask(restarted), false);
  });

  it('a primary that had healthy servers dropped again and again, for a while', () => {
    const blame = new Blame();
    for (let i = 1; i < HEALTHY_DROPS_MAX; i++) blame.healthyDropped(1, 3, i);
    assert.equal(ask(blame, ALL, everybody, 100), false);
    blame.healthyDropped(1, 3, 100);
    assert.equal(ask(blame, ALL, everybody, 100), true);
    assert.equal(ask(blame, ALL, everybody, 101 + BLAME_WINDOW_MS), false);
  });

  it('the other replica, when those that the primary had dropped were started again since', () => {
    const blame = new Blame();
    for (let i = 0; i < HEALTHY_DROPS_MAX; i++) blame.healthyDropped(1, 2, i);
    assert.equal(ask(blame, ALL, everybody, 100), true);
    blame.forget(2);
    assert.equal(ask(blame, ALL, everybody, 100), false);
  });
});
