import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDirectory } from './bench.js';
import { localFeatures } from './features.js';
import { posixSuite } from './suite.js';

// What the suite asks of a mount must be what a local file system does: it is run on one first.
describe('POSIX on a local directory', function () {
  this.timeout(120_000);
  const dir = process.env.HOLDFAST_POSIX_DIR ?? mkdtempSync(join(tmpdir(), 'holdfast-posix-'));
  openDirectory(dir);
  before(function () {
    if (process.getuid?.() !== 0) this.skip();
  });
  after(() => {
    // Node itself cannot remove paths beyond 4095 bytes.
    if (process.env.HOLDFAST_POSIX_DIR === undefined) spawnSync('rm', ['-rf', dir]);
  });
  posixSuite(() => dir, localFeatures(dir));
});
