import assert from 'node:assert/strict';
import { KernelDentries } from '../../../client/vfs/kernel-dentries.js';
import { RENAME_EXCHANGE } from '../../../proto/types.js';
import { boundTo } from '../support/stand-in-kernel.js';
import { caller, TestMount } from '../support/test-mount.js';

const ROOT = 1;
const bytes = (text: string): Buffer => Buffer.from(text);

describe('names of directories that another mount gave to something else since the kernel looked them up', () => {
  const mounts = async () => {
    const one = new TestMount();
    const other = one.second();
    for (const name of ['a', 'b']) await one.fs.mkdir(caller(), ROOT, bytes(name), 0o755, 0);
    return { one, other };
  };
  const inoOf = async ({ fs }: TestMount, name: string) =>
    (await fs.lookup(caller(), ROOT, bytes(name))).attr.ino;
  const stale = { errorName: 'ESTALE' };

  it('are not removed in its place: the kernel would mark dead what it had found', async () => {
    const { one, other } = await mounts();
    const [a, b] = [await inoOf(one, 'a'), await inoOf(one, 'b')];
    await inoOf(other, 'a');
    await other.fs.rename(caller(), ROOT, bytes('a'), ROOT, bytes('b'), RENAME_EXCHANGE);
    await assert.rejects(one.fs.rmdir(caller(), ROOT, bytes('a')), stale);
    assert.deepEqual([await inoOf(one, 'a'), await inoOf(one, 'b')], [b, a]);
  });

  it('are removed when the kernel has looked them up again', async () => {
    const { one, other } = await mounts();
    await inoOf(one, 'a');
    await other.fs.rename(caller(), ROOT, bytes('a'), ROOT, bytes('b'), RENAME_EXCHANGE);
    const left = await inoOf(one, 'b');
    await inoOf(one, 'a');
    await one.fs.rmdir(caller(), ROOT, bytes('a'));
    assert.equal(await inoOf(other, 'b'), left);
  });

  it('are not replaced by a rename, be it that something else or nothing is there', async () => {
    const { one, other } = await mounts();
    await one.fs.mkdir(caller(), ROOT, bytes('c'), 0o755, 0);
    for (const name of ['a', 'b', 'c']) await inoOf(one, name);
    await other.fs.rename(caller(), ROOT, bytes('a'), ROOT, bytes('b'), RENAME_EXCHANGE);
    await assert.rejects(one.fs.rename(caller(), ROOT, bytes('c'), ROOT, bytes('b'), 0), stale);
    await inoOf(one, 'a');
    await other.fs.rmdir(caller(), ROOT, bytes('a'));
    await assert.rejects(one.fs.rename(caller(), ROOT, bytes('c'), ROOT, bytes('a'), 0), stale);
  });

  it('are moved, and exchanged, whatever they stand for: the kernel marks none of them dead', async () => {
    const { one, other } = await mounts();
    const [a, b] = [await inoOf(one, 'a'), await inoOf(one, 'b')];
    await other.fs.rename(caller(), ROOT, bytes('a'), ROOT, bytes('b'), RENAME_EXCHANGE);
    await one.fs.rename(caller(), ROOT, bytes('a'), ROOT, bytes('b'), RENAME_EXCHANGE);
    assert.deepEqual([await inoOf(other, 'a'), await inoOf(other, 'b')], [a, b]);
    await other.fs.rename(caller(), ROOT, bytes('a'), ROOT, bytes('b'), RENAME_EXCHANGE);
    await one.fs.rename(caller(), ROOT, bytes('a'), ROOT, bytes('c'), 0);
    assert.equal(await inoOf(other, 'c'), b);
  });

  it('do not matter to the rename of a file: the kernel puts none in the place of a directory', async () => {
    const { one, other } = await mounts();
    await one.create('file');
    await inoOf(one, 'a');
    await other.fs.rmdir(caller(), ROOT, bytes('a'));
    await one.fs.rename(caller(), ROOT, bytes('file'), ROOT, bytes('a'), 0);
    assert.equal(await inoOf(other, 'a'), await inoOf(one, 'a'));
  });
});

describe('what the kernel has of a name', () => {
  const [f, g] = [bytes('f'), bytes('g')];
  const dentries = (): KernelDentries => {
    const made = new KernelDentries();
    made.told(1, f, 10);
    made.told(2, g, 20);
    return made;
  };

  it('moves with a rename', () => {
    const moved = dentries();
    moved.moved(1, f, 2, g, false);
    assert.deepEqual([moved.get(1, f), moved.get(2, g)], [undefined, 10]);
  });

  it('changes places with an exchange', () => {
    const moved = dentries();
    moved.moved(1, f, 2, g, true);
    assert.deepEqual([moved.get(1, f), moved.get(2, g)], [20, 10]);
  });

  it('is unknown where a name that is not known moves', () => {
    const moved = dentries();
    moved.moved(1, bytes('x'), 2, g, false);
    assert.equal(moved.get(2, g), undefined);
  });

  it('is forgotten with the name, and the oldest beyond the bound', () => {
    const many = dentries();
    many.told(1, f, 0);
    assert.equal(many.get(1, f), undefined);
    for (let i = 0; i < 20_000; i++) many.told(3, bytes(`${i}`), i + 1);
    assert.equal(many.get(2, g), undefined);
    assert.equal(many.get(3, bytes('19999')), 20_000);
  });
});

describe('a directory that another mount has moved to another one since the kernel looked it up', () => {
  const mounts = async (wait?: Promise<void>) => {
    const one = new TestMount();
    const dropped: string[] = [];
    const invalidateEntry = async (parent: number, name: Buffer): Promise<void> => {
      dropped.push(`${parent}/${name}`);
      await wait;
    };
    await one.fs.init(boundTo({ invalidateEntry }));
    const make = async (parent: number, name: string): Promise<number> =>
      (await one.fs.mkdir(caller(), parent, bytes(name), 0o755, 0)).attr.ino;
    const [a, b] = [await make(ROOT, 'a'), await make(ROOT, 'b')];
    const x = await make(a, 'x');
    const look = async (parent: number, name: string): Promise<number> =>
      (await one.fs.lookup(caller(), parent, bytes(name))).attr.ino;
    const other = one.second();
    const move = (from: number, name: string, to: number, newName: string): Promise<void> =>
      other.fs.rename(caller(), from, bytes(name), to, bytes(newName), 0);
    return { one, other, dropped, look, move, a, b, x };
  };

  it('is dropped where it was before a lookup is answered: rename(2) could not take it over from there', async () => {
    const { dropped, look, move, a, b, x } = await mounts();
    await move(a, 'x', b, 'y');
    assert.equal(await look(b, 'y'), x);
    assert.deepEqual(dropped, [`${a}/x`]);
    assert.equal(await look(b, 'y'), x);
    assert.equal(dropped.length, 1);
    await move(b, 'y', a, 'x');
    assert.equal(await look(a, 'x'), x);
    assert.deepEqual(dropped, [`${a}/x`, `${b}/y`]);
  });

  it('is left where it was moved within its directory, or by this mount: the kernel needs no lock for that, or knows', async () => {
    const { one, dropped, look, move, a, b, x } = await mounts();
    await move(a, 'x', a, 'y');
    assert.equal(await look(a, 'y'), x);
    await one.fs.rename(caller(), a, bytes('y'), b, bytes('z'), 0);
    assert.equal(await look(b, 'z'), x);
    assert.deepEqual(dropped, []);
  });

  it('is found although the kernel cannot drop it now: who holds its lock may wait for the lookup', async () => {
    const { one, look, move, a, b, x } = await mounts(new Promise(() => {}));
    await move(a, 'x', b, 'y');
    const found = look(b, 'y');
    for (let turn = 0; turn < 20; turn++) await one.clock.advance(10);
    assert.equal(await found, x);
  });
});
