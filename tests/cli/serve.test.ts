import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../lab/command.js';
import { temporaryDirectory } from '../lab/directories.js';

/** A process of ours with a thread that waits for ever, as a mount's do; `failure` is run in it. */
function endOf(failure: string): { signal: NodeJS.Signals | null; lines: string[] } {
  const dir = temporaryDirectory('serve');
  const pipe = join(dir, 'pipe');
  const program = `
    import { constants, openSync, read } from 'node:fs';
    import { processDeps } from ${JSON.stringify(join(ROOT, 'dist', 'cli', 'serve.js'))};
    processDeps({ part: 'test' }, 'info');
    read(openSync(${JSON.stringify(pipe)}, constants.O_RDWR), Buffer.alloc(1), 0, 1, null, () => {});
    setImmediate(() => { ${failure} });`;
  try {
    assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
    const argv = ['--input-type=module', '-e', program];
    const { signal, stdout } = spawnSync(process.execPath, argv, {
      encoding: 'utf8',
      timeout: 60_000,
      killSignal: 'SIGTERM',
    });
    return { signal, lines: stdout.split('\n').filter((line) => line !== '') };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

describe('a long-running process in which an assertion fails', function () {
  this.timeout(130_000);

  for (const [name, failure] of [
    ['in a callback', `throw new Error('broken invariant');`],
    ['in a promise that nobody awaits', `void Promise.reject(new Error('broken invariant'));`],
  ] as const) {
    it(`ends at once with the reason in its log, although a thread waits for ever: ${name}`, () => {
      const { signal, lines } = endOf(failure);
      assert.equal(signal, 'SIGKILL');
      assert.equal(lines.length, 1);
      const line = JSON.parse(lines[0] as string) as { level: string; msg: string; err: { message: string } };
      assert.equal(line.level, 'error');
      assert.match(line.msg, /^fatal/);
      assert.equal(line.err.message, 'broken invariant');
    });
  }
});
