import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { canMount, Mounted } from './support/mounted.js';
import { sh } from './support/shell.js';

describe('mounting with the binding left open', () => {
  it('takes the kernel binding as root, follows a link, and refuses a second mount on top', async function () {
    if (!canMount()) this.skip();
    const base = await mkdtemp(path.join(tmpdir(), 'holdfast-mount-'));
    await sh(base, 'mkdir empty; ln -s empty link');
    const mounted = await Mounted.start('auto', { mountPoint: path.join(base, 'link') });
    try {
      const info = (await mounted.command({ command: 'info' })) as { kind: string; notify: boolean };
      assert.deepEqual([info.kind, info.notify], ['kernel', true]);
      assert.equal(await sh(base, 'echo x > empty/f; cat link/f'), 'x');
      const second = Mounted.start('auto', { mountPoint: path.join(base, 'empty') });
      await assert.rejects(second, /memory is already mounted there$/);
      await mounted.command({ command: 'unmount', graceMs: 1000 });
      assert.equal(await mounted.exited, 0);
      assert.equal(await sh(base, 'ls -A empty'), '');
    } finally {
      await mounted.stop();
      await rm(base, { recursive: true, force: true });
    }
  });
});
