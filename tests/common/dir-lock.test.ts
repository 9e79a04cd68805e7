import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { DirectoryLockedError, lockDirectory } from '../../common/dir-lock.js';

describe('lockDirectory', () => {
  let dir: string;
  beforeEach(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-lock-'));
  });
  afterEach(() => fs.rmSync(dir, { recursive: true }));

  it('refuses a second holder until the first one gives the directory back', async () => {
    const release = await lockDirectory(dir);
    await assert.rejects(lockDirectory(dir), DirectoryLockedError);
    await release();
    await (await lockDirectory(dir))();
    assert.deepEqual(fs.readdirSync(dir), []);
  });

  it('names the process that holds the directory', async () => {
    const child = spawn('sleep', ['60']);
    try {
      const start = execFileSync('cut', ['-d ', '-f22', `/proc/${child.pid}/stat`])
        .toString()
        .trim();
      const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
      fs.writeFileSync(path.join(dir, 'lock'), JSON.stringify({ pid: child.pid, start, boot }));
      await assert.rejects(lockDirectory(dir), new RegExp(`in use by process ${child.pid}`));
    } finally {
      child.kill();
      await once(child, 'exit');
    }
    await (await lockDirectory(dir))();
  });

  it('takes over the lock of a process id that was reused, of another boot, and a damaged one', async () => {
    const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    const stale = [
      JSON.stringify({ pid: process.pid, start: '1', boot }),
      JSON.stringify({ pid: process.pid, start: '1', boot: 'other' }),
      '{"pid":',
    ];
    for (const content of stale) {
      fs.writeFileSync(path.join(dir, 'lock'), content);
      await (await lockDirectory(dir))();
    }
    assert.deepEqual(fs.readdirSync(dir), []);
  });
});
