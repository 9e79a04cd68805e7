import assert from 'node:assert/strict';
import { LEASES_MAX } from '../../../client/leases/lease-table.js';
import { LISTING_PAGE_ENTRIES } from '../../../client/vfs/listings.js';
import { LEASE_LIMITS, LeaseCore } from '../../../metaserver/leases/lease-core.js';
import { type Lease, LeaseMode } from '../../../proto/gen/meta.js';

const { LEASE_NONE: NONE, LEASE_SHARED: SHARED, LEASE_EXCLUSIVE: EXCLUSIVE } = LeaseMode;
const NOW = 0;
/** Entries that a mount asks for with leases before it gives any back. */
const LARGEST_TAKEOVER = 32 * LISTING_PAGE_ENTRIES;

function fixture(limits = LEASE_LIMITS) {
  const recalls: [session: number, ...lease: number[]][] = [];
  const core = new LeaseCore((session, leases) => {
    for (const { ino, mode, seq } of leases) recalls.push([session, ino, mode, seq]);
  }, limits);
  for (const session of [1, 2, 3]) core.add(session, true);
  const log: string[] = [];
  return {
    core,
    recalls,
    log,
    announce: (session: number, leases: Lease[], fresh: boolean) => {
      core.beginAnnouncement(session);
      core.announce(session, leases, fresh, NOW);
      core.endAnnouncement(session, NOW);
    },
    grant: (session: number, ino: number, mode: LeaseMode) => core.grant(session, ino, mode, NOW),
    change: (session: number, inos: number[], name = `change by ${session}`) =>
      core.beginChange(session, inos, NOW, () => log.push(name)),
    giveBack: (session: number, ino: number, mode: LeaseMode, seq: number) =>
      core.returned(session, [{ ino, mode, seq }], NOW),
  };
}

describe('lease core', () => {
  it('grants shared leases to several sessions, and numbers every answer', () => {
    const { grant } = fixture();
    assert.deepEqual(grant(1, 7, SHARED), { ino: 7, mode: SHARED, seq: 1 });
    assert.deepEqual(grant(2, 7, SHARED), { ino: 7, mode: SHARED, seq: 2 });
    assert.deepEqual(grant(1, 7, SHARED), { ino: 7, mode: SHARED, seq: 3 });
  });

  it('grants an exclusive lease to a sole holder alone, and says what is held already', () => {
    const { grant } = fixture();
    assert.equal(grant(1, 7, EXCLUSIVE)?.mode, EXCLUSIVE);
    assert.equal(grant(1, 7, SHARED)?.mode, EXCLUSIVE);
    assert.equal(grant(2, 7, SHARED), undefined);
    grant(1, 8, SHARED);
    grant(2, 8, SHARED);
    assert.equal(grant(1, 8, EXCLUSIVE)?.mode, SHARED);
  });

  it('grants nothing to who wants nothing, and nothing to a stranger', () => {
    const { core, grant } = fixture();
    core.add(4, false);
    assert.deepEqual([grant(4, 7, SHARED), grant(99, 7, SHARED)], [undefined, undefined]);
  });

  it('asks for what only the holder of an exclusive lease may know, once, and knows when it is told', () => {
    const { core, grant, giveBack, recalls } = fixture();
    grant(1, 7, EXCLUSIVE);
    grant(2, 8, SHARED);
    assert.deepEqual([core.unveil(7, NOW), core.unveil(7, NOW), core.unveil(8, NOW)], [true, true, false]);
    assert.deepEqual(recalls, [[1, 7, SHARED, 1]]);
    giveBack(1, 7, SHARED, 1);
    assert.equal(core.unveil(7, NOW), false);
  });

  it('lets a change through at once when nobody else believes anything', () => {
    const { grant, change, log, recalls } = fixture();
    grant(1, 7, EXCLUSIVE);
    change(1, [7, 8]);
    assert.deepEqual([log, recalls], [['change by 1'], []]);
  });

  it('recalls what others believe before a change, and waits for all of them', () => {
    const { grant, change, giveBack, log, recalls } = fixture();
    grant(1, 7, SHARED);
    grant(2, 7, SHARED);
    grant(2, 8, EXCLUSIVE);
    change(3, [7, 8]);
    assert.deepEqual(recalls, [
      [1, 7, NONE, 1],
      [2, 7, NONE, 2],
      [2, 8, NONE, 3],
    ]);
    giveBack(1, 7, NONE, 1);
    giveBack(2, 8, NONE, 3);
    assert.deepEqual(log, []);
    giveBack(2, 7, NONE, 2);
    assert.deepEqual(log, ['change by 3']);
  });

  it('grants others nothing on what is being changed, until the change has ended', () => {
    const { core, grant, change } = fixture();
    change(1, [7]);
    assert.equal(grant(2, 7, SHARED), undefined);
    assert.equal(grant(1, 7, SHARED)?.mode, SHARED);
    core.endChange(1, [7]);
    assert.equal(grant(2, 7, SHARED)?.mode, SHARED);
  });

  it('grants nobody what is being changed by two', () => {
    const { core, grant, change } = fixture();
    change(1, [7]);
    change(2, [7]);
    assert.deepEqual([grant(1, 7, SHARED), grant(2, 7, SHARED)], [undefined, undefined]);
    core.endChange(2, [7]);
    assert.equal(grant(1, 7, SHARED)?.mode, SHARED);
  });

  it('asks the holder of an exclusive lease to keep no more than a shared one when others read', () => {
    const { core, grant, giveBack, log, recalls } = fixture();
    grant(1, 7, EXCLUSIVE);
    assert.equal(core.readable(1, 7), true);
    assert.equal(core.readable(2, 7), false);
    core.whenReadable(2, [7], NOW, () => log.push('read'));
    assert.deepEqual(recalls, [[1, 7, SHARED, 1]]);
    giveBack(1, 7, SHARED, 1);
    assert.deepEqual(log, ['read']);
    assert.equal(grant(2, 7, SHARED)?.mode, SHARED);
  });

  it('asks again for more when a change comes behind a read', () => {
    const { core, grant, change, giveBack, log, recalls } = fixture();
    grant(1, 7, EXCLUSIVE);
    core.whenReadable(2, [7], NOW, () => log.push('read'));
    change(3, [7]);
    core.whenReadable(2, [7], NOW, () => log.push('read'));
    assert.deepEqual(recalls, [
      [1, 7, SHARED, 1],
      [1, 7, NONE, 1],
    ]);
    giveBack(1, 7, SHARED, 1);
    assert.deepEqual(log, ['read', 'read']);
    giveBack(1, 7, NONE, 1);
    assert.deepEqual(log, ['read', 'read', 'change by 3']);
  });

  it('lets the holder of a recalled lease change the inode before it gives it back', () => {
    const { core, grant, change, giveBack, log } = fixture();
    grant(1, 7, EXCLUSIVE);
    change(2, [7], 'other');
    change(1, [7], 'flush');
    assert.deepEqual(log, ['flush']);
    core.endChange(1, [7]);
    giveBack(1, 7, NONE, 1);
    assert.deepEqual(log, ['flush', 'other']);
  });

  it('lets two sessions that want what the other holds have it, one after the other', () => {
    const { grant, change, giveBack, log } = fixture();
    grant(1, 7, EXCLUSIVE);
    grant(2, 8, EXCLUSIVE);
    change(1, [8], 'a');
    change(2, [7], 'b');
    giveBack(2, 8, NONE, 2);
    giveBack(1, 7, NONE, 1);
    assert.deepEqual(log, ['a', 'b']);
  });

  it('does not renew a lease that is being recalled, and takes no return of a grant before the last', () => {
    const { grant, change, giveBack, log } = fixture();
    grant(1, 7, SHARED);
    grant(1, 7, SHARED);
    giveBack(1, 7, NONE, 1); // crossed the second grant
    change(2, [7]);
    assert.equal(grant(1, 7, SHARED), undefined);
    assert.deepEqual(log, []);
    giveBack(1, 7, NONE, 2);
    assert.deepEqual(log, ['change by 2']);
  });

  it('makes an inode sole for who wants to write it', () => {
    const { core, grant, giveBack, log, recalls } = fixture();
    grant(1, 7, SHARED);
    grant(2, 7, SHARED);
    core.whenSole(2, 7, NOW, () => log.push(`${grant(2, 7, EXCLUSIVE)?.mode}`));
    assert.deepEqual(recalls, [[1, 7, NONE, 1]]);
    giveBack(1, 7, NONE, 1);
    assert.deepEqual(log, [`${EXCLUSIVE}`]);
  });

  it('gives away what a session held that is over, and calls what waited for it', () => {
    const { core, grant, change, log } = fixture();
    grant(1, 7, EXCLUSIVE);
    change(2, [7]);
    core.remove(1, NOW);
    assert.deepEqual(log, ['change by 2']);
    assert.equal(core.size, 0);
  });

  it('does not let what a session waited for outlive it', () => {
    const { core, grant, change, giveBack, log } = fixture();
    grant(1, 7, EXCLUSIVE);
    change(2, [7]);
    core.remove(2, NOW);
    assert.deepEqual(log, ['change by 2']); // to be refused
    core.endChange(2, [7]);
    giveBack(1, 7, NONE, 1);
    assert.deepEqual([log.length, core.inodes], [1, 0]);
  });

  it('takes over what sessions announce to a new leader, with numbers beyond theirs', () => {
    const { core, announce, grant, change, recalls } = fixture();
    announce(1, [{ ino: 7, mode: EXCLUSIVE, seq: 40 }], true);
    assert.equal(core.readable(2, 7), false);
    assert.equal(grant(2, 8, SHARED)?.seq, 41);
    change(2, [7]);
    assert.deepEqual(recalls, [[1, 7, NONE, 40]]);
  });

  it('recalls what cannot be when two sessions announce the same', () => {
    const { announce, recalls } = fixture();
    announce(1, [{ ino: 7, mode: EXCLUSIVE, seq: 40 }], true);
    announce(2, [{ ino: 7, mode: SHARED, seq: 30 }], true);
    assert.deepEqual(recalls, [[2, 7, NONE, 30]]);
  });

  it('keeps of a session that comes back what both sides know, and asks again for what was recalled', () => {
    const { core, announce, grant, change, giveBack, recalls, log } = fixture();
    for (const ino of [7, 8, 9]) grant(1, ino, SHARED);
    change(2, [9]);
    recalls.length = 0;
    const announced: Lease[] = [
      { ino: 8, mode: SHARED, seq: 2 },
      { ino: 9, mode: SHARED, seq: 3 },
      { ino: 10, mode: SHARED, seq: 1 },
    ];
    announce(1, announced, false);
    assert.deepEqual(core.held(1), announced.slice(0, 2));
    assert.deepEqual(recalls, [
      [1, 9, NONE, 3],
      [1, 10, NONE, 1],
    ]);
    giveBack(1, 9, NONE, 3);
    assert.deepEqual(log, ['change by 2']);
  });

  it('takes what is announced in parts as one announcement, and nothing away before its end', () => {
    const { core, grant, recalls } = fixture();
    for (const ino of [7, 8, 9, 10]) grant(1, ino, SHARED);
    core.beginAnnouncement(1);
    core.announce(1, [{ ino: 7, mode: SHARED, seq: 1 }], false, NOW);
    assert.equal(core.held(1).length, 4);
    core.announce(1, [{ ino: 9, mode: SHARED, seq: 3 }], false, NOW);
    core.endAnnouncement(1, NOW);
    assert.deepEqual(
      core.held(1).map(({ ino }) => ino),
      [7, 9],
    );
    assert.deepEqual(recalls, []);
  });

  it('forgets an announcement that was broken off when the session begins anew', () => {
    const { core, announce } = fixture();
    core.beginAnnouncement(1);
    const part = [7, 8].map((ino) => ({ ino, mode: SHARED, seq: 0 }));
    core.announce(1, part, true, NOW);
    announce(
      1,
      [8, 9].map((ino) => ({ ino, mode: EXCLUSIVE, seq: 0 })),
      true,
    );
    assert.deepEqual(
      core.held(1).map(({ ino, mode }) => [ino, mode]),
      [
        [8, EXCLUSIVE],
        [9, EXCLUSIVE],
      ],
    );
  });

  it('finds sessions that answer no recall, but not who is still at it', () => {
    const { core, grant } = fixture();
    core.grant(1, 7, EXCLUSIVE, NOW);
    grant(2, 8, EXCLUSIVE);
    core.beginChange(3, [7, 8], 100, () => {});
    core.returned(2, [{ ino: 8, mode: EXCLUSIVE, seq: 2 }], 900);
    assert.deepEqual(core.overdue(1100, 1000), []);
    assert.deepEqual(core.overdue(1101, 1000), [1]);
    core.forgive(500);
    assert.deepEqual(core.overdue(1101, 1000), []);
    assert.deepEqual(core.overdue(2401, 1000), [1, 2]);
  });

  it('recalls the least recently granted leases before there are too many, and never grants more', () => {
    const { grant, giveBack, core, recalls } = fixture({ perSession: 8, total: 100, trim: 2 });
    for (let ino = 1; ino <= 7; ino++) grant(1, ino, SHARED);
    grant(1, 1, SHARED);
    assert.deepEqual(recalls, []);
    grant(1, 8, SHARED);
    assert.deepEqual(recalls, [
      [1, 2, NONE, 2],
      [1, 3, NONE, 3],
    ]);
    assert.equal(grant(1, 9, SHARED), undefined);
    giveBack(1, 2, NONE, 2);
    assert.equal(grant(1, 9, SHARED)?.ino, 9);
    assert.equal(core.size, 8);
  });

  it('grants what its holder has made by itself although there is no room, and recalls older leases for it', () => {
    const { grant, core, recalls } = fixture({ perSession: 8, total: 100, trim: 2 });
    for (let ino = 1; ino <= 8; ino++) grant(1, ino, SHARED);
    assert.equal(grant(1, 9, SHARED), undefined);
    recalls.length = 0;
    for (let ino = 10; ino <= 12; ino++) assert.deepEqual(core.grantMade(1, ino, NOW)?.mode, EXCLUSIVE);
    assert.equal(core.readable(2, 10), false);
    assert.deepEqual(
      recalls.map(([session, ino]) => [session, ino]),
      [
        [1, 3],
        [1, 4],
      ],
    );
  });

  it('has room for what listings bring, also for mounts that hold as many as they keep, until recalls are near', () => {
    const { grant, core } = fixture();
    let ino = 1;
    const holds = (session: number, count: number): void => {
      while (count-- > 0) grant(session, ino++, SHARED);
    };
    for (const session of [1, 2, 3]) holds(session, LEASES_MAX);
    assert.deepEqual(
      [1, 2, 3].map((session) => core.roomy(session)),
      [true, true, true],
    );
    holds(1, LARGEST_TAKEOVER - 1);
    assert.equal(core.roomy(1), true);
    holds(1, 1);
    assert.deepEqual([core.roomy(1), core.roomy(2), core.roomy(99)], [false, true, false]);
  });

  it('takes from who has most when there are too many in all', () => {
    const { grant, recalls } = fixture({ perSession: 100, total: 8, trim: 2 });
    for (let ino = 1; ino <= 6; ino++) grant(1, ino, SHARED);
    grant(2, 10, SHARED);
    assert.equal(grant(3, 20, SHARED)?.ino, 20);
    assert.deepEqual(recalls, [
      [1, 1, NONE, 1],
      [1, 2, NONE, 2],
    ]);
    assert.equal(grant(3, 21, SHARED), undefined);
  });

  it('remembers nothing of an inode that nobody holds or changes', () => {
    const { core, grant, change, giveBack } = fixture();
    const lease = grant(1, 7, SHARED) as Lease;
    change(2, [7, 8]);
    giveBack(1, 7, NONE, lease.seq);
    core.endChange(2, [7, 8]);
    assert.deepEqual([core.inodes, core.size], [0, 0]);
  });
});
