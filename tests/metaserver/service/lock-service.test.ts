import assert from 'node:assert/strict';
import { LOCK_REQUESTS_WAITING_MAX, LockService } from '../../../metaserver/service/lock-service.js';
import { type Lock, LockKind, LockOperation, type LockRequest, LockType } from '../../../proto/gen/meta.js';

function lock(owner: number, type = LockType.LOCK_WRITE): Lock {
  return {
    ino: 7,
    kind: LockKind.LOCK_FLOCK,
    type,
    ownerLow: owner,
    ownerHigh: 0,
    start: 0,
    end: 100,
    pid: 1,
  };
}

describe('requests for locks that wait until every session has told a new leader what it holds', () => {
  function fixture() {
    const service = new LockService();
    const log: string[] = [];
    const ask = (session: number, wait = 0): void => {
      const operation = wait > 0 ? LockOperation.LOCK_SET_WAIT : LockOperation.LOCK_SET;
      const request: LockRequest = { lock: lock(session), operation, wait };
      service.request(session, request, (error) => log.push(`${session} ${error ?? 'ok'}`));
    };
    return { service, log, ask };
  }

  it('are answered in the order in which they came', () => {
    const { service, log, ask } = fixture();
    ask(1);
    ask(2);
    assert.deepEqual([log, service.heldUp], [[], true]);
    service.open();
    assert.deepEqual([log, service.heldUp], [['1 ok', '2 EAGAIN'], false]);
  });

  it('end when they are interrupted, and get no lock later', () => {
    const { service, log, ask } = fixture();
    ask(1, 5);
    ask(2, 5);
    service.cancel(1, 5);
    assert.deepEqual(log, ['1 EINTR']);
    service.open();
    assert.deepEqual(log, ['1 EINTR', '2 ok']);
  });

  it('end with their session: nobody could give up its lock', () => {
    const { service, log, ask } = fixture();
    ask(1);
    ask(2, 5);
    ask(3);
    service.over(1);
    service.over(2);
    service.open();
    assert.deepEqual(log, ['3 ok']);
  });

  it('are bounded: a further one is told to come again', () => {
    const { service, log, ask } = fixture();
    for (let session = 1; session <= LOCK_REQUESTS_WAITING_MAX; session++) ask(session);
    assert.throws(() => ask(0), { errorName: 'OVERLOADED' });
    service.open();
    assert.deepEqual([log.length, log[0], log[1]], [LOCK_REQUESTS_WAITING_MAX, '1 ok', '2 EAGAIN']);
    ask(1);
    assert.equal(log.at(-1), '1 ok');
  });
});
