import assert from 'node:assert/strict';
import {
  closeSync,
  fsyncSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { delay, systemClock } from '../../common/clock.js';
import { sh } from './command.js';
import { temporaryDirectory } from './directories.js';
import { ImageDisk, imageDiskUnavailable } from './image-disk.js';

describe('a disk that can lose its power', function () {
  this.timeout(60_000);
  let root: string;
  let disk: ImageDisk;
  before(function () {
    if (imageDiskUnavailable()) this.skip();
    root = temporaryDirectory('image-disk');
    disk = new ImageDisk(join(root, 'disk'));
    disk.create(64);
  });
  after(() => {
    disk?.destroy();
    if (root) rmSync(root, { recursive: true, force: true });
  });

  it('keeps what was synced and nothing else', () => {
    const path = join(disk.dir, 'file');
    const file = openSync(path, 'w');
    writeSync(file, 'a'.repeat(100_000));
    fsyncSync(file);
    writeSync(file, 'b'.repeat(100_000));
    closeSync(file);
    writeFileSync(join(disk.dir, 'never-synced'), 'c'.repeat(100_000));
    disk.powerCut();
    assert.equal(readFileSync(path, 'utf8'), 'a'.repeat(100_000));
    assert.equal(statSync(join(disk.dir, 'never-synced'), { throwIfNoEntry: false })?.size ?? 0, 0);
  });

  it('hangs every write until it is thawed', async () => {
    await disk.freeze();
    const path = join(disk.dir, 'late');
    const writing = sh(`echo late > ${path}; sync ${path}; echo done`);
    const first = await Promise.race([writing, delay(systemClock, 300)]);
    assert.equal(first, undefined);
    disk.thaw();
    assert.equal((await writing).trim(), 'done');
    assert.equal(readFileSync(path, 'utf8'), 'late\n');
  });

  it('fills, and is as it was when that ends', () => {
    const write = (): void => writeFileSync(join(disk.dir, 'more'), Buffer.alloc(8 * 1024 * 1024));
    disk.fill(4);
    assert.throws(write, { code: 'ENOSPC' });
    disk.free();
    write();
    disk.fill(0);
    assert.throws(() => writeFileSync(join(disk.dir, 'tiny'), Buffer.alloc(64 * 1024)), { code: 'ENOSPC' });
    disk.free();
    write();
  });
});
