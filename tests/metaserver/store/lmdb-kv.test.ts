import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { open as openLmdb } from 'lmdb';
import { LmdbKv } from '../../../metaserver/store/lmdb-kv.js';
import { HoldfastError } from '../../../proto/errors.js';

const key = (n: number): Buffer => Buffer.from(`key-${String(n).padStart(8, '0')}`);
const FIRST = Buffer.from([0]);
const LAST = Buffer.from([0xff]);

function fill(kv: LmdbKv, from: number, to: number, value: string): void {
  kv.transaction((txn) => {
    for (let n = from; n < to; n++) txn.put(key(n), Buffer.from(value));
  });
}

function refusedWith(name: string, text: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof HoldfastError && error.errorName === name && text.test(error.message);
}

describe('LmdbKv', () => {
  let directory: string;
  let path: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'holdfast-lmdb-'));
    path = join(directory, 'store');
  });
  afterEach(() => rm(directory, { recursive: true }));

  it('refuses a file that is not LMDB', async () => {
    await writeFile(path, Buffer.alloc(100_000, 'garbage'));
    assert.throws(() => LmdbKv.open(path), refusedWith('CORRUPT', /is not an LMDB file/));
  });

  it('refuses a store that was cut off', async () => {
    const kv = LmdbKv.open(path);
    fill(kv, 0, 5000, 'some value');
    await kv.close();
    await truncate(path, 12_288);
    assert.throws(() => LmdbKv.open(path), refusedWith('CORRUPT', /is cut off/));
    await truncate(path, 4096);
    assert.throws(() => LmdbKv.open(path), refusedWith('CORRUPT', /damaged second meta page/));
    await truncate(path, 10);
    assert.throws(() => LmdbKv.open(path), refusedWith('CORRUPT', /is not an LMDB file/));
  });

  it('refuses another LMDB format, and an LMDB file of somebody else', async () => {
    await LmdbKv.open(path).close();
    const file = await open(path, 'r+');
    await file.write(Buffer.from([9]), 0, 1, 28);
    await file.close();
    assert.throws(() => LmdbKv.open(path), refusedWith('VERSION', /LMDB format 9, not 2/));

    const foreign = openLmdb<Buffer, Buffer>({ path: join(directory, 'foreign'), noSubdir: true });
    await foreign
      .openDB<Buffer, Buffer>('data', { keyEncoding: 'binary', encoding: 'binary' })
      .put(key(1), key(2));
    await foreign.close();
    assert.throws(() => LmdbKv.open(join(directory, 'foreign')), refusedWith('VERSION', /no format record/));
  });

  it('refuses its own newer format', async () => {
    const newer = openLmdb<Buffer, Buffer>({ path, noSubdir: true });
    const format = newer.openDB<Buffer, Buffer>('format', { keyEncoding: 'binary', encoding: 'binary' });
    await format.put(Buffer.from('format'), Buffer.from('holdfast-kv 3'));
    await newer.close();
    assert.throws(() => LmdbKv.open(path), refusedWith('VERSION', /"holdfast-kv 3", not "holdfast-kv 2"/));
  });

  it('flushes by itself when enough has been written, and reads right all the while', async () => {
    const kv = LmdbKv.open(path, { flushAtBytes: 2000 });
    for (let n = 0; n < 3000; n++) {
      fill(kv, n, n + 1, `v${n}`);
      if (n % 3 === 0) kv.transaction((txn) => txn.delete(key(n)));
      if (n % 100 === 0) await new Promise(setImmediate);
      const probe = (n * 7919) % (n + 1);
      const expected = probe % 3 === 0 ? undefined : `v${probe}`;
      assert.equal(kv.get(key(probe))?.toString(), expected, `${probe} after ${n}`);
    }
    assert.equal([...kv.range(FIRST, LAST)].length, 2000);
    await kv.close();
    const again = LmdbKv.open(path);
    assert.equal([...again.range(FIRST, LAST)].length, 2000);
    assert.equal(again.get(key(2999))?.toString(), 'v2999');
    await again.close();
  });

  it('tells when it is behind, and refuses transactions long after', async () => {
    const kv = LmdbKv.open(path);
    const big = Buffer.alloc(9 * 1024 * 1024, 1);
    let n = 0;
    const put = (): void => kv.transaction((txn) => txn.put(key(n++), big));
    for (let i = 0; i < 3; i++) put();
    assert.equal(kv.behind(), undefined);
    put();
    const wait = kv.behind();
    assert.ok(wait);
    await wait;
    assert.equal(kv.behind(), undefined);
    for (let i = 0; i < 15; i++) put();
    assert.throws(put, refusedWith('OVERLOADED', /does not keep up/));
    await kv.close();
  }).timeout(20_000);

  it('holds a prefix of the transactions after kill -9, with all that was flushed', async () => {
    const victim = new URL('./kill-victim.js', import.meta.url).pathname;
    const child = spawn(process.execPath, [...loaderArguments(), victim, path]);
    let flushed = 0;
    const exited = new Promise((resolve) => child.once('exit', resolve));
    let errors = '';
    child.stderr.on('data', (data: Buffer) => {
      errors += data.toString();
    });
    child.stdout.on('data', (data: Buffer) => {
      flushed = Number(data.toString().trim().split('\n').at(-1));
      if (flushed >= 2000) child.kill('SIGKILL');
    });
    await exited;
    assert.ok(flushed >= 2000, errors);
    const kv = LmdbKv.open(path);
    const applied = Number(kv.get(Buffer.from('applied'))?.toString());
    assert.ok(applied >= flushed, `${applied} applied, ${flushed} flushed`);
    for (let n = 1; n <= applied; n++) assert.equal(kv.get(key(n))?.toString(), `${n}`);
    assert.equal([...kv.range(FIRST, LAST)].length, applied + 1);
    await kv.close();
  }).timeout(20_000);

  it('stops writing, but not reading, when the disk refuses; what was flushed before is there afterwards', async () => {
    const victim = new URL('./full-disk-victim.js', import.meta.url).pathname;
    // A limit on the file's size stands for a full disk.
    const script = `trap '' XFSZ; ulimit -f 2048; exec "$0" "$@"`;
    const child = spawn('bash', ['-c', script, process.execPath, ...loaderArguments(), victim, path]);
    let output = '';
    child.stdout.on('data', (data: Buffer) => {
      output += data.toString();
    });
    const code = await new Promise((resolve) => child.once('exit', resolve));
    const report = JSON.parse(output) as {
      flushed: number;
      errors: string[];
      firstRead: string;
      lastRead: string;
      toldAtOnce: string[];
      told: string[];
    };
    assert.equal(code, 0);
    assert.deepEqual([report.toldAtOnce, report.told], [['EIO'], ['EIO']]);
    assert.equal(report.errors.length, 4);
    for (const error of report.errors) assert.match(error, /writing the store .*: Input\/output error/);
    assert.deepEqual([report.firstRead, report.lastRead], ['value', 'value']);
    assert.ok(report.flushed > 0);
    const kv = LmdbKv.open(path);
    assert.equal([...kv.range(FIRST, LAST)].length, report.flushed);
    await kv.close();
  }).timeout(20_000);
});

/** How this process was told to load TypeScript, if it was. */
function loaderArguments(): string[] {
  return [...process.execArgv, ...process.argv].filter((arg) => arg.startsWith('--import='));
}
