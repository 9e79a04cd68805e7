import assert from 'node:assert/strict';
import type { BindingInfo, Caller, Entry, FileSystem } from '../../../../client/fuse/binding.js';
import type { BusyPoll } from '../../../../client/fuse/kernel/busy-poll.js';
import { GIVE_AWAY_MIN_BYTES } from '../../../../client/fuse/kernel/call.js';
import { defaultProtocolOptions, MAX_WRITE_BYTES } from '../../../../client/fuse/kernel/init.js';
import { Interrupts, type Signals } from '../../../../client/fuse/kernel/interrupts.js';
import { MAX_IN_FLIGHT_REQUESTS, MAX_LOCK_WAITS, Session } from '../../../../client/fuse/kernel/session.js';
import { TakenIn } from '../../../../client/fuse/kernel/taken-in.js';
import type { Interrupt } from '../../../../client/wait.js';
import { deferred } from '../../../../common/deferred.js';
import { type Logger, silentLogger } from '../../../../common/logger.js';
import { HoldfastError } from '../../../../proto/errors.js';
import { ManualClock } from '../../support/manual-clock.js';
import { ATTR, ENTRY, EXCHANGES, INO, UNIQUE } from './exchanges.js';
import { FakeDevice, systemError } from './fake-device.js';
import { GOLDEN_REPLIES, GOLDEN_REQUESTS } from './golden.js';

type Polls = Pick<BusyPoll, 'answered' | 'arrived'>;

interface Call {
  method: string;
  args: unknown[];
}

const KILLED: Signals = { pending: 1n << 8n, blocked: 0n, ignored: 0n, caught: 0n };

/** Answers methods from a table, records the calls. A method that is not in the table is absent. */
function fakeFs(answers: Record<string, (...args: never[]) => unknown>): { fs: FileSystem; calls: Call[] } {
  const calls: Call[] = [];
  const fs = new Proxy({} as FileSystem, {
    get(_target, key) {
      const answer = typeof key === 'string' ? answers[key] : undefined;
      if (!answer) return undefined;
      return async (...args: never[]) => {
        calls.push({ method: String(key), args });
        return answer(...args);
      };
    },
  });
  return { fs, calls };
}

const INFO: BindingInfo = {
  kind: 'kernel',
  maxWrite: MAX_WRITE_BYTES,
  callerIdentity: true,
  nanoseconds: true,
};

function startSession(fs: FileSystem, readers = 2, log: Logger = silentLogger, busyPoll?: Polls) {
  const device = new FakeDevice();
  const session = new Session({
    fs,
    device,
    log,
    protocol: defaultProtocolOptions(true),
    readers,
    info: INFO,
    interrupts: new Interrupts(new ManualClock(), () => KILLED),
    takenIn: new TakenIn(new ManualClock(), () => undefined),
    busyPoll,
  });
  session.start();
  return { device, session };
}

/** Lets settled promises run their continuations. */
async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

/** A session behind its INIT. */
async function connect(answers: Record<string, (...args: never[]) => unknown>) {
  const { fs, calls } = fakeFs(answers);
  const { device, session } = startSession(fs);
  device.push(GOLDEN_REQUESTS.init);
  await session.ready.promise;
  device.replies.length = 0;
  return { device, session, calls };
}

function withUnique(request: Buffer, unique: number): Buffer {
  const copy = Buffer.from(request);
  copy.writeBigUInt64LE(BigInt(unique), 8);
  return copy;
}

function writeRequest(size: number, unique: number): Buffer {
  const request = Buffer.alloc(80 + size, 7);
  GOLDEN_REQUESTS.write.copy(request, 0, 0, 80);
  request.writeUInt32LE(request.length, 0);
  request.writeUInt32LE(size, 56);
  return withUnique(request, unique);
}

describe('a FUSE session', () => {
  for (const [request, method, args, answer, body] of EXCHANGES) {
    it(`decodes ${request} and encodes its answer as the kernel lays them out`, async () => {
      const { device, calls } = await connect({ [method]: () => answer });
      device.push(GOLDEN_REQUESTS[request]);
      await turn();
      const [call] = calls;
      const hasCaller = method !== 'release';
      if (hasCaller) {
        const { uid, gid, pid } = call!.args[0] as Caller;
        assert.deepEqual({ uid, gid, pid }, { uid: 1000, gid: 2000, pid: 4242 });
      }
      assert.equal(call!.method, method);
      assert.deepEqual(hasCaller ? call!.args.slice(1) : call!.args, args);
      assert.deepEqual(device.replies, [{ error: 0, unique: UNIQUE, body }]);
    });
  }

  it('says ENODATA where there is no extended attribute', async () => {
    const { device } = await connect({ getxattr: () => undefined });
    device.push(GOLDEN_REQUESTS.getxattr);
    await turn();
    assert.deepEqual(device.replies, [{ error: -61, unique: UNIQUE, body: Buffer.alloc(0) }]);
  });

  it('answers INIT with what both sides have, after the file system is ready', async () => {
    const ready = deferred<void>();
    const { fs, calls } = fakeFs({ init: () => ready.promise });
    const { device, session } = startSession(fs);
    device.push(GOLDEN_REQUESTS.init);
    await turn();
    assert.deepEqual([calls.length, device.replies.length], [1, 0]);
    ready.resolve();
    await session.ready.promise;
    const [reply] = device.replies;
    assert.equal(reply!.body.length, 64);
    const flags = reply!.body.readUInt32LE(12);
    // WRITEBACK_CACHE (1 << 16) and EXPLICIT_INVAL_DATA (1 << 25) would break what mounts see of each other.
    assert.deepEqual(
      [1 << 20, 1 << 16, 1 << 25, 1 << 1, 1 << 10].map((bit) => (flags & bit) !== 0),
      [true, false, false, true, true],
    );
  });

  it('refuses a kernel that is too old', async () => {
    const { device, session } = startSession(fakeFs({}).fs);
    const old = Buffer.from(GOLDEN_REQUESTS.init);
    old.writeUInt32LE(27, 44);
    device.push(old);
    await assert.rejects(session.ready.promise, /too old/);
    assert.equal(device.replies[0]!.error, -71);
  });

  it('rejects when the file system cannot start', async () => {
    const { fs } = fakeFs({ init: () => Promise.reject(new HoldfastError('ETIMEDOUT')) });
    const { device, session } = startSession(fs);
    device.push(GOLDEN_REQUESTS.init);
    await assert.rejects(session.ready.promise, /timed out/);
    assert.equal(device.replies[0]!.error, -110);
  });

  it('replies before it reads on when the file system answers at once', async () => {
    const refuse = (error: Error) => (): never => {
      throw error;
    };
    const fs: Partial<FileSystem> = {
      lookup: () => ENTRY,
      flush: () => undefined,
      mkdir: refuse(new HoldfastError('EEXIST')),
      symlink: refuse(new Error('a bug')),
    };
    const { device, session } = startSession(fs as FileSystem);
    device.push(GOLDEN_REQUESTS.init);
    await session.ready.promise;
    device.replies.length = 0;
    for (const name of ['lookup', 'flush', 'mkdir', 'symlink'] as const) {
      device.push(GOLDEN_REQUESTS[name]);
      assert.equal(session.pending, 0, name);
      await turn();
    }
    assert.deepEqual(
      device.replies.map(({ error, body }) => [error, body]),
      [
        [0, GOLDEN_REPLIES.entry],
        [0, Buffer.alloc(0)],
        [-17, Buffer.alloc(0)],
        [-5, Buffer.alloc(0)],
      ],
    );
  });

  it('answers other ioctls with ENOSYS, which the kernel says as ENOTTY, and projects with EOPNOTSUPP', async () => {
    const { device, calls } = await connect({ getFlags: () => 0, setFlags: () => undefined });
    device.push(GOLDEN_REQUESTS.otherIoctl);
    device.push(GOLDEN_REQUESTS.setProject);
    await turn();
    assert.deepEqual(calls, []);
    assert.deepEqual(
      device.replies.map((reply) => reply.error),
      [-38, -95],
    );
  });

  it('tells errnos, EIO for what is no HoldfastError, ENOSYS for what is not there', async () => {
    const logged: string[] = [];
    const log = { ...silentLogger, error: (_fields: object, message: string) => void logged.push(message) };
    const { fs } = fakeFs({
      lookup: () => Promise.reject(new HoldfastError('ENOENT')),
      mkdir: () => Promise.reject(new HoldfastError('NOT_LEADER')),
      readlink: () => Promise.reject(new Error('a bug')),
    });
    const { device, session } = startSession(fs, 2, log as Logger);
    device.push(GOLDEN_REQUESTS.init);
    await session.ready.promise;
    device.replies.length = 0;
    const readlink = Buffer.from(GOLDEN_REQUESTS.lookup);
    readlink.writeUInt32LE(5, 4);
    const unknown = Buffer.from(GOLDEN_REQUESTS.lookup);
    unknown.writeUInt32LE(4000, 4);
    const requests = [
      GOLDEN_REQUESTS.lookup,
      GOLDEN_REQUESTS.mkdir,
      readlink,
      unknown,
      GOLDEN_REQUESTS.fallocate,
    ];
    for (const request of requests) {
      device.push(request);
      await turn();
    }
    assert.deepEqual(
      device.replies.map(({ error }) => error),
      [-2, -5, -5, -38, -38],
    );
    assert.deepEqual(logged, ['a request failed unexpectedly']);
  });

  it('answers a malformed request with EIO and goes on', async () => {
    const { device } = await connect({ lookup: () => ENTRY });
    device.push(GOLDEN_REQUESTS.lookup.subarray(0, 43));
    device.push(GOLDEN_REQUESTS.lookup);
    await turn();
    assert.deepEqual(
      device.replies.map(({ error }) => error),
      [-5, 0],
    );
  });

  it('aborts the signal of an interrupted request whose process is dying, and has an interrupt sent again that came too early', async () => {
    const answer = deferred<Entry>();
    const signals: Interrupt[] = [];
    const { device } = await connect({
      lookup: (caller: Caller) => {
        signals.push(caller.signal);
        return answer.promise;
      },
    });
    const early = withUnique(GOLDEN_REQUESTS.interrupt, UNIQUE + 1);
    device.push(early);
    assert.deepEqual(device.replies, [{ error: -11, unique: UNIQUE + 1, body: Buffer.alloc(0) }]);
    device.push(GOLDEN_REQUESTS.lookup);
    await turn();
    device.push(early);
    assert.equal(signals[0]!.aborted, true);
    answer.reject(new HoldfastError('EINTR'));
    await turn();
    assert.deepEqual(
      device.replies.map(({ error }) => error),
      [-11, -4],
    );
  });

  it('gives forgets to the file system and answers none', async () => {
    const { device, calls } = await connect({ forget: () => undefined });
    device.push(GOLDEN_REQUESTS.forget);
    device.push(GOLDEN_REQUESTS.batchForget);
    assert.deepEqual(
      calls.map(({ args }) => args),
      [
        [INO, 0x1_0000_0003],
        [5, 1],
        [6, 0x1_0000_0000],
      ],
    );
    assert.equal(device.replies.length, 0);
  });

  it('gives large data away without a copy, and keeps small data whole when its buffer is used again', async () => {
    const taken: Buffer[] = [];
    const { device } = await connect({
      write: (_caller: Caller, _ino: number, { data }: { data: Buffer }) => {
        taken.push(data);
        return data.length;
      },
    });
    const sizes = [MAX_WRITE_BYTES, GIVE_AWAY_MIN_BYTES, GIVE_AWAY_MIN_BYTES - 1, 1, MAX_WRITE_BYTES, 1];
    for (const [index, size] of sizes.entries()) device.push(writeRequest(size, index + 10));
    await turn();
    assert.deepEqual(
      taken.map((data) => data.length),
      sizes,
    );
    assert.ok(taken.every((data) => data.every((byte) => byte === 7)));
    // A slice of a read buffer has the request's headers before it.
    assert.deepEqual(
      taken.map((data) => data.buffer.byteLength > MAX_WRITE_BYTES),
      [true, true, false, false, true, false],
    );
    assert.equal(new Set(taken.map((data) => data.buffer)).size >= 3, true);
  });

  it('fills a listing to its size and gives back the lookups of what found no room', async () => {
    const entries = Array.from({ length: 40 }, (_, i) => ({
      name: Buffer.from(`a name of some length ${i}`),
      ino: 100 + i,
      type: 8,
      cookie: i + 1,
      entry: { ...ENTRY, attr: { ...ATTR, ino: 100 + i } },
    }));
    const { device, calls } = await connect({ readdir: () => entries, forget: () => undefined });
    const plus = Buffer.from(GOLDEN_REQUESTS.readdir);
    plus.writeUInt32LE(44, 4);
    device.push(plus);
    await turn();
    const { body } = device.replies[0]!;
    const recordBytes = 128 + 24 + 24;
    assert.equal(body.length, Math.floor(4096 / recordBytes) * recordBytes);
    const forgotten = calls.filter(({ method }) => method === 'forget').map(({ args }) => args[0]);
    assert.deepEqual(
      forgotten,
      entries.slice(body.length / recordBytes).map(({ ino }) => ino),
    );
  });

  it('lays out a listing with attributes as the kernel does', async () => {
    const entry = { name: Buffer.from('abcdefghi'), ino: 7, type: 8, cookie: 8, entry: ENTRY };
    const { device } = await connect({ readdir: () => [entry] });
    const plus = Buffer.from(GOLDEN_REQUESTS.readdir);
    plus.writeUInt32LE(44, 4);
    device.push(plus);
    await turn();
    assert.deepEqual(device.replies[0]!.body, GOLDEN_REPLIES.direntplus);
  });

  it('stops reading when too much is in flight, and goes on when answers go out', async () => {
    const answers: (() => void)[] = [];
    const { device, session } = await connect({
      lookup: () => new Promise<Entry>((resolve) => answers.push(() => resolve(ENTRY))),
    });
    for (let i = 0; i < MAX_IN_FLIGHT_REQUESTS; i++) {
      device.push(withUnique(GOLDEN_REQUESTS.lookup, (i + 1) * 2));
    }
    await turn();
    // One reader was waiting before the limit was reached.
    assert.deepEqual([device.waitingReaders, session.pending], [1, MAX_IN_FLIGHT_REQUESTS]);
    answers[0]!();
    await turn();
    assert.equal(device.waitingReaders, 2);
  });

  it('reads on while requests wait for locks, for one to unlock must come through, and refuses too many of them', async () => {
    const { device, session } = await connect({
      setlk: () => new Promise<void>(() => {}),
      lookup: () => ENTRY,
    });
    for (let i = 1; i <= MAX_LOCK_WAITS; i++) device.push(withUnique(GOLDEN_REQUESTS.setlkw, i * 2));
    await turn();
    assert.deepEqual([device.waitingReaders, session.pending], [2, MAX_LOCK_WAITS]);
    device.push(withUnique(GOLDEN_REQUESTS.setlkw, MAX_LOCK_WAITS * 2 + 2));
    device.push(withUnique(GOLDEN_REQUESTS.lookup, MAX_LOCK_WAITS * 2 + 4));
    await turn();
    const ENOLCK = 37;
    assert.deepEqual(
      device.replies.map(({ error }) => error),
      [-ENOLCK, 0],
    );
  });

  it('lets a vanished request go, and tells EIO when the kernel refuses a reply', async () => {
    const { device } = await connect({ lookup: () => ENTRY });
    device.replyErrors.push(systemError('ENOENT'));
    device.push(GOLDEN_REQUESTS.lookup);
    await turn();
    assert.equal(device.replies.length, 0);
    device.replyErrors.push(systemError('EINVAL'));
    device.push(GOLDEN_REQUESTS.lookup);
    await turn();
    assert.deepEqual(
      device.replies.map(({ error }) => error),
      [-5],
    );
  });

  it('ends when the device says so, interrupts what waits, and answers nothing more', async () => {
    const answer = deferred<Entry>();
    const signals: Interrupt[] = [];
    const { device, session } = await connect({
      lookup: (caller: Caller) => {
        signals.push(caller.signal);
        return answer.promise;
      },
    });
    device.push(GOLDEN_REQUESTS.lookup);
    await turn();
    device.fail('EINTR');
    device.fail('ENODEV');
    device.fail('ENODEV');
    await session.ended.promise;
    assert.equal(signals[0]!.aborted, true);
    answer.resolve(ENTRY);
    await turn();
    assert.deepEqual([device.replies.length, device.waitingReaders, session.pending], [0, 0, 0]);
  });

  it('polls for the next request behind an answer given at once, unless others wait for theirs', async () => {
    const slow = deferred<void>();
    const fs = { fsync: () => slow.promise, flush: () => undefined } as unknown as FileSystem;
    let polls = 0;
    const busyPoll = { answered: () => polls++, arrived() {} };
    const { device, session } = startSession(fs, 2, silentLogger, busyPoll);
    device.push(GOLDEN_REQUESTS.init);
    await session.ready.promise;
    polls = 0;
    device.push(withUnique(GOLDEN_REQUESTS.fsync, 1));
    device.push(withUnique(GOLDEN_REQUESTS.flush, 2));
    await turn();
    assert.deepEqual([device.replies.at(-1)?.unique, polls], [2, 0]);
    slow.resolve();
    await turn();
    assert.deepEqual([device.replies.at(-1)?.unique, polls], [1, 0]);
    device.push(withUnique(GOLDEN_REQUESTS.flush, 3));
    assert.deepEqual([device.replies.at(-1)?.unique, polls], [3, 1]);
  });
});
