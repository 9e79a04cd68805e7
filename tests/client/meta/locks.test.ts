import assert from 'node:assert/strict';
import type { ClientBody } from '../../../client/meta/dialer.js';
import { LockClient, wholeFile } from '../../../client/meta/locks.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { type ErrorName, HoldfastError } from '../../../proto/errors.js';
import {
  type Lock,
  LockKind,
  LockOperation,
  LockType,
  type ServerEnvelope,
} from '../../../proto/gen/meta.js';
import { ManualClock } from '../support/manual-clock.js';

const OWNER = 0xfedc_ba98_7654_3210n;
const WRITE: Lock = { ...wholeFile(7, LockKind.LOCK_POSIX, OWNER), type: LockType.LOCK_WRITE, pid: 42 };
const UNLOCK = wholeFile(7, LockKind.LOCK_POSIX, OWNER);

function setUp() {
  const clock = new ManualClock();
  const sent: { operation: LockOperation; wait: number }[] = [];
  const cancelled: number[] = [];
  const answers: Deferred<ServerEnvelope['body']>[] = [];
  const locks = new LockClient({
    clock,
    call: (body: ClientBody) => {
      assert.ok(body?.$case === 'lock');
      const { operation, wait } = body.value;
      sent.push({ operation, wait });
      const answer = deferred<ServerEnvelope['body']>();
      answers.push(answer);
      return answer.promise;
    },
    push: (body) => {
      if (body?.$case === 'cancelLock') cancelled.push(body.value.wait);
    },
  });
  const next = async (): Promise<Deferred<ServerEnvelope['body']>> => {
    while (answers.length === 0) await new Promise((resolve) => setImmediate(resolve));
    return answers.shift() as Deferred<ServerEnvelope['body']>;
  };
  return {
    clock,
    locks,
    sent,
    cancelled,
    grant: async () => (await next()).resolve({ $case: 'lock', value: { conflict: undefined } }),
    refuse: async (name: ErrorName) => (await next()).reject(new HoldfastError(name)),
  };
}

const named = (name: string) => (error: unknown) =>
  error instanceof HoldfastError && error.errorName === name;

describe('locks of a mount', () => {
  it('announce what was granted, until it is given up or the session is lost', async () => {
    const { locks, grant } = setUp();
    await Promise.all([locks.set(WRITE, false), grant()]);
    assert.deepEqual(locks.announce(), [WRITE]);
    assert.equal(locks.holds(7, LockKind.LOCK_POSIX, OWNER), true);
    await Promise.all([locks.set({ ...UNLOCK, start: 10, end: 19 }, false), grant()]);
    assert.deepEqual(
      locks.announce().map(({ start, end }) => [start, end]),
      [
        [0, 9],
        [20, Number.MAX_SAFE_INTEGER],
      ],
    );
    locks.sessionLost();
    assert.deepEqual(locks.announce(), []);
  });

  it('are asked for again after a fail-over, and refusals are final', async () => {
    const { clock, locks, grant, refuse, sent } = setUp();
    const set = locks.set(WRITE, false);
    await refuse('CONNECTION_LOST');
    await clock.advance(1000);
    await grant();
    await set;
    assert.equal(sent.length, 2);
    await Promise.all([assert.rejects(locks.set(WRITE, false), named('EAGAIN')), refuse('EAGAIN')]);
    await Promise.all([assert.rejects(locks.set(WRITE, true), named('EDEADLK')), refuse('EDEADLK')]);
  });

  it('are held when they were granted in another session than they were asked for in', async () => {
    const { clock, locks, grant, refuse } = setUp();
    const set = locks.set(WRITE, true);
    locks.sessionLost();
    await refuse('SESSION_EXPIRED');
    await new Promise((resolve) => setImmediate(resolve));
    clock.advance(1000);
    await grant();
    await set;
    assert.equal(locks.holds(7, LockKind.LOCK_POSIX, OWNER), true);
    assert.deepEqual(locks.announce(), [WRITE]);
  });

  it('are not held when their session is lost before they are granted', async () => {
    const { locks, grant } = setUp();
    const set = locks.set(WRITE, true);
    locks.sessionLost();
    await Promise.all([set, grant()]);
    assert.deepEqual(locks.announce(), []);
  });

  it('that a session took with it are lost until their owner gives them up, range by range', async () => {
    const { locks, grant } = setUp();
    const lost = (owner = OWNER): boolean => locks.hasLost(7, LockKind.LOCK_POSIX, owner);
    await Promise.all([locks.set(WRITE, false), grant()]);
    assert.equal(lost(), false);
    locks.sessionLost();
    assert.deepEqual(
      [lost(), lost(OWNER + 1n), locks.holds(7, LockKind.LOCK_POSIX, OWNER)],
      [true, false, false],
    );
    await Promise.all([locks.set(WRITE, false), grant()]);
    assert.equal(lost(), true, 'having it again does not tell what happened meanwhile');
    await Promise.all([locks.set({ ...UNLOCK, end: 9 }, false), grant()]);
    assert.equal(lost(), true);
    locks.forgetLost({ ...UNLOCK, start: 10 });
    assert.equal(lost(), false);
  });

  it('that are granted by a session that is over are lost', async () => {
    const { locks, grant } = setUp();
    const set = locks.set(WRITE, true);
    locks.sessionLost();
    await Promise.all([set, grant()]);
    assert.equal(locks.hasLost(7, LockKind.LOCK_POSIX, OWNER), true);
  });

  it('are waited for under one number, however many attempts it takes', async () => {
    const { locks, grant, refuse, sent } = setUp();
    const set = locks.set(WRITE, true);
    await refuse('DEADLINE_EXCEEDED');
    await grant();
    await set;
    const { LOCK_SET_WAIT: operation } = LockOperation;
    assert.deepEqual(sent, [
      { operation, wait: 1 },
      { operation, wait: 1 },
    ]);
  });

  it('that were granted before the interrupt arrived are held', async () => {
    const { locks, grant, cancelled } = setUp();
    const interrupt = new AbortController();
    const set = locks.set(WRITE, true, interrupt.signal);
    interrupt.abort();
    await grant();
    await set;
    assert.deepEqual([cancelled, locks.announce()], [[1], [WRITE]]);
  });

  it('are not waited for again when interrupted', async () => {
    const { clock, locks, refuse, sent } = setUp();
    const interrupt = new AbortController();
    const set = assert.rejects(locks.set(WRITE, true, interrupt.signal), named('EINTR'));
    interrupt.abort();
    await refuse('CONNECTION_LOST');
    await clock.advance(1000);
    await refuse('EAGAIN');
    await set;
    assert.equal(sent[1]?.operation, LockOperation.LOCK_SET);
    assert.deepEqual(locks.announce(), []);
  });
});
