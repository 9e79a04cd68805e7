import assert from 'node:assert/strict';
import { DENSE_READS_MIN } from '../../../client/data/reader.js';
import type { Notifier } from '../../../client/fuse/binding.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { pattern } from '../support/data-harness.js';
import { settle } from '../support/manual-clock.js';
import { boundTo } from '../support/stand-in-kernel.js';
import { caller, TestMount } from '../support/test-mount.js';

const O_RDWR = 2;
const KIB = 1024;
const BYTES = 1024 * KIB + 3 * 4096 + 100;

/** A kernel that notes what it is told, and whose stores end when the test says so. */
class Kernel implements Notifier {
  readonly log: string[] = [];
  readonly stored: { offset: number; data: Buffer }[] = [];
  gate: Deferred<void> | undefined;

  async storePages(_ino: number, offset: number, data: Buffer): Promise<void> {
    this.stored.push({ offset, data: Buffer.from(data) });
    await this.gate?.promise;
    this.log.push('stored');
  }

  async invalidateInode(_ino: number, offset: number, _length: number): Promise<void> {
    if (offset === 0) this.log.push('invalidated');
  }

  async invalidateEntry(): Promise<void> {}
  async expireEntry(): Promise<void> {}
  async deleteEntry(): Promise<void> {}
  forgetNames = (): boolean => true;
}

interface Reading {
  mount: TestMount;
  writer: TestMount;
  kernel: Kernel;
  ino: number;
  /** So many small reads of the file's block, through a description of their own. */
  reads(count: number, block?: number): Promise<void>;
}

/** A file that one mount has written, and another mount that reads it. */
async function reading(): Promise<Reading> {
  const writer = new TestMount();
  const { handle, ino } = await writer.create('f');
  await writer.write(handle, 0, pattern(BYTES, 1));
  await writer.close(handle);
  const mount = writer.second();
  const kernel = new Kernel();
  await mount.fs.init({ ...boundTo(), notify: kernel });
  await mount.fs.lookup(caller(), 1, Buffer.from('f'));
  const reader = await mount.open(ino, 0);
  const reads = async (count: number, block = 0): Promise<void> => {
    for (let i = 0; i < count; i++) {
      const at = block * 1024 * KIB + ((i * 613) % 256) * 4096;
      assert.deepEqual(await mount.read(reader.handle, at, 100), pattern(BYTES, 1).subarray(at, at + 100));
    }
  };
  kernel.log.length = 0;
  return { mount, writer, kernel, ino, reads };
}

describe('blocks that are read at many places', () => {
  it('are put into the pages of the kernel, once and as whole pages', async () => {
    const { kernel, reads } = await reading();
    await reads(DENSE_READS_MIN);
    assert.equal(kernel.stored.length, 0);
    await reads(20);
    await settle();
    assert.equal(kernel.stored.length, 1);
    assert.equal(kernel.stored[0]?.offset, 0);
    assert.deepEqual(kernel.stored[0]?.data, pattern(BYTES, 1).subarray(0, 1024 * KIB));
  });

  it('leave out the last page where it is not whole', async () => {
    const { mount, ino, kernel } = await reading();
    const { handle } = await mount.open(ino, 0);
    for (let i = 0; i < 2; i++)
      for (let at = 0; at <= DENSE_READS_MIN; at++)
        await mount.read(
          handle,
          (i === 0 ? 0 : 1024 * KIB) + ((at * 3) % 4) * (i === 0 ? 250_000 : 4096),
          50,
        );
    await settle();
    assert.deepEqual(
      kernel.stored.map(({ offset, data }) => [offset, data.length]),
      [
        [0, 1024 * KIB],
        [1024 * KIB, 3 * 4096],
      ],
    );
  });

  it('are not stored while the file is open for writing here', async () => {
    const { mount, ino, kernel, reads } = await reading();
    const { handle } = await mount.open(ino, O_RDWR);
    await reads(DENSE_READS_MIN + 5);
    await settle();
    assert.equal(kernel.stored.length, 0);
    await mount.close(handle);
  });

  it('are stored before the file is open for writing here, or cut', async () => {
    for (const change of ['open', 'cut', 'create']) {
      const { mount, ino, kernel, reads } = await reading();
      kernel.gate = deferred<void>();
      await reads(DENSE_READS_MIN + 1);
      await settle();
      assert.equal(kernel.stored.length, 1);
      let done = false;
      const changed =
        change === 'cut'
          ? mount.fs.setattr(caller(), ino, { size: 10 })
          : change === 'open'
            ? mount.open(ino, O_RDWR)
            : mount.fs.create(caller(), 1, Buffer.from('f'), 0o644, O_RDWR, 0);
      const noted = (changed as Promise<unknown>).then(() => {
        done = true;
      });
      await settle();
      assert.equal(done, false, `${change} waits`);
      kernel.gate.resolve();
      await noted;
    }
  });

  it('are stored before the pages are invalidated for another mount that writes', async () => {
    const { writer, ino, kernel, reads } = await reading();
    kernel.gate = deferred<void>();
    await reads(DENSE_READS_MIN + 1);
    await settle();
    let open = false;
    const opened = writer.open(ino, O_RDWR).then(() => {
      open = true;
    });
    await settle();
    assert.deepEqual([open, kernel.log], [false, []]);
    kernel.gate.resolve();
    await opened;
    assert.deepEqual(kernel.log.slice(0, 2), ['stored', 'invalidated']);
  });

  it('are not stored when the lease goes while they are on their way', async () => {
    const { mount, writer, ino, kernel, reads } = await reading();
    await reads(DENSE_READS_MIN);
    const { handle } = await mount.open(ino, 0);
    const { chunks } = mount;
    const gate = deferred<void>();
    const read = chunks.read.bind(chunks);
    chunks.read = async (...args) => {
      const data = await read(...args);
      await gate.promise;
      return data;
    };
    const last = mount.read(handle, 4096, 100);
    await settle();
    const other = await writer.open(ino, O_RDWR);
    await writer.write(other.handle, 0, pattern(100, 2));
    await writer.close(other.handle);
    gate.resolve();
    await last;
    await settle();
    assert.equal(kernel.stored.length, 0);
  });
});
