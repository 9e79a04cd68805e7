import assert from 'node:assert/strict';
import fc from 'fast-check';
import { LockCore } from '../../../metaserver/locks/lock-core.js';
import { type Lock, LockKind, LockType } from '../../../proto/gen/meta.js';

const { LOCK_READ: READ, LOCK_WRITE: WRITE, LOCK_UNLOCK: UNLOCK } = LockType;
const END = Number.MAX_SAFE_INTEGER;

function lock(
  owner: number,
  type: LockType,
  start = 0,
  end = END,
  ino = 7,
  kind = LockKind.LOCK_POSIX,
): Lock {
  return { ino, kind, type, ownerLow: owner, ownerHigh: 0, start, end, pid: 1000 + owner };
}

const flock = (owner: number, type: LockType): Lock => lock(owner, type, 0, END, 7, LockKind.LOCK_FLOCK);

function fixture(perSession?: number) {
  const core = new LockCore(perSession);
  const log: string[] = [];
  let waits = 0;
  return {
    core,
    log,
    /** @returns the outcome of a lock that does not wait */
    set(session: number, wanted: Lock): string {
      let outcome = 'nothing';
      core.set(session, wanted, undefined, (error) => {
        outcome = error ?? 'ok';
      });
      return outcome;
    },
    wait(session: number, wanted: Lock, name = `${session}`): number {
      const id = ++waits;
      core.set(session, wanted, id, (error) => log.push(`${name} ${error ?? 'ok'}`));
      return id;
    },
  };
}

const ranges = (locks: Lock[]) =>
  locks.map(({ start, end, type }) => [start, end, type]).sort((a, b) => (a[0] as number) - (b[0] as number));

describe('lock core', () => {
  it('lets readers share, and a writer be alone, over sessions and owners', () => {
    const { set } = fixture();
    assert.equal(set(1, lock(5, READ)), 'ok');
    assert.equal(set(2, lock(5, READ)), 'ok');
    assert.equal(set(1, lock(6, WRITE)), 'EAGAIN');
    assert.equal(set(1, lock(5, WRITE)), 'EAGAIN');
    assert.equal(set(2, lock(5, UNLOCK)), 'ok');
    assert.equal(set(1, lock(5, WRITE)), 'ok');
    assert.equal(set(2, lock(5, READ)), 'EAGAIN');
  });

  it('keeps ranges apart, and tells which lock is in the way', () => {
    const { core, set } = fixture();
    set(1, lock(5, WRITE, 10, 19));
    assert.equal(set(2, lock(5, WRITE, 20, 29)), 'ok');
    assert.equal(set(2, lock(5, READ, 0, 10)), 'EAGAIN');
    assert.deepEqual(core.test(2, lock(5, READ, 0, 10)), lock(5, WRITE, 10, 19));
    assert.equal(core.test(1, lock(5, WRITE, 0, 19)), undefined);
  });

  it('splits, replaces and joins the locks of one owner', () => {
    const { core, set } = fixture();
    set(1, lock(5, WRITE, 0, 99));
    set(1, lock(5, READ, 40, 59));
    assert.deepEqual(ranges(core.held(1)), [
      [0, 39, WRITE],
      [40, 59, READ],
      [60, 99, WRITE],
    ]);
    set(1, lock(5, WRITE, 30, 69));
    assert.deepEqual(ranges(core.held(1)), [[0, 99, WRITE]]);
    set(1, lock(5, UNLOCK, 50, END));
    assert.deepEqual(ranges(core.held(1)), [[0, 49, WRITE]]);
    set(1, lock(5, UNLOCK));
    assert.equal(core.places, 0);
  });

  it('gives a lock to who waited first, and to all who can share it', () => {
    const { set, wait, log } = fixture();
    set(1, lock(5, WRITE));
    wait(2, lock(5, READ), 'a');
    wait(3, lock(5, WRITE), 'b');
    wait(4, lock(5, READ), 'c');
    set(1, lock(5, UNLOCK));
    assert.deepEqual(log, ['a ok', 'c ok']);
    set(2, lock(5, UNLOCK));
    set(4, lock(5, UNLOCK));
    assert.deepEqual(log, ['a ok', 'c ok', 'b ok']);
  });

  it('ends a wait that is cancelled, and knows a wait that is asked for again', () => {
    const { core, set, wait, log } = fixture();
    set(1, lock(5, WRITE));
    const cancelled = wait(2, lock(5, READ), 'a');
    const repeated = wait(3, lock(5, READ), 'b');
    core.set(3, lock(5, READ), repeated, (error) => log.push(`b again ${error ?? 'ok'}`));
    core.cancel(2, cancelled);
    set(1, lock(5, UNLOCK));
    core.cancel(3, repeated);
    assert.deepEqual(log, ['a EINTR', 'b again ok']);
  });

  it('finds a deadlock, over any number of owners, and only a real one', () => {
    const { set, wait, log } = fixture();
    for (const ino of [1, 2, 3]) set(ino, lock(5, WRITE, 0, END, ino));
    wait(1, lock(5, WRITE, 0, END, 2), 'a');
    wait(2, lock(5, WRITE, 0, END, 3), 'b');
    wait(4, lock(5, WRITE, 0, END, 1), 'd');
    assert.deepEqual(log, []);
    wait(3, lock(5, WRITE, 0, END, 1), 'c');
    assert.deepEqual(log, ['c EDEADLK']);
    set(3, lock(5, UNLOCK, 0, END, 3));
    assert.deepEqual(log, ['c EDEADLK', 'b ok']);
  });

  it('keeps flock apart from record locks, and gives the former lock up before it converts', () => {
    const { core, set, wait, log } = fixture();
    set(1, lock(5, WRITE));
    assert.equal(set(2, flock(5, READ)), 'ok');
    assert.equal(set(3, flock(5, READ)), 'ok');
    assert.equal(set(2, flock(5, WRITE)), 'EAGAIN');
    assert.deepEqual(core.held(2), []);
    set(2, flock(5, READ));
    wait(2, flock(5, WRITE), 'a');
    wait(3, flock(5, WRITE), 'b');
    assert.deepEqual(log, ['a ok']);
    set(2, flock(5, UNLOCK));
    assert.deepEqual(log, ['a ok', 'b ok']);
  });

  it('gives away what a session held that is over, and forgets what it waited for', () => {
    const { core, set, wait, log } = fixture();
    set(1, lock(5, WRITE));
    wait(2, lock(5, WRITE), 'a');
    wait(3, lock(5, WRITE), 'b');
    core.remove(2);
    core.remove(1);
    assert.deepEqual(log, ['b ok']);
    core.remove(3);
    assert.equal(core.places, 0);
  });

  it('remembers of a session no file in which it has nothing any more', () => {
    const { core, set, wait } = fixture();
    for (let ino = 10; ino < 20; ino++) {
      set(1, lock(5, WRITE, 0, 9, ino));
      set(1, lock(5, UNLOCK, 0, END, ino));
      set(1, lock(6, UNLOCK, 0, END, ino)); // every close(2) of a process asks for it
    }
    set(2, lock(5, WRITE));
    core.cancel(1, wait(1, lock(5, WRITE)));
    assert.equal(core.placesOf(1), 0);
    set(1, lock(5, READ, 0, 9, 10));
    set(1, lock(6, READ, 0, 9, 10));
    const waiting = wait(1, lock(7, WRITE));
    set(1, lock(5, UNLOCK, 0, 9, 10));
    assert.equal(core.placesOf(1), 2);
    core.cancel(1, waiting);
    assert.equal(core.placesOf(1), 1);
    core.remove(1);
    core.remove(2);
    assert.deepEqual([core.placesOf(1), core.places], [0, 0]);
  });

  it('takes what a session announces for the whole truth', () => {
    const { core, set, wait, log } = fixture();
    set(1, lock(5, WRITE, 0, 9));
    set(1, lock(5, WRITE, 20, 29));
    wait(2, lock(5, WRITE, 0, 9), 'a');
    core.announce(1, [lock(5, WRITE, 20, 29), lock(5, READ, 40, 49)]);
    assert.deepEqual(log, ['a ok']);
    assert.deepEqual(ranges(core.held(1)), [
      [20, 29, WRITE],
      [40, 49, READ],
    ]);
    core.announce(3, [lock(5, WRITE, 20, 29)]);
    assert.deepEqual(core.held(3), []);
  });

  it('bounds the locks of one session', () => {
    const { set } = fixture(4);
    assert.deepEqual(
      [0, 2, 4, 6].map((at) => set(1, lock(5, WRITE, at, at))),
      ['ok', 'ok', 'ok', 'ENOLCK'],
    );
    assert.equal(set(2, lock(5, WRITE, 10, 10)), 'ok');
  });

  it('lets many readers go on, and takes them over, at a cost for each that does not grow with their number', () => {
    const READERS = 500;
    const LOOKS_PER_READER_MAX = 20;
    const { core, log, set, wait } = fixture();
    let looks = 0;
    const counted = (owner: number, type: LockType): Lock =>
      Object.defineProperty(flock(owner, type), 'start', { get: () => looks++ * 0, enumerable: true });
    set(1, counted(0, WRITE));
    for (let owner = 1; owner <= READERS; owner++) wait(1, counted(owner, READ), `${owner}`);
    set(1, counted(0, UNLOCK));
    assert.deepEqual(
      log,
      Array.from({ length: READERS }, (_, at) => `${at + 1} ok`),
    );
    const next = new LockCore();
    next.announce(1, core.held(1));
    assert.equal(next.held(1).length, READERS);
    for (let owner = 1; owner <= READERS; owner++) set(1, counted(owner, UNLOCK));
    assert.deepEqual([core.places, core.held(1)], [0, []]);
    assert.ok(looks < LOOKS_PER_READER_MAX * READERS, `${looks} looks`);
  });

  it('agrees byte by byte with a table of owners', () => {
    const BYTES = 12;
    const step = fc.record({
      session: fc.integer({ min: 1, max: 3 }),
      owner: fc.integer({ min: 1, max: 2 }),
      type: fc.constantFrom(READ, WRITE, UNLOCK),
      start: fc.integer({ min: 0, max: BYTES - 1 }),
      length: fc.integer({ min: 1, max: BYTES }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { core, set } = fixture();
        const table = Array.from({ length: BYTES }, () => new Map<string, LockType>());
        for (const { session, owner, type, start, length } of steps) {
          const end = Math.min(BYTES - 1, start + length - 1);
          const cells = table.slice(start, end + 1);
          const who = `${session}/${owner}`;
          const blocked = cells.some((cell) =>
            [...cell].some(([other, held]) => other !== who && (held === WRITE || type === WRITE)),
          );
          const free = type === UNLOCK || !blocked;
          assert.equal(set(session, lock(owner, type, start, end)), free ? 'ok' : 'EAGAIN');
          if (free) for (const cell of cells) type === UNLOCK ? cell.delete(who) : cell.set(who, type);
        }
        for (const session of [1, 2, 3]) {
          const cells = table.map((cell) =>
            [...cell].filter(([who]) => who.startsWith(`${session}/`)).sort(),
          );
          const held = Array.from({ length: BYTES }, (_, at) =>
            core
              .held(session)
              .filter(({ start, end }) => start <= at && at <= end)
              .map(({ ownerLow, type }): [string, LockType] => [`${session}/${ownerLow}`, type])
              .sort(),
          );
          assert.deepEqual(held, cells);
        }
      }),
      { numRuns: 300 },
    );
  });
});
