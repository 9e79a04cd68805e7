import assert from 'node:assert/strict';
import fc from 'fast-check';
import { LeaseTable } from '../../../client/leases/lease-table.js';
import { LeaseMode } from '../../../proto/gen/meta.js';

const { LEASE_NONE: NONE, LEASE_SHARED: SHARED, LEASE_EXCLUSIVE: EXCLUSIVE } = LeaseMode;

function table(leasesMax?: number): LeaseTable {
  const leases = new LeaseTable(leasesMax);
  leases.setLeaseMs(1000);
  leases.answered(0);
  return leases;
}

describe('leases of a client', () => {
  it('are believed for the lease time after the sending of the last answered request, and not longer', () => {
    const leases = new LeaseTable();
    leases.granted({ ino: 7, mode: SHARED, seq: 1 });
    assert.equal(leases.mode(7, 0), NONE, 'nothing is believed before the leader said for how long');
    leases.setLeaseMs(1000);
    leases.answered(500);
    leases.answered(200); // an older request, answered later
    assert.equal(leases.mode(7, 1499), SHARED);
    assert.equal(leases.ttlMs(7, 1100), 400);
    assert.equal(leases.mode(7, 1500), NONE);
    assert.equal(leases.ttlMs(7, 1600), 0);
    leases.answered(1550);
    assert.equal(leases.mode(7, 1600), SHARED, 'held all the time: believed again');
  });

  it('never become less by a grant', () => {
    const leases = table();
    leases.granted({ ino: 7, mode: EXCLUSIVE, seq: 1 });
    leases.granted({ ino: 7, mode: SHARED, seq: 2 });
    assert.equal(leases.mode(7, 0), EXCLUSIVE);
  });

  it('a grant that arrives behind the recall that means it is void', () => {
    const leases = table();
    const order = leases.recalled({ ino: 7, mode: NONE, seq: 5 });
    assert.deepEqual(order, { ino: 7, from: NONE, keep: NONE, seq: 5, round: 0 });
    assert.equal(leases.granted({ ino: 7, mode: SHARED, seq: 5 }), false);
    assert.equal(leases.mode(7, 0), NONE);
    assert.equal(leases.granted({ ino: 7, mode: SHARED, seq: 6 }), true);
    assert.equal(leases.mode(7, 0), SHARED);
  });

  it('are announced as they were while they are being given back: what was written under them is not yet out', () => {
    const leases = table();
    leases.granted({ ino: 7, mode: EXCLUSIVE, seq: 1 });
    leases.granted({ ino: 8, mode: EXCLUSIVE, seq: 2 });
    const kept = leases.recalled({ ino: 7, mode: SHARED, seq: 1 });
    const gone = leases.recalled({ ino: 8, mode: NONE, seq: 2 });
    assert.deepEqual([leases.mode(7, 0), leases.mode(8, 0)], [SHARED, NONE]);
    assert.deepEqual(
      leases.announce().map(({ ino, mode }) => [ino, mode]),
      [
        [7, EXCLUSIVE],
        [8, EXCLUSIVE],
      ],
    );
    const again = leases.recalled({ ino: 7, mode: SHARED, seq: 1 });
    assert.equal(again.from, EXCLUSIVE, 'the other leader waits for the same');
    assert.equal(leases.returned(kept), undefined, 'the former leader is not there any more');
    assert.equal(leases.returned(gone), undefined);
    assert.deepEqual(leases.returned(again), { ino: 7, mode: SHARED, seq: 1 });
    assert.deepEqual(leases.announce(), [{ ino: 7, mode: SHARED, seq: 0 }]);
  });

  it('a recall takes no more than it names', () => {
    const leases = table();
    leases.granted({ ino: 7, mode: EXCLUSIVE, seq: 1 });
    assert.deepEqual(leases.recalled({ ino: 7, mode: SHARED, seq: 1 }), {
      ino: 7,
      from: EXCLUSIVE,
      keep: SHARED,
      seq: 1,
      round: 0,
    });
    assert.equal(leases.mode(7, 0), SHARED);
    leases.granted({ ino: 7, mode: EXCLUSIVE, seq: 4 });
    assert.equal(leases.recalled({ ino: 7, mode: NONE, seq: 3 }).from, NONE, 'the newer grant is not meant');
    assert.equal(leases.mode(7, 0), EXCLUSIVE);
  });

  it('an assumed lease is taken by any recall', () => {
    const leases = table();
    leases.assume(9);
    assert.equal(leases.mode(9, 0), EXCLUSIVE);
    assert.equal(leases.recalled({ ino: 9, mode: NONE, seq: 1 }).from, EXCLUSIVE);
    assert.equal(leases.mode(9, 0), NONE);
  });

  it('cover what was learnt since they are held without a break', () => {
    const leases = table();
    const before = leases.stamp();
    leases.granted({ ino: 7, mode: SHARED, seq: 1 });
    const during = leases.stamp();
    assert.equal(leases.covers(7, before, 0), false);
    assert.equal(leases.covers(7, during, 0), true);
    leases.recalled({ ino: 7, mode: NONE, seq: 1 });
    leases.granted({ ino: 7, mode: SHARED, seq: 2 });
    assert.equal(leases.covers(7, during, 0), false);
    assert.equal(leases.covers(7, leases.stamp(), 0), true);
    assert.equal(leases.covers(7, leases.stamp(), 1000), false);
  });

  it('are announced to another leader, whose numbers begin anew', () => {
    const leases = table();
    leases.granted({ ino: 7, mode: EXCLUSIVE, seq: 900 });
    leases.recalled({ ino: 8, mode: NONE, seq: 901 });
    assert.deepEqual(leases.announce(), [{ ino: 7, mode: EXCLUSIVE, seq: 900 }]);
    assert.equal(leases.granted({ ino: 8, mode: SHARED, seq: 1 }), true);
    assert.equal(leases.recalled({ ino: 7, mode: NONE, seq: 2 }).from, EXCLUSIVE);
  });

  it('end with the session', () => {
    const leases = table();
    leases.granted({ ino: 7, mode: SHARED, seq: 1 });
    assert.deepEqual(leases.lost(), [7]);
    assert.equal(leases.mode(7, 0), NONE);
    assert.equal(leases.size, 0);
  });

  it('beyond the bound those not used lately are surplus, and never those in use', () => {
    const leases = table(3);
    for (let ino = 1; ino <= 5; ino++) leases.granted({ ino, mode: SHARED, seq: ino });
    assert.deepEqual(leases.surplus((ino) => ino !== 2).toSorted(), [1, 3]);
    for (const ino of [1, 3]) leases.drop(ino);
    assert.deepEqual(
      leases.surplus(() => true),
      [],
    );
  });

  it('are never believed against a naive model', () => {
    const event = fc.record({
      kind: fc.constantFrom('grant', 'recall', 'answer'),
      ino: fc.integer({ min: 1, max: 3 }),
      mode: fc.constantFrom(NONE, SHARED, EXCLUSIVE),
      seq: fc.integer({ min: 1, max: 12 }),
      step: fc.integer({ min: 0, max: 400 }),
    });
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (events) => {
        const leases = new LeaseTable();
        leases.setLeaseMs(1000);
        let now = 0;
        let until = -Infinity;
        const grants: { ino: number; mode: LeaseMode; seq: number }[] = [];
        const recalls: { ino: number; mode: LeaseMode; seq: number; at: number }[] = [];
        for (const { kind, ino, mode, seq, step } of events) {
          now += step;
          if (kind === 'answer') {
            leases.answered(now - 100);
            until = Math.max(until, now - 100 + 1000);
          } else if (kind === 'grant') {
            const voided = recalls.some((recall) => recall.ino === ino && recall.seq >= seq);
            const taken = leases.granted({ ino, mode, seq });
            if (voided) assert.equal(taken, false);
            else if (mode !== NONE) grants.push({ ino, mode, seq });
          } else {
            // A leader means all its grants so far; some of them may arrive later.
            const sent = grants.filter((grant) => grant.ino === ino).map((grant) => grant.seq);
            const upTo = Math.max(seq, ...sent);
            recalls.push({ ino, mode, seq: upTo, at: grants.length });
            leases.recalled({ ino, mode, seq: upTo });
          }
          for (const one of [1, 2, 3]) {
            // What any grant that no later recall has limited allows at the most.
            const most = Math.max(
              NONE,
              ...grants.map((grant, index) =>
                grant.ino === one
                  ? Math.min(
                      grant.mode,
                      ...recalls
                        .filter(({ ino: i, seq: s, at }) => i === one && s >= grant.seq && at > index)
                        .map(({ mode: m }) => m),
                    )
                  : NONE,
              ),
            );
            const believed = leases.mode(one, now);
            assert.ok(believed <= most, `inode ${one}: ${believed} believed, ${most} granted`);
            if (now >= until) assert.equal(believed, NONE);
          }
        }
      }),
    );
  });
});
