import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { mountsBelow, temporaryDirectory } from '../../../lab/directories.js';
import { canMount, removeLeftovers } from './mounted.js';

describe('the mount of a test process that was killed', function () {
  this.timeout(60_000);
  before(function () {
    if (!canMount()) this.skip();
  });

  it('is ended by the next one', async () => {
    const dir = temporaryDirectory('leftover');
    const told = path.join(dir, 'mount-point');
    const program = `
      import { writeFileSync } from 'node:fs';
      import { Mounted } from ${JSON.stringify(new URL('./mounted.js', import.meta.url).pathname)};
      process.execArgv.length = 0; // its child is a file, not a text
      const { mountPoint } = await Mounted.start('kernel');
      writeFileSync(${JSON.stringify(told)}, mountPoint);
      process.kill(process.pid, 'SIGKILL');`;
    const argv = ['--input-type=module', '-e', program];
    // The process that serves the mount outlives it, with whatever it has inherited: no pipes.
    const { signal } = spawnSync(process.execPath, argv, { timeout: 50_000, stdio: 'ignore' });
    assert.equal(signal, 'SIGKILL');
    const base = path.dirname(readFileSync(told, 'utf8'));
    rmSync(dir, { recursive: true });
    assert.equal(mountsBelow(base).length, 1);
    await removeLeftovers();
    assert.deepEqual(mountsBelow(base), []);
    assert.ok(!existsSync(base));
  });
});
