import assert from 'node:assert/strict';
import { HoldfastError } from '../../../proto/errors.js';
import { pattern } from '../support/data-harness.js';
import { caller, TestMount } from '../support/test-mount.js';

const O_RDWR = 2;
const O_APPEND = 0o2000;
const OWNER = 77n;
const ALL = { start: 0, end: Number.MAX_SAFE_INTEGER, pid: 1 };

const isEio = (error: unknown) => error instanceof HoldfastError && error.errorName === 'EIO';

/** The session ends as when the server says so. */
function loseSession({ meta }: TestMount): void {
  meta.locks.sessionLost();
  meta.leaseEvents?.onSessionLost(meta.leases.lost());
}

async function locked(flock: boolean) {
  const mount = new TestMount();
  const { handle, ino } = await mount.create('f');
  await mount.write(handle, 0, pattern(100, 1));
  await mount.close(handle);
  await mount.fs.fsyncdir(caller(), 1, 0, false);
  const { handle: holder } = await mount.open(ino, O_RDWR);
  const { handle: other } = await mount.open(ino, O_RDWR);
  const options = { wait: false, flock };
  const set = (type: 'write' | 'unlock') =>
    mount.fs.setlk(caller(), ino, holder, OWNER, { ...ALL, type }, options);
  await set('write');
  return { mount, ino, holder, other, set };
}

describe('a lock that went with the session', () => {
  for (const flock of [true, false]) {
    const kind = flock ? 'flock' : 'fcntl';

    it(`ends reads and writes through its handle until it is given up (${kind})`, async () => {
      const { mount, ino, holder, other, set } = await locked(flock);
      const read = (handle: number) => mount.fs.read(caller(), ino, handle, 0, 10);
      await read(holder);
      loseSession(mount);
      const change = { size: 5, handle: holder };
      const calls = [
        () => read(holder),
        () => mount.write(holder, 0, pattern(10, 2)),
        () => mount.fs.fallocate(caller(), ino, holder, 0, 0, 500),
        () => mount.fs.setattr(caller(), ino, change),
        () =>
          mount.fs.copyFileRange(
            caller(),
            { ino, handle: other, offset: 0 },
            { ino, handle: holder, offset: 50 },
            10,
          ),
      ];
      for (const call of calls) await assert.rejects(call, isEio);
      await set('write');
      for (const call of calls) await assert.rejects(call, isEio);
      await read(other);
      await mount.write(other, 0, pattern(10, 3));
      await set('unlock');
      for (const call of calls) await call();
    });

    it(`does not end what has not been locked through (${kind})`, async () => {
      const { mount, ino, holder } = await locked(flock);
      loseSession(mount);
      await mount.fs.flush(caller(), ino, holder, OWNER);
      await mount.fs.release(ino, holder, 0, OWNER);
      const { handle } = await mount.open(ino, O_RDWR);
      await mount.write(handle, 0, pattern(10, 2));
    });
  }

  it('ends appends too, but not what the kernel writes back of a mapping', async () => {
    const { mount, ino } = await locked(true);
    const { handle } = await mount.open(ino, O_RDWR | O_APPEND);
    const options = { wait: false, flock: true };
    await mount.fs.setlk(caller(), ino, handle, OWNER + 1n, { ...ALL, type: 'write' }, options);
    loseSession(mount);
    const request = { handle, offset: 0, data: pattern(10, 1), killPriv: false, flags: O_RDWR | O_APPEND };
    await assert.rejects(mount.fs.write(caller(), ino, { ...request, fromCache: false }), isEio);
    assert.equal(await mount.fs.write(caller(), ino, { ...request, fromCache: true }), 10);
  });

  it('ends a write that waited for the servers when the session ended', async () => {
    const { mount, holder } = await locked(true);
    mount.meta.granting = false;
    mount.meta.leaseEvents?.onSessionLost(mount.meta.leases.lost());
    const release = mount.meta.hold();
    const refused = assert.rejects(mount.write(holder, 0, pattern(10, 2)), isEio);
    mount.meta.locks.sessionLost();
    release();
    await refused;
    assert.deepEqual(await mount.readFile('f'), pattern(100, 1));
  });
});
