import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Answer } from '../../../client/answer.js';
import type { FileAttr } from '../../../client/fuse/binding.js';
import { WRITE_BEHIND_DELAY_MS } from '../../../client/vfs/write-behind.js';
import { HoldfastError } from '../../../proto/errors.js';
import { S_IFIFO } from '../../../proto/types.js';
import { MemoryMeta } from '../support/memory-meta.js';
import { caller, TestMount } from '../support/test-mount.js';

const name = (text: string): Buffer => Buffer.from(text);

/** A mount with a directory that it has to itself, and one file in it made, so that the layout of files is known. */
async function delegated(): Promise<{ mount: TestMount; dir: number }> {
  const mount = new TestMount();
  await mount.close((await mount.create('first')).handle);
  const { attr } = await mount.fs.mkdir(caller(), 1, name('d'), 0o755, 0);
  await mount.fs.mkdir(caller(), attr.ino, name('sub'), 0o755, 0).catch(() => undefined); // brings inode numbers
  await mount.clock.advance(100);
  await mount.fs.rmdir(caller(), attr.ino, name('sub'));
  await mount.clock.advance(100);
  mount.meta.take();
  mount.meta.batches.splice(0);
  return { mount, dir: attr.ino };
}

async function create(mount: TestMount, dir: number, file: string, data = 0): Promise<number> {
  const reply = await mount.fs.create(caller(), dir, name(file), 0o644, 2, 0);
  if (data > 0) await mount.write(reply.handle, 0, Buffer.alloc(data, 7));
  await mount.close(reply.handle);
  return reply.entry.attr.ino;
}

interface Operation {
  kind: string;
  a: string;
  b: string;
  sub: boolean;
  bytes: number;
  number: number;
}

const op = (kind: string, a: string, more: Partial<Operation> = {}): Operation => ({
  ...{ kind, a, b: 'a', sub: false, bytes: 0, number: 0 },
  ...more,
});
const SUB = { sub: true };
/** Those of chattr: mostly such as leave something to do. */
const FLAGS = [0x10, 0x20, 0x40, 0x80, 0xc0];

/** Sequences in which mount and server once differed. */
const FOUND: [string, Operation[]][] = [
  [
    'blocks that are written over are counted once',
    [op('create', 'b', { bytes: 9000 }), op('create', 'a'), op('create', 'b', { bytes: 9000 })],
  ],
  [
    'a ctime that was shown of a write does not go back with an earlier chmod',
    [
      op('create', 'a', SUB),
      op('create', 'a', { ...SUB, bytes: 100 }),
      op('chmod', 'a', SUB),
      op('create', 'a', { ...SUB, bytes: 9000 }),
    ],
  ],
  [
    'the times that were set last stay when a commit is answered together with those before',
    [
      op('create', 'a', SUB),
      op('create', 'd', { bytes: 100 }),
      op('utimes', 'd'),
      op('link', 'a', SUB),
      op('utimes', 'd', { number: 1 }),
      op('create', 'c'),
      op('link', 'a', { b: 'b' }),
      op('create', 'b', SUB),
      op('rename', 'd'),
      op('create', 'd'),
    ],
  ],
];

describe('changes in a directory that nobody else uses', () => {
  it('cost no request each, and go to the server in order', async () => {
    const { mount, dir } = await delegated();
    await create(mount, dir, 'a', 4096);
    await create(mount, dir, 'b');
    await mount.fs.rename(caller(), dir, name('a'), dir, name('c'), 0);
    await mount.fs.unlink(caller(), dir, name('b'));
    assert.deepEqual(mount.meta.take(), []);
    await mount.clock.advance(WRITE_BEHIND_DELAY_MS);
    await mount.fs.fsyncdir(caller(), dir, 0, false);
    assert.deepEqual(mount.meta.calls, []);
    assert.deepEqual(
      mount.meta.batches.flat(),
      ['makeNode', 'makeNode', 'rename', 'unlink'],
      'data with its file',
    );
  });

  it('are answered without a turn of the event loop, and so is what tar writes and sets of a file', async () => {
    const { mount, dir } = await delegated();
    const [fs, who] = [mount.answering, caller()];
    const atOnce = <T>(answer: Answer<T>): T => {
      assert.ok(!(answer instanceof Promise));
      return answer;
    };
    const made = atOnce(fs.create(who, dir, name('f'), 0o600, 1, 0));
    const [{ ino }, { handle }] = [made.entry.attr, made];
    const data = Buffer.alloc(2000, 7);
    const request = { handle, offset: 0, data, fromCache: false, killPriv: false, flags: 1 };
    assert.equal(atOnce(fs.write(who, ino, request)), 2000);
    assert.equal(atOnce(fs.setattr(who, ino, { mtime: { sec: 5, nsec: 0 } })).attr.mtime.sec, 5);
    assert.equal(atOnce(fs.getxattr(who, ino, name('security.capability'))), undefined);
    assert.equal(atOnce(fs.setattr(who, ino, { uid: 3, gid: 4 })).attr.uid, 3);
    assert.equal(atOnce(fs.setattr(who, ino, { mode: 0o100644 })).attr.mode, 0o100644);
    atOnce(fs.flush(who, ino, handle, 0n));
    atOnce(fs.release(ino, handle, 1));
    assert.equal(atOnce(fs.getattr(who, ino)).attr.size, 2000);
    await mount.clock.advance(1_000);
    const { size, mode, uid, gid, mtime } = (await mount.second().fs.lookup(who, dir, name('f'))).attr;
    assert.deepEqual([size, mode, uid, gid, mtime.sec], [2000, 0o100644, 3, 4, 5]);
  });

  it('cost no request for another name of a file, as git gives it to each object', async () => {
    const { mount, dir } = await delegated();
    const ino = await create(mount, dir, 'tmp', 100);
    const sub = (await mount.fs.mkdir(caller(), dir, name('sub'), 0o755, 0)).attr.ino;
    const { attr } = await mount.fs.link(caller(), ino, sub, name('object'));
    assert.deepEqual([attr.ino, attr.nlink], [ino, 2]);
    await mount.fs.unlink(caller(), dir, name('tmp'));
    assert.equal((await mount.fs.lookup(caller(), sub, name('object'))).attr.nlink, 1);
    assert.deepEqual(mount.meta.take(), []);
    await mount.clock.advance(WRITE_BEHIND_DELAY_MS);
    await mount.fs.fsyncdir(caller(), dir, 0, false);
    assert.deepEqual(mount.meta.batches.flat(), ['makeNode', 'makeNode', 'link', 'unlink']);
    await assert.rejects(
      mount.fs.link(caller(), ino, sub, name('object')),
      (error: HoldfastError) => error.errorName === 'EEXIST',
    );
    await assert.rejects(
      mount.fs.link(caller(), sub, dir, name('directory')),
      (error: HoldfastError) => error.errorName === 'EPERM',
    );
  });

  it('are listed without a request: the answers to them tell the places of the names', async () => {
    const { mount, dir } = await delegated();
    const ino = await create(mount, dir, 'a', 100);
    await create(mount, dir, 'b');
    await mount.fs.link(caller(), ino, dir, name('c'));
    await mount.fs.rename(caller(), dir, name('a'), dir, name('d'), 0);
    const { handle } = await mount.fs.opendir(caller(), dir, 0);
    const entries = await mount.fs.readdir(caller(), dir, handle, 0, 100, false);
    assert.deepEqual(mount.meta.take(), []);
    const listed = await mount.second().fs.readdir(caller(), dir, 0, 0, 100, false);
    assert.deepEqual(entries, listed);
    assert.deepEqual(
      entries.map((entry) => entry.name.toString()),
      ['.', '..', 'd', 'b', 'c'],
    );
  });

  it('cost no request for an access list that says no more than a mode, as cp -p gives to each file', async () => {
    const { mount, dir } = await delegated();
    const ino = await create(mount, dir, 'a', 100);
    await mount.fs.setattr(caller(), ino, { mode: 0o4644 });
    const entries = [1, 6, 4, 4, 32, 0].flatMap((word, i) => (i % 2 ? [word, 0xffff, 0xffff] : [word]));
    const list = Buffer.from(Uint16Array.from([2, 0, ...entries]).buffer);
    const setAcl = (value: Buffer): Promise<void> =>
      mount.fs.setxattr(caller(), ino, name('system.posix_acl_access'), value, 0, false);
    await setAcl(list);
    assert.deepEqual(mount.meta.take(), []);
    assert.equal((await mount.fs.getattr(caller(), ino)).attr.mode & 0o7777, 0o4640);
    await assert.rejects(
      setAcl(list.subarray(0, 20)),
      (error: HoldfastError) => error.errorName === 'EINVAL',
    );
    await mount.fs.fsyncdir(caller(), dir, 0, false);
    assert.equal((await mount.second().fs.getattr(caller(), ino)).attr.mode & 0o7777, 0o4640);
  });

  it('are there for others as soon as they look', async () => {
    const { mount, dir } = await delegated();
    const two = mount.second();
    await create(mount, dir, 'a', 10_000);
    const { attr } = await two.fs.lookup(caller(), 1, name('d'));
    const found = await two.fs.lookup(caller(), attr.ino, name('a'));
    assert.equal(found.attr.size, 10_000);
    const { handle } = await two.open(found.attr.ino, 0);
    assert.deepEqual(await two.read(handle, 0, 20_000), Buffer.alloc(10_000, 7));
    await assert.rejects(
      mount.fs.create(caller(), dir, name('a'), 0o644, 2 | 0o200, 0),
      (error: HoldfastError) => error.errorName === 'EEXIST',
    );
    await two.fs.unlink(caller(), attr.ino, name('a'));
    await create(mount, dir, 'a', 5);
    assert.equal((await two.fs.lookup(caller(), attr.ino, name('a'))).attr.size, 5);
  });

  it('made while a commit is on its way do not undo the time of the write', async () => {
    const { mount, dir } = await delegated();
    const { entry, handle } = await mount.fs.create(caller(), dir, name('a'), 0o644, 2, 0);
    await mount.clock.advance(10);
    await mount.write(handle, 0, Buffer.alloc(10, 7));
    const { ino } = entry.attr;
    const times = async () => (await mount.fs.getattr(caller(), ino)).attr.mtime;
    const written = await times();
    assert.notDeepEqual(written, entry.attr.mtime);
    const shown: unknown[] = [];
    const { meta } = mount;
    const send = meta.mutateBatch.bind(meta);
    meta.mutateBatch = async (changes) => {
      if (meta.batches.length === 0) await mount.fs.setattr(caller(), ino, { mode: 0o600 });
      else shown.push(await times());
      return send(changes);
    };
    await mount.close(handle);
    await mount.fs.fsyncdir(caller(), dir, 0, false);
    assert.deepEqual(shown, [written]);
    assert.deepEqual(await times(), written);
  });

  it('a name that exists refuses, one that does not cannot be removed, without a request', async () => {
    const { mount, dir } = await delegated();
    const refused = (call: Promise<unknown>, error: string): Promise<void> =>
      assert.rejects(call, (failure: HoldfastError) => failure.errorName === error);
    await mount.fs.mkdir(caller(), dir, name('sub'), 0o755, 0);
    const { attr } = await mount.fs.lookup(caller(), dir, name('sub'));
    await create(mount, attr.ino, 'x');
    await refused(mount.fs.rmdir(caller(), dir, name('sub')), 'ENOTEMPTY');
    await refused(mount.fs.unlink(caller(), dir, name('nothing')), 'ENOENT');
    await refused(mount.fs.rename(caller(), dir, name('nothing'), dir, name('y'), 0), 'ENOENT');
    await create(mount, dir, 'f');
    await create(mount, dir, 'g');
    await refused(mount.fs.rename(caller(), dir, name('f'), dir, name('g'), 1), 'EEXIST');
    await refused(mount.fs.rmdir(caller(), dir, name('f')), 'ENOTDIR');
    assert.deepEqual(mount.meta.take(), []);
  });

  it('made by request, while no answer says that its lease still holds, are known when one does', async () => {
    const leaseMs = 5_000;
    const mount = new TestMount({ meta: new MemoryMeta(undefined, leaseMs) });
    const { attr } = await mount.fs.mkdir(caller(), 1, name('d'), 0o755, 0);
    await mount.fs.mkdir(caller(), attr.ino, name('old'), 0o755, 0);
    await mount.clock.advance(leaseMs + 100);
    await mount.fs.mkdir(caller(), attr.ino, name('new'), 0o755, 0);
    await mount.fs.rmdir(caller(), attr.ino, name('old'));
    mount.meta.leases.answered(mount.clock.now());
    assert.equal(mount.meta.leases.has(attr.ino), true);
    await mount.fs.lookup(caller(), attr.ino, name('new'));
    await assert.rejects(mount.fs.lookup(caller(), attr.ino, name('old')), { errorName: 'ENOENT' });
  });

  it('by request that are interrupted on their way are known once they are made', async () => {
    const { mount, dir } = await delegated();
    const release = mount.meta.hold();
    const interrupt = new AbortController();
    const who = caller({ signal: interrupt.signal });
    const made = mount.fs.mknod(who, dir, name('pipe'), S_IFIFO | 0o644, 0, 0);
    await mount.clock.advance(10);
    interrupt.abort();
    await assert.rejects(made, { errorName: 'EINTR' });
    const early = mount.fs.lookup(caller(), dir, name('pipe'));
    release();
    await early.catch(() => undefined);
    await mount.clock.advance(10);
    await mount.fs.lookup(caller(), dir, name('pipe'));
    assert.equal((await create(mount, dir, 'file')) > 0, true);
    await mount.fs.lookup(caller(), dir, name('file'));
  });

  it('that the server refuses in the end are reported at fsync of the directory, once', async () => {
    const { mount, dir } = await delegated();
    const { mutateBatch } = mount.meta.namespace;
    mount.meta.namespace.mutateBatch = (changes) => changes.map(() => FULL);
    await create(mount, dir, 'a');
    const sync = (): Promise<void> => mount.fs.fsyncdir(caller(), dir, 0, false);
    await assert.rejects(sync(), (error: HoldfastError) => error.errorName === 'ENOSPC');
    mount.meta.namespace.mutateBatch = mutateBatch;
    await sync();
    await assert.rejects(
      mount.fs.lookup(caller(), dir, name('a')),
      (error: HoldfastError) => error.errorName === 'ENOENT',
    );
  });

  it('that the server refuses are asked about once: what it says then is believed, although less happened than was foretold', async () => {
    const { mount, dir } = await delegated();
    const ino = await create(mount, dir, 'a');
    await mount.fs.fsyncdir(caller(), dir, 0, false);
    const mode = async (): Promise<number> => (await mount.fs.getattr(caller(), ino)).attr.mode & 0o777;
    const before = await mode();
    const { mutateBatch } = mount.meta.namespace;
    mount.meta.namespace.mutateBatch = (changes) => changes.map(() => FULL);
    await mount.fs.setattr(caller(), ino, { mode: 0o600 });
    assert.equal(await mode(), 0o600);
    await assert.rejects(mount.fs.fsyncdir(caller(), ino, 0, false), { errorName: 'ENOSPC' });
    mount.meta.namespace.mutateBatch = mutateBatch;
    mount.meta.take();
    assert.deepEqual([await mode(), await mode()], [before, before]);
    assert.deepEqual(mount.meta.take(), ['getAttr']);
  });

  it('show exactly what the server makes of them', async () => {
    const operation = fc.record({
      kind: fc.constantFrom(
        'create',
        'mkdir',
        'symlink',
        'unlink',
        'rmdir',
        'rename',
        'link',
        'chmod',
        'chown',
        'utimes',
        'chattr',
      ),
      a: fc.constantFrom('a', 'b', 'c', 'd'),
      b: fc.constantFrom('a', 'b', 'c', 'd'),
      sub: fc.boolean(),
      bytes: fc.constantFrom(0, 100, 9000),
      number: fc.integer({ min: 0, max: 0o7777 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { minLength: 5, maxLength: 40 }), (operations) =>
        agrees(operations),
      ),
      { numRuns: 60 },
    );
  });

  for (const [what, operations] of FOUND) it(`agree: ${what}`, () => agrees(operations));
});

/** Mount and server show the same names and attributes after the operations. */
async function agrees(operations: readonly Operation[]): Promise<void> {
  const { mount, dir } = await delegated();
  const sub = (await mount.fs.mkdir(caller(), dir, name('sub'), 0o2755, 0)).attr.ino;
  for (const one of operations) {
    await mount.clock.advance(7);
    const at = one.sub ? sub : dir;
    const other = one.number % 2 ? sub : dir;
    const run = async (): Promise<unknown> => {
      const { fs } = mount;
      const who = caller({ uid: one.number % 3, gid: 5 });
      if (one.kind === 'create') return create(mount, at, one.a, one.bytes);
      if (one.kind === 'mkdir') return fs.mkdir(who, at, name(one.a), one.number, 0o22);
      if (one.kind === 'symlink') return fs.symlink(who, at, name(one.a), name('target'));
      if (one.kind === 'unlink') return fs.unlink(caller(), at, name(one.a));
      if (one.kind === 'rmdir') return fs.rmdir(caller(), at, name(one.a));
      if (one.kind === 'rename') return fs.rename(caller(), at, name(one.a), other, name(one.b), 0);
      const { attr } = await fs.lookup(caller(), at, name(one.a));
      if (one.kind === 'chattr')
        return fs.setFlags(caller(), one.number % 5 ? attr.ino : at, FLAGS[one.number % 8] ?? 0);
      if (one.kind === 'link') return fs.link(caller(), attr.ino, other, name(one.b));
      if (one.kind === 'chmod') return fs.setattr(caller(), attr.ino, { mode: one.number });
      if (one.kind === 'chown') return fs.setattr(caller(), attr.ino, { uid: one.number, gid: 3 });
      return fs.setattr(caller(), attr.ino, { mtime: { sec: one.number, nsec: 5 }, atime: 'now' });
    };
    await run().catch((error: unknown) => {
      if (!(error instanceof HoldfastError)) throw error;
    });
  }
  const seen = [await tree(mount, dir), await tree(mount, sub)];
  await mount.fs.fsyncdir(caller(), dir, 0, false);
  await mount.clock.advance(2_000);
  const fresh = mount.second();
  const stored = [await tree(fresh, dir), await tree(fresh, sub)];
  assert.deepEqual(seen, stored);
}

/** Names and attributes of a directory and what is in it. */
async function tree(mount: TestMount, dir: number): Promise<unknown> {
  const entries = await mount.fs.readdir(caller(), dir, 0, 0, 1000, false);
  const attrs: [string, FileAttr][] = [];
  for (const entry of entries.slice(2)) {
    attrs.push([entry.name.toString(), (await mount.fs.lookup(caller(), dir, entry.name)).attr]);
  }
  return [(await mount.fs.getattr(caller(), dir)).attr, attrs];
}

const FULL = { error: 28, errorText: '', mutation: undefined, session: 0, mapChanged: false };
