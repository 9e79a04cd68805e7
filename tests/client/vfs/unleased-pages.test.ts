import assert from 'node:assert/strict';
import { wholePages } from '../../../client/vfs/unleased-pages.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { LeaseMode } from '../../../proto/gen/meta.js';
import { settle } from '../support/manual-clock.js';
import { boundTo } from '../support/stand-in-kernel.js';
import { caller, TestMount } from '../support/test-mount.js';

const [ROOT_USER, O_RDONLY, O_RDWR, O_APPEND, PAGE] = [0, 0, 2, 0o2000, 4096];
const OLD = Buffer.alloc(4 * PAGE, 'o');
const NEW = Buffer.from('new');

/** What the kernel was told to drop: inode, offset and length. */
type Drop = [ino: number, offset: number, length: number];

/**
 * A file of two mounts, open through the page cache of the first one since before the second one had it.
 * @param shared false: the second one does not open it, and the first one leases it
 */
async function readers(shared = true) {
  const one = new TestMount();
  const two = one.second();
  const drops: Drop[] = [];
  const gates: Deferred<void>[] = [];
  let gated = false;
  const invalidateInode = (...drop: Drop): Promise<void> => {
    drops.push(drop);
    if (!gated) return Promise.resolve();
    const gate = deferred<void>();
    gates.push(gate);
    return gate.promise;
  };
  await one.fs.init(boundTo({ invalidateInode }));
  const { handle, ino } = await one.create('f');
  await one.write(handle, 0, OLD);
  if (shared) {
    const { handle: other } = await two.open(ino, O_RDWR);
    await two.write(other, 0, NEW);
    await one.write(handle, 0, NEW);
    assert.equal(one.meta.leases.mode(ino, one.clock.now()), LeaseMode.LEASE_NONE);
  }
  drops.length = 0;
  const gate = (): void => {
    gated = true;
  };
  return { one, handle, ino, drops, gates, gate };
}

const chmod = (mount: TestMount, ino: number): Promise<unknown> =>
  mount.fs.setattr({ ...caller(), uid: ROOT_USER }, ino, { mode: 0o600, killPriv: false });

describe('pages that were read without a lease', () => {
  it('are dropped before a change made here is answered: once, and only where there may be some', async () => {
    const { one, handle, ino, drops } = await readers();
    await chmod(one, ino);
    assert.deepEqual(drops, []);
    await one.read(handle, 0, 10);
    await chmod(one, ino);
    await chmod(one, ino);
    assert.deepEqual(drops, [[ino, 0, 0]]);
    await one.read(handle, 0, 10);
    await one.fs.fallocate(caller(), ino, handle, 0, 0, PAGE);
    assert.deepEqual(drops.splice(0).length, 2);
    const { handle: appends } = await one.open(ino, O_RDWR | O_APPEND);
    await one.read(handle, 0, 10);
    drops.length = 0;
    await one.write(appends, 0, NEW, O_APPEND);
    assert.deepEqual(drops[0], [ino, 0, 0]);
  });

  it('hold the answer to the change up until they are gone, and that to a question for the attributes', async () => {
    const { one, handle, ino, drops, gates, gate } = await readers();
    await one.read(handle, 0, 10);
    gate();
    const answered: string[] = [];
    const change = chmod(one, ino).then(() => answered.push('change'));
    await settle();
    const question = one.fs.getattr(caller(), ino).then(() => answered.push('question'));
    await settle();
    assert.deepEqual([drops, answered], [[[ino, 0, 0]], []]);
    gates[0]?.resolve();
    await Promise.all([change, question]);
  });

  it('are dropped before the kernel is told attributes during a change of the size: it takes none then', async () => {
    const { one, handle, ino, drops } = await readers();
    await one.read(handle, 0, 10);
    await one.fs.getattr(caller(), ino);
    assert.deepEqual(drops, []);
    const release = one.meta.hold();
    const cut = one.fs.setattr(caller(), ino, { size: PAGE, killPriv: false });
    const question = one.fs.getattr(caller(), ino);
    await settle();
    assert.deepEqual(drops, [[ino, 0, 0]]);
    release();
    await Promise.all([cut, question]);
    assert.equal(drops.length, 1, 'there are none since');
  });

  it('are none under a lease, nor where all descriptions pass the page cache by', async () => {
    const leased = await readers(false);
    await leased.one.read(leased.handle, 0, 10);
    await chmod(leased.one, leased.ino);
    assert.deepEqual(leased.drops, []);
    const { one, handle, ino, drops } = await readers();
    const { handle: direct, directIo } = await one.open(ino, O_RDONLY);
    assert.equal(directIo, true);
    await one.read(handle, 0, 10);
    await one.close(handle);
    await one.read(direct, 0, 10);
    await chmod(one, ino);
    assert.deepEqual(drops, []);
  });

  it('are dropped before a write through the page cache is answered, but for those that it may have locked', async () => {
    const { one, handle, ino, drops, gates, gate } = await readers();
    await one.read(handle, 0, PAGE);
    await one.write(handle, 2 * PAGE + 5, NEW);
    assert.deepEqual(drops.splice(0), [
      [ino, 3 * PAGE, 0],
      [ino, 0, 2 * PAGE],
    ]);
    await one.read(handle, 0, PAGE);
    gate();
    let answered = false;
    const written = one.write(handle, 5, NEW).then(() => {
      answered = true;
    });
    await settle();
    assert.deepEqual(drops, [
      [ino, PAGE, 0],
      [ino, 0, PAGE],
    ]);
    gates[0]?.resolve();
    await settle();
    assert.equal(answered, false, 'the page that was read is its own, and is most probably not locked');
    await one.clock.advance(10);
    await written;
  });

  it('are those that a write has filled as a whole, too', async () => {
    const { one, handle, ino, drops } = await readers();
    await one.write(handle, 0, OLD.subarray(0, PAGE));
    assert.deepEqual(drops, []);
    await chmod(one, ino);
    assert.deepEqual(drops, [[ino, 0, 0]]);
    assert.deepEqual(wholePages({ from: 1, to: 3 * PAGE + 1 }), { from: PAGE, to: 3 * PAGE });
    await one.write(handle, 1, OLD.subarray(0, PAGE));
    await chmod(one, ino);
    assert.equal(drops.length, 1);
  });
});
