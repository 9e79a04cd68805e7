import assert from 'node:assert/strict';
import { Call } from '../../../../client/fuse/kernel/call.js';
import { Opcode } from '../../../../client/fuse/kernel/protocol.js';
import {
  RUN_FOR_NS,
  TAKEN_IN_MAX_MS,
  TakenIn,
  THREADS_MAX,
  type ThreadState,
  UNSEEN_TAKEN_IN_MAX_MS,
} from '../../../../client/fuse/kernel/taken-in.js';
import { threadState } from '../../../../client/fuse/kernel/thread-state.js';
import { ManualClock } from '../../support/manual-clock.js';

const [DIR, FILE, OTHER] = [10, 11, 12];
const [ONE, TWO, UNKNOWN] = [501, 502, 0];
const entry = (ino: number, ttlMs = 1000): unknown => ({
  attr: { ino },
  entryTtlMs: ttlMs,
  attrTtlMs: ttlMs,
});

describe('what the kernel has been answered, and may not believe yet', () => {
  let clock: ManualClock;
  let threads: Map<number, ThreadState>;
  let takenIn: TakenIn;

  const call = (opcode: number, ino: number, pid: number): Call =>
    new Call({ opcode, ino, pid, uid: 0, gid: 0, unique: 1, length: 40 });
  const lookup = (pid = ONE, ttlMs?: number): void =>
    takenIn.answering(call(Opcode.LOOKUP, DIR, pid), entry(FILE, ttlMs));

  /** Whether the inode is waited for, and for how long. */
  async function waited(ino: number, during: () => void = () => undefined): Promise<number> {
    const since = clock.now();
    let ended: number | undefined;
    const wait = takenIn.of(ino);
    void wait?.then(() => {
      ended = clock.now();
    });
    if (!wait) return 0;
    during();
    for (let ms = 0; ended === undefined && ms < 2 * TAKEN_IN_MAX_MS; ms++) await clock.advance(1);
    return (ended ?? Number.POSITIVE_INFINITY) - since;
  }

  beforeEach(() => {
    clock = new ManualClock();
    threads = new Map([ONE, TWO].map((thread) => [thread, { ranNs: 5_000_000 }]));
    takenIn = new TakenIn(clock, (thread) => threads.get(thread));
  });

  it('is waited for, of the inode and of the directory that its name is in', async () => {
    lookup();
    assert.equal(await waited(OTHER), 0);
    assert.equal(await waited(FILE), TAKEN_IN_MAX_MS);
    lookup();
    assert.equal(await waited(DIR), TAKEN_IN_MAX_MS);
  });

  it('tells whether a listing is among it', () => {
    lookup();
    assert.equal(takenIn.hasListing(), false);
    takenIn.answering(call(Opcode.READDIRPLUS, OTHER, TWO), {});
    assert.equal(takenIn.hasListing(), true);
    threads.set(TWO, 'asleep');
    assert.equal(takenIn.hasListing(), false);
  });

  it('counts as taken in when its thread makes the next request', async () => {
    lookup();
    assert.equal(await waited(FILE, () => takenIn.asked({ pid: TWO })), TAKEN_IN_MAX_MS);
    lookup();
    assert.equal(await waited(FILE, () => takenIn.asked({ pid: ONE })), 1);
    assert.equal(await waited(FILE), 0);
  });

  it('counts as taken in when its thread sleeps, has ended or has run for long enough', async () => {
    for (const state of ['asleep', 'gone'] as const) {
      threads.set(ONE, { ranNs: 0 });
      lookup();
      assert.equal(await waited(FILE, () => threads.set(ONE, state)), 1);
      lookup();
      assert.equal(await waited(FILE), 0);
    }
    threads.set(ONE, { ranNs: 7_000_000 });
    lookup();
    assert.equal(await waited(FILE, () => threads.set(ONE, { ranNs: 7_000_000 + RUN_FOR_NS })), 1);
  });

  it('is waited for only by who asks behind the answer, and no longer than the bound', async () => {
    lookup(ONE);
    assert.equal(
      await waited(FILE, () => {
        takenIn.asked({ pid: ONE });
        clock.advance(1).then(() => lookup(TWO));
      }),
      1,
    );
    lookup(ONE);
    await clock.advance(TAKEN_IN_MAX_MS);
    assert.equal(await waited(FILE), 0);
  });

  it('is all that makes or changes an inode, or lists it, unless nothing of it may be believed', async () => {
    for (const opcode of [Opcode.MKDIR, Opcode.MKNOD, Opcode.SYMLINK, Opcode.LINK]) {
      takenIn.answering(call(opcode, DIR, ONE), entry(FILE));
      assert.ok((await waited(FILE)) > 0);
    }
    takenIn.answering(call(Opcode.CREATE, DIR, ONE), { handle: 1, entry: entry(FILE) });
    assert.ok((await waited(FILE)) > 0);
    takenIn.answering(call(Opcode.SETATTR, FILE, ONE), { attr: { ino: FILE }, ttlMs: 5 });
    assert.ok((await waited(FILE)) > 0);
    takenIn.answering(call(Opcode.READDIRPLUS, OTHER, ONE), [Buffer.alloc(0)]);
    assert.ok((await waited(FILE)) > 0);
    takenIn.answering(call(Opcode.SETATTR, FILE, ONE), { attr: { ino: FILE }, ttlMs: 0 });
    lookup(ONE, 0);
    takenIn.answering(call(Opcode.GETATTR, FILE, ONE), { attr: { ino: FILE }, ttlMs: 5 });
    assert.equal(await waited(FILE), 0);
  });

  it('is waited for a moment where the thread cannot be seen', async () => {
    lookup(UNKNOWN);
    takenIn.asked({ pid: UNKNOWN });
    assert.equal(await waited(OTHER), UNSEEN_TAKEN_IN_MAX_MS);
    threads.clear();
    lookup(ONE);
    assert.equal(await waited(FILE), UNSEEN_TAKEN_IN_MAX_MS);
  });

  it('is remembered of a bounded number of threads', async () => {
    lookup(ONE);
    for (let n = 0; n < THREADS_MAX; n++) takenIn.answering(call(Opcode.LOOKUP, DIR, 1000 + n), entry(OTHER));
    assert.equal(await waited(FILE), 0);
  });

  it('is not forgotten for the sake of threads that are behind their answers', async () => {
    lookup(ONE);
    for (let n = 0; n < 2 * THREADS_MAX; n++) {
      takenIn.answering(call(Opcode.LOOKUP, DIR, 1000 + n), entry(OTHER));
      takenIn.asked({ pid: 1000 + n });
    }
    assert.equal(await waited(FILE), TAKEN_IN_MAX_MS);
  });

  it('is what a thread was answered last', async () => {
    lookup(ONE);
    takenIn.asked({ pid: ONE });
    assert.equal(await waited(FILE), 0);
    await clock.advance(5);
    lookup(ONE);
    assert.equal(await waited(FILE), TAKEN_IN_MAX_MS);
  });
});

describe('the state of a thread', () => {
  const stat = (state: string): string => `501 (a) b) ${state} 1 2 3`;
  const of = (files: Record<string, string>): ThreadState | undefined =>
    threadState((file) => {
      const text = files[file];
      if (text === undefined) throw Object.assign(new Error(file), { code: 'ENOENT' });
      return text;
    });

  it('is told by proc(5)', () => {
    assert.equal(of({}), 'gone');
    assert.equal(of({ stat: stat('Z'), wchan: '0' }), 'gone');
    assert.equal(of({ stat: stat('S'), wchan: 'pipe_read' }), 'asleep');
    assert.deepEqual(of({ stat: stat('R'), wchan: '0', schedstat: '77 2 3\n' }), { ranNs: 77 });
  });

  it('is no sleep while it is on a queue of a processor, nor when it waits for a page', () => {
    assert.deepEqual(of({ stat: stat('S'), wchan: '0', schedstat: '77 2 3' }), { ranNs: 77 });
    assert.deepEqual(of({ stat: stat('D'), wchan: 'folio_wait_bit', schedstat: '77 2 3' }), { ranNs: 77 });
  });

  it('is not known where it may not be read', () => {
    const denied = (): string => {
      throw Object.assign(new Error('stat'), { code: 'EACCES' });
    };
    assert.equal(threadState(denied), undefined);
  });
});
