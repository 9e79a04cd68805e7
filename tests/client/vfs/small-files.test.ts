import assert from 'node:assert/strict';
import { setAttrOp } from '../../../client/vfs/context.js';
import { FILES_AHEAD_MAX, FILES_BEFORE_AHEAD } from '../../../client/vfs/small-files.js';
import type { Attr } from '../../../proto/gen/meta.js';
import { S_IFDIR, S_IFREG } from '../../../proto/types.js';
import { pattern } from '../support/data-harness.js';
import { boundTo } from '../support/stand-in-kernel.js';
import { caller, TestMount } from '../support/test-mount.js';

const FILES = 100;
const BYTES = 500;
const O_WRONLY = 1;
const O_TRUNC = 0o1000;

interface Filled {
  mount: TestMount;
  inos: number[];
}

/** A mount that knows nothing yet of directories with so many small files each, and how to read one of these. */
async function filled(each = FILES): Promise<Filled & { read(at: number): Promise<Buffer> }> {
  const mount = new TestMount();
  const { namespace } = mount.meta;
  const inos: number[] = [];
  const make = (parent: number, text: string, mode: number): Attr => {
    const node = { parent, name: Buffer.from(text), mode, uid: 0, gid: 0, rdev: 0, target: Buffer.alloc(0) };
    const made = namespace.mutate({ $case: 'makeNode', value: { ...node, existingOk: false, open: false } });
    assert.ok(made.mutation?.result?.$case === 'attr');
    return made.mutation.result.value;
  };
  const directories: number[] = [];
  for (let i = 0; i < FILES; i++) {
    if (i % each === 0) directories.push(i === 0 ? 1 : make(1, `d${i}`, S_IFDIR | 0o755).ino);
    const { ino, chunkSize } = make(directories.at(-1) as number, `f${i}`, S_IFREG | 0o644);
    namespace.mutate(setAttrOp(ino, { size: BYTES }));
    const layout = { ino, chunkSize, truncateSeq: 0, truncates: [] };
    await mount.chunks.write(layout, 0, 0, [pattern(BYTES, i)], false);
    inos.push(ino);
  }
  const read = async (at: number): Promise<Buffer> => {
    const parent = directories[Math.floor(at / each)] as number;
    const { attr } = await mount.fs.lookup(caller(), parent, Buffer.from(`f${at}`));
    const { handle } = await mount.open(attr.ino, 0);
    const data = await mount.read(handle, 0, 4096);
    await mount.close(handle);
    return data;
  };
  return { mount, inos, read };
}

/** Reads a directory with attributes: by its number, or by the first file that was made in it. */
async function list(mount: TestMount, directory: number | undefined, first: number): Promise<void> {
  const ino = directory ?? (await mount.fs.lookup(caller(), 1, Buffer.from(`d${first}`))).attr.ino;
  const { handle } = await mount.fs.opendir(caller(), ino, 0);
  for (let cookie = 0; ; ) {
    const page = await mount.fs.readdir(caller(), ino, handle, cookie, 100, true);
    if (page.length === 0) break;
    cookie = page.at(-1)?.cookie ?? 0;
  }
  await mount.fs.releasedir(ino, handle);
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

  describe('and lie in the kernel when they are opened', () => {
    const stored = new Map<number, Buffer>();
    const kernel = {
      storeFile: (ino: number, data: Buffer) => {
        stored.set(ino, Buffer.from(data));
        return true;
      },
    };
    let mount: TestMount;
    let inos: number[];
    let read: (at: number) => Promise<Buffer>;

    beforeEach(async () => {
      stored.clear();
      ({ mount, inos, read } = await filled());
      await mount.fs.init(boundTo(kernel));
    });

    /** As a program opens it: read from the kernel's pages where they may be kept. */
    async function opened(at: number): Promise<boolean> {
      const { attr } = await mount.fs.lookup(caller(), 1, Buffer.from(`f${at}`));
      const { handle, keepCache } = await mount.open(attr.ino, 0);
      if (keepCache) assert.deepEqual(stored.get(attr.ino), pattern(BYTES, at));
      else assert.deepEqual(await mount.read(handle, 0, 4096), pattern(BYTES, at));
      await mount.close(handle);
      return keepCache === true;
    }

    it('cost no read of the kernel each, and are fetched once', async () => {
      let kept = 0;
      for (let i = 0; i < FILES; i++) if (await opened(i)) kept++;
      assert.ok(kept > FILES * 0.7, `${kept} of ${FILES}`);
      assert.equal(mount.chunks.reads.length, FILES);
    });

    it('are not stored while they are open, nor for who may write or cuts', async () => {
      for (let i = 0; i < 20; i++) await read(i);
      stored.clear();
      for (const flags of [O_WRONLY, O_TRUNC]) {
        const ino = inos[flags === O_TRUNC ? 20 : 21] as number;
        await mount.close((await mount.open(ino, flags)).handle);
      }
      const ino = inos[22] as number;
      const first = await mount.open(ino, O_WRONLY);
      const second = await mount.open(ino, 0);
      assert.deepEqual([...stored.keys()], []);
      for (const { handle } of [first, second]) await mount.close(handle);
    });

    it('are stored as another mount has written them meanwhile', async () => {
      for (let i = 0; i < 20; i++) await opened(i);
      const ino = inos[21] as number;
      const other = mount.second();
      const { handle } = await other.open(ino, O_WRONLY);
      await other.write(handle, 0, pattern(BYTES, 99));
      await other.close(handle);
      const { handle: reader, keepCache } = await mount.open(ino, 0);
      assert.ok(!keepCache && !stored.has(ino));
      assert.deepEqual(await mount.read(reader, 0, 4096), pattern(BYTES, 99));
      await mount.close(reader);
    });
  });

  it('are asked for ahead sooner in the next directories', async () => {
    const each = 10;
    const { mount, inos, read } = await filled(each);
    let late = 0;
    for (let i = 0; i < FILES; i++) {
      // As programs do that go through a tree; the names come with the attributes.
      if (i % each === 0) await list(mount, i === 0 ? 1 : undefined, i);
      const before = mount.chunks.reads.some(({ ino }) => ino === inos[i]);
      await read(i);
      if (!before) late++;
    }
    assert.ok(late <= 3 + FILES / each, `${late} were not fetched ahead`);
    assert.equal(mount.chunks.reads.length, FILES);
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
