import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {
  type Disk,
  diskErrorCode,
  nodeDisk,
  PoolBackoff,
  readWholeFile,
  replaceFile,
} from '../../common/disk.js';
import { MemoryDisk } from '../../common/memory-disk.js';
import { createPrng } from '../../common/prng.js';

async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  return promise.then(
    () => undefined,
    (error: unknown) => diskErrorCode(error),
  );
}

function contract(name: string, make: () => { disk: Disk; dir: string; clean: () => void }): void {
  describe(`Disk contract: ${name}`, () => {
    let disk: Disk;
    let dir: string;
    let clean: () => void;
    beforeEach(async () => {
      ({ disk, dir, clean } = make());
      await disk.mkdir(dir);
    });
    afterEach(() => clean());

    it('reads back what several parts wrote at a position, and zeros before it', async () => {
      const file = await disk.open(path.join(dir, 'a'), 'create');
      await file.write([Buffer.from('one'), Buffer.alloc(0), Buffer.from('two')], 4);
      const target = Buffer.alloc(20, 1);
      assert.equal(await file.read(target, 0), 10);
      assert.equal(target.subarray(0, 10).toString('latin1'), '\0\0\0\0onetwo');
      assert.equal(await file.size(), 10);
      assert.equal(await file.read(target, 10), 0);
      await file.close();
    });

    it('writes more parts than one system call takes', async () => {
      const file = await disk.open(path.join(dir, 'a'), 'create');
      const parts = Array.from({ length: 3000 }, (_, i) => Buffer.from([i % 251]));
      await file.write(parts, 0);
      await file.close();
      assert.deepEqual(await readWholeFile(disk, path.join(dir, 'a')), Buffer.concat(parts));
    });

    it('refuses to create what exists and to open what does not', async () => {
      await (await disk.open(path.join(dir, 'a'), 'create')).close();
      assert.equal(await codeOf(disk.open(path.join(dir, 'a'), 'create')), 'EEXIST');
      assert.equal(await codeOf(disk.open(path.join(dir, 'b'), 'write')), 'ENOENT');
      assert.equal(await codeOf(disk.unlink(path.join(dir, 'b'))), 'ENOENT');
    });

    it('truncates, and shows zeros when the file grows again', async () => {
      const file = await disk.open(path.join(dir, 'a'), 'create');
      await file.write([Buffer.from('abcdef')], 0);
      await file.truncate(2);
      await file.write([Buffer.from('z')], 4);
      await file.close();
      assert.equal((await readWholeFile(disk, path.join(dir, 'a'))).toString('latin1'), 'ab\0\0z');
    });

    it('lists names, renames and unlinks', async () => {
      for (const name of ['a', 'b']) await (await disk.open(path.join(dir, name), 'create')).close();
      await disk.rename(path.join(dir, 'a'), path.join(dir, 'c'));
      await disk.unlink(path.join(dir, 'b'));
      assert.deepEqual(await disk.list(dir), ['c']);
    });

    it('replaces a file as a whole, also when an earlier try left its temporary file', async () => {
      const file = path.join(dir, 'settings');
      await (await disk.open(`${file}.tmp`, 'create')).close();
      await replaceFile(disk, file, Buffer.from('first'));
      await replaceFile(disk, file, Buffer.from('2'));
      assert.equal((await readWholeFile(disk, file)).toString(), '2');
      assert.deepEqual(await disk.list(dir), ['settings']);
      assert.ok((await disk.space(dir)).freeBytes > 0);
    });
  });
}

contract('node', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-disk-'));
  return { disk: nodeDisk, dir, clean: () => fs.rmSync(dir, { recursive: true }) };
});
contract('memory', () => ({ disk: new MemoryDisk(), dir: '/d', clean: () => undefined }));

describe('MemoryDisk', () => {
  async function fileWith(disk: MemoryDisk, synced: string, unsynced: string): Promise<void> {
    const file = await disk.open('/d/f', 'create');
    await disk.syncDir('/d');
    await file.write([Buffer.from(synced)], 0);
    await file.datasync();
    await file.write([Buffer.from(unsynced)], synced.length);
  }

  it('loses what was not synced, and keeps what was, when the power is cut', async () => {
    const disk = new MemoryDisk();
    await fileWith(disk, 'kept', 'lost');
    disk.crash('nothing', createPrng(1));
    assert.equal(disk.content('/d/f').toString(), 'kept');
  });

  it('keeps everything when only the process dies', async () => {
    const disk = new MemoryDisk();
    await fileWith(disk, 'kept', 'too');
    disk.crash('everything', createPrng(1));
    assert.equal(disk.content('/d/f').toString(), 'kepttoo');
  });

  it('forgets a new name whose directory was not synced', async () => {
    const disk = new MemoryDisk();
    const file = await disk.open('/d/f', 'create');
    await file.datasync();
    disk.crash('nothing', createPrng(1));
    assert.deepEqual(await disk.list('/d'), []);
  });

  it('tears an unsynced write in some runs, and is the same for the same seed', async () => {
    const outcomes = new Map<string, number>();
    for (let seed = 0; seed < 40; seed++) {
      const runs = await Promise.all(
        [0, 1].map(async () => {
          const disk = new MemoryDisk();
          await fileWith(disk, 'kept', 'x'.repeat(4096));
          disk.crash('random', createPrng(seed));
          return disk.content('/d/f').toString('latin1');
        }),
      );
      assert.equal(runs[0], runs[1]);
      const count = [...(runs[0] as string)].filter((byte) => byte === 'x').length;
      const kind = count === 0 ? 'lost' : count === 4096 ? 'whole' : 'torn';
      outcomes.set(kind, (outcomes.get(kind) ?? 0) + 1);
    }
    assert.deepEqual([...outcomes.keys()].sort(), ['lost', 'torn', 'whole']);
  });

  it('fails the calls it was told to fail, and refuses to grow beyond its capacity', async () => {
    const disk = new MemoryDisk();
    const file = await disk.open('/d/f', 'create');
    disk.fail('datasync', 'EIO', 1);
    await file.datasync();
    assert.equal(await codeOf(file.datasync()), 'EIO');
    assert.equal(await codeOf(file.datasync()), undefined);
    disk.capacityBytes = 10;
    assert.equal(await codeOf(file.write([Buffer.alloc(11)], 0)), 'ENOSPC');
    assert.equal(await codeOf(file.write([Buffer.alloc(10)], 0)), undefined);
    disk.crash('nothing', createPrng(1));
    assert.equal(await codeOf(file.read(Buffer.alloc(1), 0)), 'EIO');
  });
});

describe('calls of the disk by the calling thread', () => {
  /** How many calls in a row are left to the pool. */
  function leftToPool(backoff: PoolBackoff): number {
    let left = 0;
    while (!backoff.mayCall()) left++;
    return left;
  }

  it('go on while they are quick, pause after a slow one, and longer after each further one', () => {
    const backoff = new PoolBackoff();
    for (let i = 0; i < 3; i++) backoff.took(0.1);
    assert.equal(leftToPool(backoff), 0);
    const pauses = Array.from({ length: 9 }, () => {
      backoff.took(10);
      return leftToPool(backoff);
    });
    assert.deepEqual(pauses, [8, 16, 32, 64, 128, 256, 512, 1024, 1024]);
    backoff.took(0.1);
    backoff.took(10);
    assert.equal(leftToPool(backoff), 8, 'a quick one begins anew');
  });

  it('read what is there, and nothing beyond the end or beyond their size', async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'hf-disk-'));
    try {
      const file = await nodeDisk.open(path.join(dir, 'a'), 'create');
      await file.write([Buffer.alloc(100_000, 7)], 0);
      const target = Buffer.alloc(1000);
      // A slow machine may leave any of them to the pool.
      const got = file.readNow?.(target, 99_000);
      assert.ok(got === undefined || (got === 1000 && target.every((byte) => byte === 7)));
      assert.equal(file.readNow?.(target, 99_001), undefined);
      assert.equal(file.readNow?.(Buffer.alloc(70_000), 0), undefined);
      await file.close();
    } finally {
      fs.rmSync(dir, { recursive: true });
    }
  });
});
