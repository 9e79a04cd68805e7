import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { DIRECT_PART_MIN_BYTES, writeRuns } from '../../common/direct-writes.js';
import { nodeDisk } from '../../common/disk.js';
import { run } from '../lab/command.js';
import { cachedBytes, TMPFS_MAGIC } from './page-cache.js';

const DISK = new URL('../../common/disk.js', import.meta.url).href;
const KIB = 1024;
const MIB = 1024 * KIB;

function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + seed + (i >> 12)) & 0xff;
  return bytes;
}

describe('writes past the page cache', () => {
  const shape = (parts: Buffer[], position: number) =>
    writeRuns(parts, position).map((run) => ({
      at: run.position,
      bytes: run.parts.reduce((sum, part) => sum + part.length, 0),
      direct: run.direct,
    }));

  it('take the whole blocks of large parts alone', () => {
    const small = Buffer.alloc(100);
    const large = Buffer.alloc(MIB);
    assert.deepEqual(shape([small, small], 64), [{ at: 64, bytes: 200, direct: false }]);
    assert.deepEqual(shape([small, large, small, large], 64), [
      { at: 64, bytes: 4032, direct: false },
      { at: 4096, bytes: MIB - 4096, direct: true },
      { at: MIB, bytes: 164 + 100 + 3832, direct: false },
      { at: MIB + 4096, bytes: MIB - 4096, direct: true },
      { at: 2 * MIB, bytes: 264, direct: false },
    ]);
  });

  it('take a part that lies on blocks as it is, and none that is a little smaller', () => {
    const part = Buffer.alloc(DIRECT_PART_MIN_BYTES);
    assert.deepEqual(shape([part], 8192), [{ at: 8192, bytes: part.length, direct: true }]);
    assert.deepEqual(shape([part.subarray(1)], 8192), [{ at: 8192, bytes: part.length - 1, direct: false }]);
  });

  describe('on the file system of this machine', () => {
    let dir: string;
    beforeEach(() => {
      dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-direct-'));
    });
    afterEach(() => fs.rmSync(dir, { recursive: true }));

    it('leave what was written, whatever its place, beside writes of the page cache', async () => {
      const name = path.join(dir, 'a');
      const file = await nodeDisk.open(name, 'create');
      const expected: Buffer[] = [];
      let at = 0;
      for (const [i, bytes] of [70, MIB, 3, 300 * KIB, 5 * MIB + 17, 4096, 8 * MIB, 1].entries()) {
        const parts = [pattern(32, i), pattern(bytes, i + 7)];
        await file.write(parts, at);
        at += 32 + bytes;
        expected.push(...parts);
      }
      await file.datasync();
      assert.ok(fs.readFileSync(name).equals(Buffer.concat(expected)));
      const again = pattern(2 * MIB, 99);
      await file.write([again], 1000);
      const target = Buffer.alloc(again.length);
      assert.equal(await file.read(target, 1000), again.length);
      assert.ok(target.equals(again));
      await file.close();
    });

    it('of many at once keep to their bytes', async () => {
      const files = await Promise.all(
        Array.from({ length: 12 }, (_, i) => nodeDisk.open(path.join(dir, `f${i}`), 'create')),
      );
      const bytes = files.map((_, i) => pattern(3 * MIB + i, i));
      await Promise.all(files.map((file, i) => file.write([bytes[i] as Buffer], i)));
      await Promise.all(files.map((file) => file.close()));
      for (const [i, part] of bytes.entries()) {
        assert.ok(
          fs
            .readFileSync(path.join(dir, `f${i}`))
            .subarray(i)
            .equals(part),
        );
      }
    });

    it('are not in the page cache', async function () {
      if (fs.statfsSync(dir).type === TMPFS_MAGIC) this.skip();
      const name = path.join(dir, 'a');
      // In a process of its own: what another disk takes for a right place of memory, this one may not (StagingMemory).
      const write = `const { nodeDisk } = await import(process.argv[1]);
        const file = await nodeDisk.open(process.argv[2], 'create');
        await file.write([Buffer.alloc(32), Buffer.alloc(${4 * MIB}, 1)], 0);
        await file.datasync();
        await file.close();`;
      const written = await run(process.execPath, ['--input-type=module', '-e', write, DISK, name]);
      assert.equal(written.code, 0, written.stderr);
      const cached = cachedBytes(name);
      if (cached === undefined) this.skip();
      assert.ok(cached <= 64 * KIB, `${cached} bytes are in the page cache`);
    });
  });
});
