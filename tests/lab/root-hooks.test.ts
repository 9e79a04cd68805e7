import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import Mocha from 'mocha';
import { nodeScript, ROOT } from './command.js';
import { eventually } from './eventually.js';
import { isAlive, kill } from './processes.js';
import { givingUpAfter } from './root-hooks.js';

const SLOW_MS = 50;

describe('a test that waited in vain', () => {
  /** Runs two files of which the first begins with a failing test. @returns the tests that ran */
  async function ran(failsAfterMs: number): Promise<string[]> {
    const mocha = new Mocha({
      reporter: class extends Mocha.reporters.Base {},
      rootHooks: givingUpAfter(SLOW_MS),
    });
    const seen: string[] = [];
    for (const file of ['first', 'second']) {
      const suite = Mocha.Suite.create(mocha.suite, file);
      suite.file = file;
      const inner = Mocha.Suite.create(suite, 'inner');
      const add = (to: Mocha.Suite, title: string, run: () => Promise<void>): void => {
        const test = new Mocha.Test(title, () => {
          seen.push(`${file} ${title}`);
          return run();
        });
        test.file = file;
        to.addTest(test);
      };
      const fails = () =>
        new Promise<void>((_, reject) => setTimeout(() => reject(new Error('in vain')), failsAfterMs));
      add(suite, 'one', file === 'first' ? fails : async () => {});
      add(suite, 'two', async () => {});
      add(inner, 'three', async () => {});
    }
    await new Promise((resolve) => mocha.run(resolve));
    return seen;
  }

  it('takes the rest of its file with it, and no other file', async () => {
    assert.deepEqual(await ran(SLOW_MS * 2), ['first one', 'second one', 'second two', 'second three']);
  });

  it('lets the others run when it failed at once', async () => {
    assert.equal((await ran(0)).length, 6);
  });
});

describe('the end of a run that hangs', () => {
  it('ends what it started, and nothing else', async () => {
    const run = `of-this-test-${process.pid}`;
    // The child of a child that has left its group, as servers do.
    const script = 'setsid sleep 1000 & echo $!; wait';
    const env = { ...process.env, HOLDFAST_TEST_RUN: run };
    const own = spawn('bash', ['-c', script], { env, stdio: ['ignore', 'pipe', 'ignore'] });
    const other = spawn('sleep', ['1000'], { stdio: 'ignore' });
    try {
      const pid = Number(String((await once(own.stdout, 'data'))[0]));
      await eventually('the process has the environment', () => isAlive(pid));
      const module = pathToFileURL(join(ROOT, 'scripts', 'run-end.mjs')).href;
      const code = `const { endProcesses } = await import(args[0]); process.stdout.write(JSON.stringify(endProcesses(args[1])));`;
      const commands = JSON.parse(await nodeScript(code, [module, run])) as string[];
      assert.ok(commands.includes('sleep 1000'), String(commands));
      await eventually(
        'both are gone',
        () => !isAlive(pid) && own.exitCode === null && own.signalCode !== null,
      );
      assert.equal(isAlive(other.pid as number), true);
    } finally {
      kill(other.pid as number);
      if (own.pid !== undefined && isAlive(own.pid)) kill(own.pid);
    }
  });
});
