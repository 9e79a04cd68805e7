import assert from 'node:assert/strict';
import type { Caller } from '../../../../client/fuse/binding.js';
import { nameOf, PathMap, parentOf } from '../../../../client/fuse/native/path-map.js';
import { ROOT_INO } from '../../../../proto/types.js';
import { standingClock } from '../support/fake-clock.js';
import { MemoryFs } from '../support/memory-fs.js';

const CALLER: Caller = { uid: 0, gid: 0, pid: 1, signal: new AbortController().signal };
const TTL_MS = 1000;

/** Counts lookups and what is still looked up, by inode. */
class CountingFs extends MemoryFs {
  lookups = 0;
  readonly held = new Map<number, number>();

  override async lookup(caller: Caller, parent: number, name: Buffer) {
    this.lookups++;
    const entry = await super.lookup(caller, parent, name);
    this.held.set(entry.attr.ino, (this.held.get(entry.attr.ino) ?? 0) + 1);
    return entry;
  }

  override forget(ino: number, count: number): void {
    const left = (this.held.get(ino) ?? 0) - count;
    if (left === 0) this.held.delete(ino);
    else this.held.set(ino, left);
    super.forget(ino, count);
  }
}

async function setup(limit?: number) {
  const clock = standingClock();
  const fs = new CountingFs({ clock, ttlMs: TTL_MS, keepCache: false });
  const make = async (parent: number, name: string): Promise<number> => {
    const { attr } = await fs.mkdir(CALLER, parent, Buffer.from(name), 0o755, 0);
    fs.held.set(attr.ino, 1);
    fs.forget(attr.ino, 1);
    return attr.ino;
  };
  const a = await make(ROOT_INO, 'a');
  const b = await make(a, 'b');
  return { clock, fs, a, b, make, paths: new PathMap(fs, CALLER, clock, limit) };
}

describe('paths to inodes', () => {
  it('are walked once, and asked again when their time is over', async () => {
    const { fs, paths, b, clock } = await setup();
    for (let i = 0; i < 3; i++) {
      const pinned = await paths.resolve('/a/b');
      assert.equal(pinned.ino, b);
      pinned.release();
    }
    assert.equal(fs.lookups, 2);
    clock.advance(TTL_MS);
    (await paths.resolve('/a/b')).release();
    assert.equal(fs.lookups, 4);
    paths.clear();
    assert.equal(fs.held.size, 0);
  });

  it('are refused when a name is missing, and hold nothing then', async () => {
    const { fs, paths } = await setup();
    await assert.rejects(paths.resolve('/a/x/y'), { errorName: 'ENOENT' });
    paths.clear();
    assert.equal(fs.held.size, 0);
  });

  it('lead to the new inode when the name has changed hands', async () => {
    const { fs, paths, a, b, make, clock } = await setup();
    const old = await paths.resolve('/a/b');
    await fs.rmdir(CALLER, a, Buffer.from('b'));
    const next = await make(a, 'b');
    clock.advance(TTL_MS);
    const pinned = await paths.resolve('/a/b');
    assert.deepEqual([old.ino, pinned.ino], [b, next]);
    assert.equal(fs.held.get(b), 1, 'the old inode is in use');
    old.release();
    assert.equal(fs.held.has(b), false);
    pinned.release();
  });

  it('go with the directory above them', async () => {
    const { fs, paths } = await setup();
    (await paths.resolve('/a/b')).release();
    paths.drop('/a');
    assert.deepEqual([paths.size, fs.held.size], [0, 0]);
  });

  it('are bounded: those used longest ago go, pinned ones stay', async () => {
    const { fs, paths, make } = await setup(3);
    for (const name of ['c', 'd', 'e', 'f']) await make(ROOT_INO, name);
    const pinned = await paths.resolve('/c');
    for (const path of ['/d', '/e', '/f', '/a']) (await paths.resolve(path)).release();
    assert.equal(paths.size, 3);
    assert.equal(fs.held.has(pinned.ino), true);
    pinned.release();
  });

  it('are split at their last slash', () => {
    assert.deepEqual([parentOf('/a'), parentOf('/a/b'), nameOf('/a/b'), nameOf('/a')], ['/', '/a', 'b', 'a']);
  });
});
