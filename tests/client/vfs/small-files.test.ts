import assert from 'node:assert/strict';
import { setAttrOp } from '../../../client/vfs/context.js';
import { FILES_AHEAD_MAX, FILES_BEFORE_AHEAD } from '../../../client/vfs/small-files.js';
import { S_IFREG } from '../../../proto/types.js';
import { pattern } from '../support/data-harness.js';
import { caller, TestMount } from '../support/test-mount.js';

const FILES = 100;
const BYTES = 500;
const O_WRONLY = 1;
const O_TRUNC = 0o1000;

interface Filled {
  mount: TestMount;
  inos: number[];
}

/** A mount that knows nothing yet of a directory with small files, and how to read one of these. */
async function filled(): Promise<Filled & { read(at: number): Promise<Buffer> }> {
  const mount = new TestMount();
  const { namespace } = mount.meta;
  const inos: number[] = [];
  for (let i = 0; i < FILES; i++) {
    const name = Buffer.from(`f${i}`);
    const node = { parent: 1, name, mode: S_IFREG | 0o644, uid: 0, gid: 0, rdev: 0, target: Buffer.alloc(0) };
    const made = namespace.mutate({ $case: 'makeNode', value: { ...node, existingOk: false, open: false } });
    assert.ok(made.mutation?.result?.$case === 'attr');
    const { ino, chunkSize } = made.mutation.result.value;
    namespace.mutate(setAttrOp(ino, { size: BYTES }));
    const layout = { ino, chunkSize, truncateSeq: 0, truncates: [] };
    await mount.chunks.write(layout, 0, 0, [pattern(BYTES, i)], false);
    inos.push(ino);
  }
  const read = async (at: number): Promise<Buffer> => {
    const { attr } = await mount.fs.lookup(caller(), 1, Buffer.from(`f${at}`));
    const { handle } = await mount.open(attr.ino, 0);
    const data = await mount.read(handle, 0, 4096);
    await mount.close(handle);
    return data;
  };
  return { mount, inos, read };
}

describe('small files that are read in the order of their directory', () => {
  it('are asked for ahead, each once, and no further than was read before', async () => {
    const { mount, inos, read } = await filled();
    for (let i = 0; i < FILES; i++) {
      assert.deepEqual(await read(i), pattern(BYTES, i));
      const asked = mount.chunks.reads.length;
      assert.ok(asked <= 2 * (i + 1) && asked <= i + 1 + FILES_AHEAD_MAX, `${asked} asked for at ${i}`);
    }
    assert.deepEqual(
      mount.chunks.reads.map(({ ino }) => ino),
      inos,
    );
  });

  it('arrive several at a time', async () => {
    const { mount, read } = await filled();
    let waits = 0;
    for (let i = 0; i < FILES; i++) {
      const before = mount.chunks.reads.length;
      await read(i);
      if (mount.chunks.reads.length > before) waits++;
    }
    assert.ok(waits < FILES / 5, `${waits} times something was asked for`);
  });

  it('are asked for one by one in another order', async () => {
    const { mount, read } = await filled();
    for (let i = 0; i < FILES; i++) await read((i * 37) % FILES);
    assert.equal(mount.chunks.reads.length, FILES);
    assert.deepEqual(await read(0), pattern(BYTES, 0));
  });

  it('are as another mount has written them meanwhile', async () => {
    const { mount, inos, read } = await filled();
    for (let i = 0; i < 20; i++) await read(i);
    const asked = new Set(mount.chunks.reads.map(({ ino }) => ino));
    assert.ok(asked.has(inos[22] as number), 'fetched ahead');
    const other = mount.second();
    const { handle } = await other.open(inos[22] as number, O_WRONLY | O_TRUNC);
    await other.write(handle, 0, pattern(100, 7));
    await other.close(handle);
    for (let i = 20; i < FILES; i++)
      assert.deepEqual(await read(i), i === 22 ? pattern(100, 7) : pattern(BYTES, i));
  });

  it('are as this mount has cut and written them meanwhile', async () => {
    const { mount, inos, read } = await filled();
    for (let i = 0; i < 20; i++) await read(i);
    const [cut, written] = [inos[22] as number, inos[24] as number];
    await mount.fs.setattr(caller(), cut, { size: 100 });
    await mount.fs.setattr(caller(), cut, { size: BYTES });
    const { handle } = await mount.open(written, O_WRONLY);
    await mount.write(handle, 10, pattern(20, 9));
    await mount.close(handle);
    const expected = (i: number): Buffer => {
      const data = pattern(BYTES, i);
      if (i === 22) data.fill(0, 100);
      if (i === 24) pattern(20, 9).copy(data, 10);
      return data;
    };
    for (let i = 20; i < FILES; i++) assert.deepEqual(await read(i), expected(i), `file ${i}`);
  });

  it('are not asked for ahead while few were read', async () => {
    const { mount, read } = await filled();
    for (let i = 0; i < FILES_BEFORE_AHEAD; i++) await read(i);
    assert.equal(mount.chunks.reads.length, FILES_BEFORE_AHEAD);
  });
});
