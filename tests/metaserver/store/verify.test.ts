import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createPrng } from '../../../common/prng.js';
import { LmdbKv } from '../../../metaserver/store/lmdb-kv.js';
import { verifyStoreFile } from '../../../metaserver/store/verify.js';
import { HoldfastError } from '../../../proto/errors.js';

const RECORDS = 3000;
const FIRST = Buffer.from([0]);
const LAST = Buffer.from([0xff]);
/** Places in the file at which a bit is flipped; each costs a process. */
const FLIPS = 24;
const PAGE_BYTES = 4096;

const key = (n: number): Buffer => Buffer.from(`key-${String(n).padStart(6, '0')}`);
const value = (n: number): Buffer => Buffer.from(`value ${n} `.repeat(1 + (n % 9)));

describe('a damaged store', function () {
  this.timeout(240_000);
  let dir: string;
  let sound: string;
  let path: string;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'holdfast-verify-'));
    sound = join(dir, 'sound');
    path = join(dir, 'store');
    const kv = LmdbKv.open(sound);
    for (let n = 0; n < RECORDS; n += 50) {
      kv.transaction((txn) => {
        for (let i = n; i < n + 50; i++) txn.put(key(i), value(i));
      });
      if (n % 500 === 0) await kv.flushed();
    }
    await kv.close();
  });
  beforeEach(() => {
    copyFileSync(sound, path);
    rmSync(`${path}-lock`, { force: true });
  });
  after(() => rm(dir, { recursive: true }));

  function flip(offset: number, bit = 0): void {
    const bytes = readFileSync(path);
    bytes[offset] = (bytes[offset] as number) ^ (1 << bit);
    writeFileSync(path, bytes);
  }

  const corrupt = (error: unknown): boolean =>
    error instanceof HoldfastError && error.errorName === 'CORRUPT';

  it('is sound as it was written, when it is empty, and when it is missing', async () => {
    await verifyStoreFile(sound);
    writeFileSync(path, '');
    await verifyStoreFile(path);
    await verifyStoreFile(join(dir, 'nowhere'));
  });

  it('tells of a flipped bit when the value is read, once, and takes no transaction any more', async () => {
    flip(readFileSync(path).lastIndexOf(value(1234)) + 3);
    const told: string[] = [];
    const kv = LmdbKv.open(path, { onFailure: (error) => told.push(error.errorName) });
    assert.ok(kv.get(key(1233))?.equals(value(1233)));
    assert.throws(() => kv.get(key(1234)), corrupt);
    assert.throws(() => [...kv.range(FIRST, LAST)], corrupt);
    assert.throws(() => kv.transaction((txn) => txn.put(key(1), value(1))), corrupt);
    await assert.rejects(
      kv.view().then((view) => view.get(key(1234))),
      corrupt,
    );
    assert.deepEqual(told, ['CORRUPT']);
    await kv.close();
  });

  it('is found by reading everything, wherever a bit was flipped, or holds all values whole', async () => {
    const prng = createPrng(11);
    const size = readFileSync(sound).length;
    let found = 0;
    for (let i = 0; i < FLIPS; i++) {
      copyFileSync(sound, path);
      rmSync(`${path}-lock`, { force: true });
      // Every other one into the head of a page, where LMDB keeps what it trusts.
      const page = prng.int(size / PAGE_BYTES) * PAGE_BYTES;
      const offset = i % 2 === 0 ? page + prng.int(64) : prng.int(size);
      flip(offset, prng.int(8));
      const damage = await verifyStoreFile(path).then(
        () => undefined,
        (error: unknown) => error,
      );
      if (damage) {
        assert.ok(
          damage instanceof HoldfastError && ['CORRUPT', 'VERSION'].includes(damage.errorName),
          String(damage),
        );
        found++;
        continue;
      }
      const kv = LmdbKv.open(path);
      let n = 0;
      for (const entry of kv.range(FIRST, LAST)) {
        assert.ok(entry.key.equals(key(n)) && entry.value.equals(value(n)), `record ${n}, bit at ${offset}`);
        n++;
      }
      assert.equal(n, RECORDS, `bit at ${offset}`);
      await kv.close();
    }
    assert.ok(found >= FLIPS / 8, `${found} of ${FLIPS} flipped bits mattered`);
  });
});
