import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { FileLayout } from '../../../client/data/api.js';
import { HoldfastError } from '../../../proto/errors.js';
import { pattern } from '../support/data-harness.js';
import { settle } from '../support/manual-clock.js';
import { caller, TestMount } from '../support/test-mount.js';

const O_RDWR = 2;
const CHUNK_BYTES = 1 << 20;
const OLD = pattern(100, 1);
const STALE = pattern(5000, 2);
const NEW = pattern(50, 3);

/** A mount, and a file of 100 bytes behind whose end another one that died has left more without having said so. */
async function left(): Promise<{ mount: TestMount; ino: number }> {
  const dead = new TestMount();
  const ino = await make(dead);
  return { mount: dead.second(), ino };
}

async function make(mount: TestMount): Promise<number> {
  const { ino, handle } = await mount.create('f');
  await mount.write(handle, 0, OLD);
  await mount.close(handle);
  await leave(mount, ino, 100);
  await leave(mount, ino, 2 * CHUNK_BYTES + 10);
  return ino;
}

async function leave(mount: TestMount, ino: number, offset: number): Promise<void> {
  const file: FileLayout = mount.meta.namespace.get(ino);
  const chunk = Math.floor(offset / CHUNK_BYTES);
  const start = offset % CHUNK_BYTES;
  await mount.chunks.write(file, chunk, start, [STALE.subarray(0, CHUNK_BYTES - start)], true);
}

const noChange = { killPriv: false };

describe('where a file grows over bytes that a mount left behind its end when it died', () => {
  type Grow = (mount: TestMount, ino: number, handle: number, to: number) => Promise<unknown>;
  const ways: [string, Grow][] = [
    [
      'ftruncate',
      (mount, ino, handle, to) => mount.fs.setattr(caller(), ino, { ...noChange, handle, size: to }),
    ],
    ['fallocate', (mount, ino, handle, to) => mount.fs.fallocate(caller(), ino, handle, 0, 0, to)],
    ['a write behind the end', (mount, _ino, handle, to) => mount.write(handle, to - 50, NEW)],
    [
      'a copy to behind the end',
      async (mount, ino, handle, to) => {
        const { ino: from, handle: source } = await mount.create(`source${to}`);
        await mount.write(source, 0, pattern(200_000, 4));
        const copied = await mount.fs.copyFileRange(
          caller(),
          { ino: from, handle: source, offset: 0 },
          { ino, handle, offset: to - 50 },
          200_000,
        );
        assert.equal(copied, 200_000);
      },
    ],
  ];
  for (const [way, grow] of ways) {
    it(`reads as zeros: ${way}`, async () => {
      const { mount, ino } = await left();
      await mount.fs.lookup(caller(), 1, Buffer.from('f'));
      const { handle } = await mount.open(ino, O_RDWR);
      for (const gap of [250, 2600, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES]) {
        const { size } = (await mount.fs.getattr(caller(), ino)).attr;
        await grow(mount, ino, handle, size + gap + 50);
        const read = await mount.read(handle, size, gap);
        assert.ok(read.equals(Buffer.alloc(gap)), `${gap} bytes from ${size}`);
      }
      await mount.fs.fsync(caller(), ino, handle, false);
      await mount.close(handle);
      const seen = await mount.second().readFile('f');
      assert.deepEqual(seen.subarray(0, 350), Buffer.concat([OLD, Buffer.alloc(250)]));
    });
  }

  it('reads as zeros: truncate of a file that is not open', async () => {
    const { mount, ino } = await left();
    await mount.fs.setattr(caller(), ino, { ...noChange, size: 3 * CHUNK_BYTES });
    assert.deepEqual([...mount.meta.opens], [], 'it is not kept open');
    const seen = await mount.second().readFile('f');
    assert.ok(seen.equals(Buffer.concat([OLD, Buffer.alloc(3 * CHUNK_BYTES - 100)])));
  });

  it('reads as zeros also when it was read before, with what lies behind the end', async () => {
    const { mount, ino } = await left();
    const { handle } = await mount.open(ino, O_RDWR);
    for (let at = 0; at < 100; at += 10) await mount.read(handle, at, 10);
    await mount.fs.setattr(caller(), ino, { ...noChange, handle, size: 1000 });
    assert.deepEqual(
      await mount.read(handle, 90, 1000),
      Buffer.concat([OLD.subarray(90), Buffer.alloc(900)]),
    );
  });

  it('is discarded on disk, once, and costs nothing where nothing can have been left', async () => {
    const { mount, ino } = await left();
    const { handle } = await mount.open(ino, O_RDWR);
    await mount.write(handle, 100, NEW);
    await mount.fs.fsync(caller(), ino, handle, false);
    assert.deepEqual(mount.chunks.punches, [], 'an append');
    await mount.write(handle, 300, NEW);
    assert.deepEqual(
      mount.chunks.punches.map(({ chunk, offset, sync }) => [chunk, offset, sync]),
      [[0, 150, true]],
    );
    mount.chunks.crash();
    await mount.write(handle, 500, NEW);
    await mount.fs.fsync(caller(), ino, handle, false).catch(() => {});
    assert.deepEqual(await mount.read(handle, 350, 150), Buffer.alloc(150));
    assert.equal(mount.chunks.punches.length, 1);
    const made = await mount.create('new');
    await mount.write(made.handle, 5000, NEW);
    await mount.fs.setattr(caller(), made.ino, { ...noChange, handle: made.handle, size: 10 * CHUNK_BYTES });
    assert.equal(mount.chunks.punches.length, 1);
  });
});

describe('what is written behind the end of a file', () => {
  it('by a mount that lives stays, while another one with the file open makes it longer', async () => {
    const { mount: one, ino } = await left();
    const two = one.second();
    const { handle } = await one.open(ino, O_RDWR);
    const { handle: other } = await two.open(ino, O_RDWR);
    await leave(one, ino, 1000); // landed, and about to be committed
    await two.fs.setattr(caller(), ino, { ...noChange, handle: other, size: 10_000 });
    assert.deepEqual(one.chunks.punches, []);
    assert.deepEqual(await one.read(handle, 1000, 5000), STALE);
  });

  it('by whoever opens the file next stays: it is let in when all that is discarded is gone', async () => {
    const { mount: one, ino } = await left();
    const two = one.second();
    const { handle } = await one.open(ino, O_RDWR);
    const release = one.chunks.hold();
    const truncated = one.fs.setattr(caller(), ino, { ...noChange, handle, size: 10_000 });
    await settle();
    assert.equal(one.chunks.punches.length, 1);
    let opened = false;
    const opening = two.open(ino, O_RDWR).then((reply) => {
      opened = true;
      return reply;
    });
    await settle();
    assert.equal(opened, false);
    release();
    const { handle: other } = await opening;
    await two.write(other, 1000, NEW);
    await truncated;
    assert.deepEqual(await one.read(handle, 1000, 50), NEW);
  });

  it('is not touched once the session is over', async () => {
    const { mount, ino } = await left();
    const { handle } = await mount.open(ino, O_RDWR);
    const { chunks, meta } = mount;
    const ranges = chunks.ranges.bind(chunks);
    chunks.ranges = async (file, chunk) => {
      const found = await ranges(file, chunk);
      meta.leaseEvents?.onSessionLost(meta.leases.lost());
      return found;
    };
    await mount.fs.setattr(caller(), ino, { ...noChange, handle, size: 10_000 });
    assert.deepEqual(chunks.punches, []);
  });

  it('fails with what the servers refuse', async () => {
    const { mount, ino } = await left();
    const { handle } = await mount.open(ino, O_RDWR);
    const { chunks } = mount;
    const { punch } = chunks;
    chunks.punch = () => Promise.reject(new HoldfastError('EIO'));
    await assert.rejects(mount.write(handle, 300, NEW), { errorName: 'EIO' });
    assert.equal((await mount.fs.getattr(caller(), ino)).attr.size, 100);
    chunks.punch = punch;
    await mount.write(handle, 300, NEW);
    assert.deepEqual(await mount.read(handle, 100, 250), Buffer.concat([Buffer.alloc(200), NEW]));
  });

  it('is what a file in memory shows, whatever was left there and however requests overtake one another', async () => {
    const small = fc.integer({ min: 0, max: 20_000 });
    const at = fc.oneof(
      small,
      small.map((bytes) => CHUNK_BYTES - 10_000 + bytes),
    );
    const length = fc.integer({ min: 1, max: 9000 });
    const step = fc.oneof(
      fc.record({ do: fc.constant('write' as const), at, length }),
      fc.record({ do: fc.constant('two writes' as const), at, length }),
      fc.record({ do: fc.constant('resize' as const), at }),
      fc.record({ do: fc.constantFrom('flush' as const, 'reopen' as const) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        const { mount, ino } = await left();
        let { handle } = await mount.open(ino, O_RDWR);
        let model = OLD;
        const resize = (size: number): void => {
          model = Buffer.concat([model.subarray(0, size), Buffer.alloc(Math.max(0, size - model.length))]);
        };
        let seed = 10;
        const write = (offset: number, bytes: number): Promise<unknown> => {
          const data = pattern(bytes, ++seed);
          resize(Math.max(model.length, offset + bytes));
          data.copy(model, offset);
          return mount.write(handle, offset, data);
        };
        for (const step of steps) {
          if (step.do === 'write') await write(step.at, step.length);
          else if (step.do === 'two writes') {
            await Promise.all([write(step.at + 10_000, step.length), write(step.at, step.length)]);
          } else if (step.do === 'resize') {
            resize(step.at);
            await mount.fs.setattr(caller(), ino, { ...noChange, handle, size: step.at });
          } else {
            await mount.fs.fsync(caller(), ino, handle, false);
            if (step.do === 'reopen') {
              await mount.close(handle);
              await leave(mount, ino, model.length);
              ({ handle } = await mount.open(ino, O_RDWR));
            }
          }
          assert.ok((await mount.read(handle, 0, model.length + 1)).equals(model), step.do);
        }
      }),
      { numRuns: 20, seed: 7 },
    );
  });
});
