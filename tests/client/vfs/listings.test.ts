import assert from 'node:assert/strict';
import type { DirEntry } from '../../../client/fuse/binding.js';
import { LISTING_PAGE_ENTRIES } from '../../../client/vfs/listings.js';
import { ACQUIRE_RETRY_MS, SOLE_AT_CHANGES } from '../../../client/vfs/takeovers.js';
import type { HoldfastError } from '../../../proto/errors.js';
import { S_IFREG } from '../../../proto/types.js';
import { settle } from '../support/manual-clock.js';
import { boundTo } from '../support/stand-in-kernel.js';
import { caller, TestMount } from '../support/test-mount.js';

const FILES = 1_500;
const KEPT_ENTRIES_MAX = 4_096;
const LARGE_ENTRIES = 7_000;
const name = (text: string): Buffer => Buffer.from(text);
const absent = (error: HoldfastError): boolean => error.errorName === 'ENOENT';

/** A directory with files that nobody has a lease on, and a mount that knows nothing of it. */
function filled(files: number, directoryEntriesMax?: number): { mount: TestMount; dir: number } {
  const mount = new TestMount({ directoryEntriesMax });
  return { mount, dir: fill(mount, 'd', files) };
}

/** A new directory in the root, with files, made behind the mount's back. */
function fill(mount: TestMount, directory: string, files: number): number {
  const { namespace } = mount.meta;
  const make = (parent: number, text: string, mode: number): number => {
    const node = { parent, name: name(text), mode, uid: 0, gid: 0, rdev: 0, target: Buffer.alloc(0) };
    const { mutation } = namespace.mutate({
      $case: 'makeNode',
      value: { ...node, existingOk: false, open: false },
    });
    assert.ok(mutation?.result?.$case === 'attr');
    return mutation.result.value.ino;
  };
  const dir = make(1, directory, 0o040755);
  for (let i = 0; i < files; i++) make(dir, `f${i}`, S_IFREG | 0o644);
  return dir;
}

async function list(mount: TestMount, dir: number, most = 200): Promise<DirEntry[]> {
  const { handle } = await mount.fs.opendir(caller(), dir, 0);
  const found: DirEntry[] = [];
  for (let cookie = 0; ; ) {
    const page = await mount.fs.readdir(caller(), dir, handle, cookie, most, true);
    if (page.length === 0) break;
    found.push(...page);
    cookie = page.at(-1)?.cookie ?? 0;
  }
  await mount.fs.releasedir(dir, handle);
  return found;
}

describe('names looked up one after the other', () => {
  it('cost a few requests for thousands, attributes included', async () => {
    const { mount, dir } = filled(FILES);
    for (let i = 0; i < FILES; i++) {
      const { attr } = await mount.fs.lookup(caller(), dir, name(`f${i}`));
      await mount.fs.getattr(caller(), attr.ino);
    }
    await assert.rejects(mount.fs.lookup(caller(), dir, name('nothing')), absent);
    const asked = mount.meta.take();
    assert.ok(asked.length <= 10, `${asked.length} requests: ${asked.join(' ')}`);
    assert.equal(asked.filter((kind) => kind === 'readDir').length, Math.ceil(FILES / LISTING_PAGE_ENTRIES));
  });

  it('cost one request each while they are few', async () => {
    const { mount, dir } = filled(100);
    await mount.fs.lookup(caller(), dir, name('f1'));
    await mount.fs.lookup(caller(), dir, name('f2'));
    assert.deepEqual(mount.meta.take(), ['lookup', 'lookup']);
  });

  it('are as another mount has made them, as soon as it has', async () => {
    const { mount, dir } = filled(50);
    for (let i = 0; i < 50; i++) await mount.fs.lookup(caller(), dir, name(`f${i}`));
    const other = mount.second();
    const { attr } = await other.fs.lookup(caller(), dir, name('f7'));
    await other.fs.setattr(caller(), attr.ino, { mode: 0o600 });
    assert.equal((await mount.fs.lookup(caller(), dir, name('f7'))).attr.mode, S_IFREG | 0o600);
    await other.fs.unlink(caller(), dir, name('f8'));
    await assert.rejects(mount.fs.lookup(caller(), dir, name('f8')), absent);
    await other.fs.rename(caller(), dir, name('f9'), dir, name('new'), 0);
    await assert.rejects(mount.fs.lookup(caller(), dir, name('f9')), absent);
    assert.ok((await mount.fs.lookup(caller(), dir, name('new'))).attr.ino > 0);
  });

  it('are as this mount has made them while the listing was on its way', async () => {
    const { mount, dir } = filled(50);
    for (let i = 0; i < 2; i++) await mount.fs.lookup(caller(), dir, name(`f${i}`));
    const go = mount.meta.hold();
    const third = mount.fs.lookup(caller(), dir, name('f2'));
    const gone = mount.fs.unlink(caller(), dir, name('f40'));
    go();
    await Promise.all([third, gone]);
    await assert.rejects(mount.fs.lookup(caller(), dir, name('f40')), absent);
    assert.equal((await list(mount, dir)).length, 2 + 49);
  });

  it('are as this mount has made them while the answer was on its way', async () => {
    const { mount, dir } = filled(2);
    await mount
      .second()
      .fs.link(caller(), (await mount.fs.lookup(caller(), dir, name('f0'))).attr.ino, dir, name('g0'));
    const arrive = mount.meta.holdAnswers();
    const looked = mount.fs.lookup(caller(), dir, name('f0'));
    await settle();
    await mount.fs.unlink(caller(), dir, name('f0'));
    arrive();
    const { attr } = await looked;
    await mount.fs.getattr(caller(), attr.ino);
    await assert.rejects(mount.fs.lookup(caller(), dir, name('f0')), absent);
  });
});

describe('a listing with attributes', () => {
  it('of thousands costs a few requests, and leaves none for the attributes of each', async () => {
    const { mount, dir } = filled(FILES);
    const entries = await list(mount, dir);
    assert.equal(entries.length, FILES + 2);
    for (const { name: entry } of entries.slice(2)) await mount.fs.lookup(caller(), dir, entry);
    const asked = mount.meta.take();
    assert.ok(asked.length <= 6, `${asked.length} requests: ${asked.join(' ')}`);
  });

  it('read in the small pieces of the kernel is asked for in pieces that grow at once', async () => {
    const { mount, dir } = filled(FILES);
    assert.equal((await list(mount, dir, 24)).length, FILES + 2);
    const pages = mount.meta.take().filter((kind) => kind === 'readDir').length;
    assert.equal(pages, 1 + Math.ceil((FILES - 128) / LISTING_PAGE_ENTRIES));
  });
});

describe('a directory that was there before', () => {
  it('is taken over when its names begin to change: the further changes cost no request each', async () => {
    const { mount, dir } = filled(FILES);
    for (let i = 0; i < FILES; i += 2)
      await mount.fs.rename(caller(), dir, name(`f${i}`), dir, name(`g${i}`), 0);
    for (let i = 0; i < FILES; i += 2) await mount.fs.unlink(caller(), dir, name(`g${i}`));
    await mount.fs.fsyncdir(caller(), dir, 0, false);
    const asked = mount.meta.take();
    assert.ok(asked.length <= 10, `${asked.length} requests: ${asked.join(' ')}`);
    assert.ok(mount.meta.batches.flat().length > FILES - 10, 'they go in batches');
    const other = mount.second();
    assert.equal((await list(other, dir)).length, 2 + FILES / 2);
    await assert.rejects(other.fs.lookup(caller(), dir, name('g0')), absent);
    await other.fs.lookup(caller(), dir, name('f1'));
  });

  describe('and is too large to be known as a whole', () => {
    let mount: TestMount;
    let dir: number;
    let pages: number;
    const make = (text: string) => mount.fs.mknod(caller(), dir, name(text), S_IFREG | 0o644, 0, 0);

    const takeOver = async (): Promise<void> => {
      ({ mount, dir } = filled(LARGE_ENTRIES, KEPT_ENTRIES_MAX));
      pages = 0;
      for (let i = 0; i < 200; i++) {
        await make(`new${i}`);
        await mount.clock.advance(ACQUIRE_RETRY_MS);
        pages += mount.meta.take().filter((call) => call === 'readDir').length;
      }
    };
    before(takeOver);

    it('is read once through, in attempts that double, and no further', () => {
      assert.ok(pages < 5 * (LARGE_ENTRIES / LISTING_PAGE_ENTRIES), `${pages} pages`);
    });

    it('is known so far that new names cost no request', async () => {
      for (let i = 200; i < 700; i++) await make(`new${i}`);
      await mount.fs.fsyncdir(caller(), dir, 0, false);
      const asked = mount.meta.take();
      assert.ok(asked.length <= 5, `${asked.length} requests: ${asked.join(' ')}`);
      await assert.rejects(make('f7'), (error: HoldfastError) => error.errorName === 'EEXIST');
      await assert.rejects(mount.fs.lookup(caller(), dir, name('f')), absent);
      await mount.fs.lookup(caller(), dir, name('f9'));
    });

    it('is taken over a part at a time for removing what is in it', async () => {
      mount.meta.take();
      for (let i = 0; i < 5000; i++) {
        await mount.fs.unlink(caller(), dir, name(`f${i}`));
        if (i % 100 === 0) await mount.clock.advance(ACQUIRE_RETRY_MS);
      }
      await mount.fs.fsyncdir(caller(), dir, 0, false);
      const asked = mount.meta.take();
      assert.ok(asked.length <= 200, `${asked.length} requests: ${asked.slice(0, 100).join(' ')}`);
      const other = mount.second();
      await assert.rejects(other.fs.lookup(caller(), dir, name('f4999')), absent);
      await other.fs.lookup(caller(), dir, name('f5000'));
      await other.fs.lookup(caller(), dir, name('new699'));
      await other.fs.unlink(caller(), dir, name('new699'));
      await assert.rejects(mount.fs.lookup(caller(), dir, name('new699')), absent);
    });

    it('tells the kernel of no name that is asked for to be removed', async () => {
      await takeOver();
      const expired: string[] = [];
      const expireEntry = async (_parent: number, of: Buffer): Promise<void> => void expired.push(`${of}`);
      await mount.fs.init(boundTo({ expireEntry }));
      await mount.fs.lookup(caller(), dir, name('f3'));
      const wrong = (error: HoldfastError): boolean => error.errorName === 'ENOTDIR';
      await assert.rejects(mount.fs.rmdir(caller(), dir, name('f4')), wrong);
      await mount.second().fs.unlink(caller(), dir, name('f5'));
      assert.deepEqual(expired, ['f3']);
    });
  });

  it('is taken over with what is in it when it is leased alone, as a part of another one, and was listed before', async () => {
    const { mount, dir } = filled(30);
    await list(mount, dir);
    await mount.fs.mkdir(caller(), 1, name('x'), 0o755, 0);
    await mount.fs.mkdir(caller(), 1, name('y'), 0o755, 0); // takes the root over, and a lease on what is in it
    await mount.clock.advance(ACQUIRE_RETRY_MS);
    mount.meta.take();
    for (let i = 0; i < 30; i++) await mount.fs.unlink(caller(), dir, name(`f${i}`));
    const asked = mount.meta.take();
    assert.ok(asked.length <= 5, `${asked.length} requests: ${asked.join(' ')}`);
  });

  it('is asked for with all that is in it when others have looked at that', async () => {
    const { mount, dir } = filled(200);
    const other = mount.second();
    await list(other, dir);
    for (let i = 0; i < 100; i++) await mount.fs.rename(caller(), dir, name(`f${i}`), dir, name(`g${i}`), 0);
    for (let i = 0; i < 100; i++) await mount.fs.unlink(caller(), dir, name(`g${i}`));
    const asked = mount.meta.take();
    assert.ok(asked.length <= 20, `${asked.length} requests: ${asked.join(' ')}`);
    assert.equal((await list(other, dir)).length, 2 + 100);
  });

  it('is asked for with all that is in it at its first change, shortly behind one that was', async () => {
    const { mount, dir } = filled(10);
    const dirs = [dir, ...Array.from({ length: 20 }, (_, i) => fill(mount, `d${i}`, 10))];
    const other = mount.second();
    for (const each of dirs) {
      await list(other, each);
      await list(mount, each);
    }
    const removeAll = async (each: number): Promise<void> => {
      for (let i = 0; i < 10; i++) await mount.fs.unlink(caller(), each, name(`f${i}`));
    };
    await removeAll(dir);
    mount.meta.take();
    for (const each of dirs.slice(1, 11)) await removeAll(each);
    const asked = mount.meta.take();
    assert.ok(asked.length <= 2 * 10, `${asked.length} requests: ${asked.join(' ')}`);
    await mount.clock.advance(ACQUIRE_RETRY_MS);
    await mount.fs.unlink(caller(), dirs[11] as number, name('f0'));
    await mount.fs.unlink(caller(), dirs[11] as number, name('f1'));
    other.meta.recalls.length = 0;
    await mount.fs.unlink(caller(), dirs[11] as number, name('f2'));
    assert.ok(other.meta.recalls.length <= 2, 'later it takes some changes again');
  });

  it('stays known when a name in it was changed by request', async () => {
    const { mount, dir } = filled(10);
    await mount.fs.mknod(caller(), dir, name('f'), S_IFREG | 0o644, 0, 0);
    const made = await mount.fs.mkdir(caller(), dir, name('a'), 0o755, 0);
    await mount.fs.mkdir(caller(), dir, name('b'), 0o755, 0);
    for (const [from, to] of [
      ['a', 'c'],
      ['c', 'b'],
    ] as const) {
      await mount.fs.rename(caller(), dir, name(from), dir, name(to), 0);
      assert.ok(mount.meta.take().includes('rename'), 'directories are moved by request');
      await mount.fs.mknod(caller(), dir, name(`by ${to}`), S_IFREG | 0o644, 0, 0);
      await assert.rejects(mount.fs.lookup(caller(), dir, name(from)), absent);
      assert.deepEqual(mount.meta.take(), []);
      assert.equal((await mount.fs.lookup(caller(), dir, name(to))).attr.ino, made.attr.ino);
      mount.meta.take();
    }
    const names = (await list(mount, dir)).map((entry) => `${entry.name}`);
    assert.deepEqual(names.filter((each) => !each.startsWith('f')).sort(), ['.', '..', 'b', 'by b', 'by c']);
  });

  it('keeps both names of an inode when one is renamed to the other by request', async () => {
    const { mount, dir } = filled(2);
    const other = mount.second();
    const { attr } = await mount.fs.lookup(caller(), dir, name('f0'));
    await mount.fs.link(caller(), attr.ino, dir, name('g'));
    await list(other, dir);
    await list(mount, dir);
    await mount.fs.rename(caller(), dir, name('f0'), dir, name('g'), 0);
    assert.ok(mount.meta.take().includes('rename'));
    assert.equal((await mount.fs.lookup(caller(), dir, name('f0'))).attr.ino, attr.ino);
    assert.equal((await mount.fs.lookup(caller(), dir, name('g'))).attr.ino, attr.ino);
  });

  it('is asked for with all that is in it when files that others have looked at are replaced, as by sed -i', async () => {
    const { mount, dir } = filled(40);
    const other = mount.second();
    await list(other, dir);
    await list(mount, dir);
    for (let i = 0; i < 40; i++) {
      await mount.fs.mknod(caller(), dir, name('new'), S_IFREG | 0o644, 0, 0);
      await mount.fs.rename(caller(), dir, name('new'), dir, name(`f${i}`), 0);
    }
    const asked = mount.meta.take();
    assert.ok(asked.length <= 20, `${asked.length} requests: ${asked.join(' ')}`);
    assert.equal((await list(other, dir)).length, 2 + 40);
  });

  it('is asked for with all that is in it when that is changed and others have looked at it, as by chmod -R', async () => {
    const { mount, dir } = filled(40);
    const next = fill(mount, 'e', 40);
    const other = mount.second();
    await mount.fs.init(boundTo());
    const change = async (directory: number): Promise<string[]> => {
      const found = await list(other, directory);
      await list(mount, directory);
      for (const { name: each } of found.slice(2)) {
        const { attr } = await mount.fs.lookup(caller(), directory, each);
        await mount.fs.setattr(caller(), attr.ino, { mode: 0o600 });
      }
      return mount.meta.take();
    };
    const asked = await change(dir);
    assert.ok(asked.length <= 20, `${asked.length} requests: ${asked.join(' ')}`);
    const further = await change(next);
    assert.ok(further.length <= 6, `${further.length} requests: ${further.join(' ')}`);
    for (const directory of [dir, next])
      for (const { entry } of await list(other, directory))
        assert.ok(!entry || (entry.attr.mode & 0o777) === 0o600);
  });

  it('is not asked for with all that is in it for the sake of one file that is changed again and again', async () => {
    const { mount, dir } = filled(40);
    const other = mount.second();
    await mount.fs.init(boundTo());
    await list(other, dir);
    const { attr } = await mount.fs.lookup(caller(), dir, name('f1'));
    mount.meta.take();
    for (let i = 1; i <= 20; i++) {
      await other.fs.getattr(caller(), attr.ino);
      await mount.fs.setattr(caller(), attr.ino, { mtime: { sec: i, nsec: 0 } });
    }
    assert.ok(mount.meta.take().every((kind) => kind !== 'readDir'));
    assert.ok(other.meta.recalls.every(([ino]) => ino === attr.ino));
    for (let i = 1; i <= 20; i++) {
      await mount.clock.advance(ACQUIRE_RETRY_MS);
      await other.fs.getattr(caller(), attr.ino);
      await mount.fs.setattr(caller(), attr.ino, { mtime: { sec: i, nsec: 0 } });
      await mount.fs.mknod(caller(), dir, name(`n${i}`), S_IFREG | 0o644, 0, 0);
    }
    const listings = mount.meta.take().filter((kind) => kind === 'readDir').length;
    assert.ok(listings <= 3, `${listings} listings, as names beside it are made`);
  });

  it('is not asked for with all that is in it for the sake of a few changes', async () => {
    const { mount, dir } = filled(200);
    const other = mount.second();
    await list(other, dir);
    for (let i = 0; i < SOLE_AT_CHANGES; i++) await mount.fs.unlink(caller(), dir, name(`f${i}`));
    assert.ok(other.meta.recalls.length <= SOLE_AT_CHANGES + 1, `${other.meta.recalls.length} recalls`);
  });

  it('shows another mount each change that was made before it looked', async () => {
    const { mount, dir } = filled(20);
    const other = mount.second();
    await list(other, dir);
    for (let i = 0; i < 6; i++) {
      await mount.fs.unlink(caller(), dir, name(`f${i}`));
      await assert.rejects(other.fs.lookup(caller(), dir, name(`f${i}`)), absent);
      await mount.clock.advance(ACQUIRE_RETRY_MS);
    }
    assert.equal((await list(other, dir)).length, 2 + 14);
  });

  it('is not read as a whole for the sake of a few changes', async () => {
    const { mount, dir } = filled(3 * LISTING_PAGE_ENTRIES + 100);
    for (let i = 0; i < 3; i++) await mount.fs.unlink(caller(), dir, name(`f${i}`));
    assert.ok(mount.meta.take().filter((kind) => kind === 'readDir').length <= 3);
    for (let i = 3; i < 40; i++) await mount.fs.unlink(caller(), dir, name(`f${i}`));
    mount.meta.take();
    for (let i = 40; i < 60; i++) await mount.fs.unlink(caller(), dir, name(`f${i}`));
    assert.deepEqual(mount.meta.take(), [], 'but it is for the sake of many');
  });

  it('is left to all for longer the more often others want it', async () => {
    const { mount, dir } = filled(200);
    const other = mount.second();
    let at = 0;
    /** Changes until the directory is taken over, a second apart each; then another mount looks. */
    const round = async (): Promise<number> => {
      for (let seconds = 0; ; seconds++) {
        assert.ok(seconds < 60, 'it is taken over again at some time');
        mount.meta.take();
        await mount.fs.unlink(caller(), dir, name(`f${at++}`));
        if (mount.meta.take().length === 0) {
          await other.fs.lookup(caller(), dir, name('nothing')).catch(() => undefined);
          return seconds;
        }
        await mount.clock.advance(1_000);
      }
    };
    const waits = [await round(), await round(), await round(), await round()];
    assert.ok((waits[1] as number) < (waits[2] as number), `${waits}`);
    assert.ok((waits[2] as number) < (waits[3] as number), `${waits}`);
  });
});
