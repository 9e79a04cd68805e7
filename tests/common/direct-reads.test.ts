import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { DIRECT_READ_MIN_BYTES, DirectReader, READ_AGAIN_MS } from '../../common/direct-reads.js';
import { nodeDisk } from '../../common/disk.js';
import { cachedBytes, TMPFS_MAGIC } from './page-cache.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const FILE_BYTES = 8 * MIB + 777;

describe('large reads past the page cache', () => {
  it('are those of what was not read lately', () => {
    const reader = new DirectReader('/nowhere');
    assert.equal(reader.wants(DIRECT_READ_MIN_BYTES - 1, 0, 0), false);
    assert.equal(reader.wants(MIB, 0, 0), true);
    assert.equal(reader.wants(MIB, MIB, 0), true);
    assert.equal(reader.wants(MIB, 100, 1000), false, 'again');
    assert.equal(reader.wants(MIB, 0, 1000 + READ_AGAIN_MS - 1), false, 'and again');
    assert.equal(reader.wants(MIB, 0, 1000 + 2 * READ_AGAIN_MS), true, 'after a long time');
    const opened = new DirectReader('/nowhere');
    assert.equal(opened.wants(MIB, 0, 1001 + 2 * READ_AGAIN_MS), false, 'of a file that was opened anew');
    assert.equal(new DirectReader('/elsewhere').wants(MIB, 0, 1000), true, 'of another file');
  });

  it('leave what cannot be opened so to the page cache', async () => {
    const reader = new DirectReader('/nowhere');
    assert.equal(await reader.read(Buffer.alloc(MIB), 0), undefined);
    assert.equal(reader.wants(MIB, 5 * MIB, 0), false);
    await reader.close();
  });

  describe('on the file system of this machine', () => {
    let dir: string;
    let name: string;
    let expected: Buffer;
    beforeEach(() => {
      dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-direct-'));
      name = path.join(dir, 'a');
      expected = Buffer.allocUnsafe(FILE_BYTES);
      for (let i = 0; i < FILE_BYTES; i++) expected[i] = (i * 31 + (i >> 12)) & 0xff;
      fs.writeFileSync(name, expected);
    });
    afterEach(() => fs.rmSync(dir, { recursive: true }));

    it('give the bytes of any place, and fewer only at the end of the file', async () => {
      const file = await nodeDisk.open(name, 'write');
      const places: [number, number][] = [
        [0, MIB],
        [MIB, MIB],
        [2 * MIB + 1, MIB],
        [3 * MIB + 4095, 3 * MIB + 2],
        [FILE_BYTES - MIB, MIB],
        [FILE_BYTES - MIB - 300, 2 * MIB],
        [FILE_BYTES - 1, MIB],
        [FILE_BYTES, MIB],
        [FILE_BYTES + 5 * MIB, MIB],
      ];
      for (const [at, length] of places) {
        const target = Buffer.alloc(length);
        const got = await file.read(target, at);
        assert.equal(got, Math.max(0, Math.min(length, FILE_BYTES - at)), `at ${at}`);
        assert.ok(target.subarray(0, got).equals(expected.subarray(at, at + got)), `at ${at}`);
      }
      await file.close();
    });

    it('see what was written a moment ago, through the page cache or past it', async () => {
      const file = await nodeDisk.open(name, 'write');
      for (const bytes of [100, 5000, MIB, 2 * MIB]) {
        const data = Buffer.alloc(bytes, bytes & 0xff);
        await file.write([data], 3 * MIB + 70);
        const target = Buffer.alloc(2 * MIB + 500);
        const reader = new DirectReader(name);
        const got = (await reader.read(target, 3 * MIB)) ?? (await file.read(target, 3 * MIB));
        assert.equal(got, target.length);
        assert.ok(target.subarray(70, 70 + bytes).equals(data), `${bytes} bytes`);
        await reader.close();
      }
      await file.close();
    });

    it('are not put off by a first read behind the end of a file', () => {
      const disk = new URL('../../common/direct-reads.js', import.meta.url).href;
      // In a process of its own, for the memory is found once.
      const script = `
        const { DirectReader } = await import(${JSON.stringify(disk)});
        const behind = new DirectReader(${JSON.stringify(name)});
        await behind.read(Buffer.alloc(${MIB}), ${2 * FILE_BYTES});
        const reader = new DirectReader(${JSON.stringify(name)});
        console.log(await reader.read(Buffer.alloc(${MIB}), 0));`;
      const run = (source: string): string =>
        execFileSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' });
      const without = script.replace(/await behind.read.*;/, '');
      assert.equal(run(script), run(without), 'as if that read had not been');
    });

    it('take many at once, with the memory that there is', async () => {
      const file = await nodeDisk.open(name, 'read');
      const reads = Array.from({ length: 24 }, async (_, i) => {
        const target = Buffer.alloc(300 * KIB);
        const at = i * 300 * KIB + i;
        assert.equal(await file.read(target, at), target.length);
        assert.ok(target.equals(expected.subarray(at, at + target.length)), `read ${i}`);
      });
      await Promise.all(reads);
      await file.close();
    });

    it('put nothing into the page cache the first time', async function () {
      if (fs.statfsSync(dir).type === TMPFS_MAGIC) this.skip();
      const file = await nodeDisk.open(path.join(dir, 'b'), 'create');
      await file.write([expected.subarray(0, 4 * MIB)], 0);
      await file.datasync();
      const cached = cachedBytes(path.join(dir, 'b'));
      if (cached !== 0) this.skip(); // no such tool, or no such writes here
      await file.read(Buffer.alloc(MIB), MIB);
      assert.equal(cachedBytes(path.join(dir, 'b')), 0);
      await file.read(Buffer.alloc(MIB), MIB);
      assert.ok((cachedBytes(path.join(dir, 'b')) ?? 0) >= MIB);
      await file.close();
    });
  });
});
