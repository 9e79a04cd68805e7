import assert from 'node:assert/strict';
import { amountsOf, NO_HOLD } from '../../../client/quota/quota-book.js';
import { IDLE_MS, OTHERS_WAIT_MAX_MS, QuotaKeeper } from '../../../client/quota/quota-keeper.js';
import { silentLogger } from '../../../common/logger.js';
import { type QuotaGrant, QuotaKind, type ReserveQuota } from '../../../proto/gen/meta.js';
import { ManualClock } from '../support/manual-clock.js';

const { QUOTA_TREE, QUOTA_USER } = QuotaKind;
const NONE: QuotaGrant = { granted: [], held: false, reclaiming: false };

/** Trees 5 in 4, of which both limit bytes; user 7 is limited in inodes. */
function keeper(answer: (op: ReserveQuota) => QuotaGrant): {
  quotas: QuotaKeeper;
  clock: ManualClock;
  asked: ReserveQuota[];
  writtenBack: () => number;
} {
  const clock = new ManualClock();
  const asked: ReserveQuota[] = [];
  let writtenBack = 0;
  const quotas = new QuotaKeeper({
    clock,
    log: silentLogger,
    reserve: async (op) => {
      asked.push(op);
      return answer(op);
    },
    writeBack: async () => {
      writtenBack++;
    },
  });
  quotas.setRules({
    rules: [
      { kind: QUOTA_TREE, id: 4, parent: 0, bytes: true, inodes: false },
      { kind: QUOTA_TREE, id: 5, parent: 4, bytes: true, inodes: false },
      { kind: QUOTA_USER, id: 7, parent: 0, bytes: false, inodes: true },
    ],
  });
  return { quotas, clock, asked, writtenBack: () => writtenBack };
}

const inTree = { project: 5, uid: 0, gid: 0 };

describe('QuotaKeeper', () => {
  it('asks for nothing of what is not limited', async () => {
    const { quotas, asked } = keeper(() => NONE);
    assert.equal(await quotas.acquire({ uid: 1, gid: 1 }, { bytes: 10, inodes: 1 }), NO_HOLD);
    const hold = await quotas.acquire({ uid: 7, gid: 1 }, { bytes: 10, inodes: 0 });
    assert.equal(amountsOf(hold), undefined);
    assert.deepEqual(asked, []);
  });

  it('takes from each tree around the inode, or from none', async () => {
    const { quotas, asked } = keeper(({ need }) => ({ ...NONE, granted: need }));
    const hold = await quotas.acquire(inTree, { bytes: 10, inodes: 1 });
    assert.deepEqual(
      amountsOf(hold)?.map(({ id, bytes, inodes }) => [id, bytes, inodes]),
      [
        [5, 10, 0],
        [4, 10, 0],
      ],
    );
    assert.equal(asked.length, 1);
    assert.equal(quotas.take(inTree, { bytes: 1, inodes: 0 }), undefined);
    quotas.book.release(hold);
    assert.ok(quotas.take(inTree, { bytes: 10, inodes: 0 }));
  });

  it('writes back what it has taken itself before it says that there is no room', async () => {
    let room = 10;
    const { quotas, writtenBack } = keeper(({ need }) => {
      if ((need[0]?.bytes ?? 0) > room) return NONE;
      room -= need[0]?.bytes ?? 0;
      return { ...NONE, granted: need };
    });
    await quotas.acquire(inTree, { bytes: 8, inodes: 0 });
    await assert.rejects(quotas.acquire(inTree, { bytes: 8, inodes: 0 }), /quota/);
    assert.equal(writtenBack(), 1);
  });

  it('waits for what others hold, for a while, and then not again', async () => {
    let holding = true;
    const { quotas, clock, asked } = keeper(({ need }) =>
      holding ? { ...NONE, held: true } : { ...NONE, granted: need },
    );
    const waiting = quotas.acquire(inTree, { bytes: 8, inodes: 0 });
    await clock.advance(500);
    holding = false;
    await clock.advance(200);
    assert.equal(amountsOf(await waiting)?.length, 2);
    holding = true;
    const inVain = assert.rejects(quotas.acquire(inTree, { bytes: 8, inodes: 0 }), /quota/);
    await clock.advance(OTHERS_WAIT_MAX_MS + 200);
    await inVain;
    const before = asked.length;
    await assert.rejects(quotas.acquire(inTree, { bytes: 8, inodes: 0 }), /quota/);
    assert.ok(asked.length <= before + 2);
  });

  it('gives back what others need, and everything when it is idle', async () => {
    const { quotas, clock, asked } = keeper(({ need, want }) => ({ ...NONE, granted: [...need, ...want] }));
    const hold = await quotas.acquire(inTree, { bytes: 8, inodes: 0 });
    await quotas.recalled([{ kind: QUOTA_TREE, id: 4, bytes: 1, inodes: 0 }]);
    const returned = asked.at(-1)?.giveBack ?? [];
    assert.deepEqual(
      returned.map(({ id, bytes }) => [id, bytes > 8]),
      [[4, true]],
    );
    assert.equal(quotas.take(inTree, { bytes: 1, inodes: 0 }), undefined);
    await clock.advance(IDLE_MS * 3);
    assert.equal(asked.length, 2, 'what is taken is not given back');
    quotas.book.settled(hold);
    await clock.advance(IDLE_MS * 3);
    assert.equal(asked.length, 3);
    assert.deepEqual(
      asked[2]?.giveBack.map(({ id }) => id),
      [4, 5],
    );
  });

  it('has nothing left when the session is lost', async () => {
    const { quotas } = keeper(({ need, want }) => ({ ...NONE, granted: [...need, ...want] }));
    const hold = await quotas.acquire(inTree, { bytes: 8, inodes: 0 });
    quotas.sessionLost();
    quotas.book.release(hold);
    assert.equal(quotas.take(inTree, { bytes: 1, inodes: 0 }), undefined);
  });
});
