import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { FUSE_NATIVE_LIMITS } from '../../../client/fuse/fuse-native.js';
import { casesFor } from './support/cases.js';
import { canMount, Mounted } from './support/mounted.js';
import { runShell, sh } from './support/shell.js';

describe('the fuse-native binding as a file system', () => {
  let mounted: Mounted;
  before(async function () {
    if (!canMount()) this.skip();
    mounted = await Mounted.start('fuse-native');
  });
  after(() => mounted?.stop());

  for (const [index, each] of casesFor([]).entries()) {
    it(each.name, async () => {
      await mounted.sh(`mkdir case-${index}`);
      await each.run((script) => sh(`${mounted.mountPoint}/case-${index}`, script));
    });
  }

  it('says what it cannot do', async () => {
    const info = await mounted.command({ command: 'info' });
    assert.deepEqual(info, {
      kind: 'fuse-native',
      maxWrite: 128 * 1024,
      callerIdentity: false,
      nanoseconds: false,
      notify: false,
    });
    assert.ok(FUSE_NATIVE_LIMITS.length > 5 && FUSE_NATIVE_LIMITS.every((line) => !line.includes('\n')));
  });

  it('writes 128 KiB in one request', async () => {
    await mounted.trace();
    await mounted.sh('dd if=/dev/zero of=big bs=1M count=1 status=none');
    const sizes = (await mounted.trace())
      .filter(({ method }) => method === 'write')
      .map(({ args }) => JSON.parse(String(args[1])).data);
    assert.deepEqual(sizes, new Array(8).fill('<131072>'));
  });

  it('refuses what it cannot do: names that are not UTF-8, times before 1970, rename flags', async () => {
    const out = await mounted.sh(`
      mkdir r; cd r; echo x > "$(printf 'a\\377')" 2>&1 || true; ls -A | wc -l
      echo x > f; sys utimensat f -100 0 -100 0; echo y > g; sys renameat2 f g 1; sys renameat2 f g 2; cat f g`);
    assert.match(out, /^0\nerrno 22\nerrno (17|22)\nerrno 22\nx\ny$/);
  });

  it('hides an open file that is deleted until it is closed', async () => {
    const out = await mounted.sh(`
      mkdir h; echo x > h/f; exec 3< h/f; rm h/f; ls -A h | cut -c1-12; exec 3<&-; cat < /dev/null; ls -A h | wc -l`);
    assert.equal(out, '.fuse_hidden\n0');
  });
});

describe('a mount of the fuse-native binding', () => {
  let mounted: Mounted;
  beforeEach(async function () {
    if (!canMount()) this.skip();
    mounted = await Mounted.start('fuse-native');
  });
  afterEach(() => mounted?.stop());

  it('ends by itself when somebody else unmounts it', async () => {
    const { code } = await runShell('/', `fusermount3 -u ${mounted.mountPoint}`);
    assert.deepEqual([code, await mounted.exited], [0, 0]);
  });

  it('unmounts while a program waits for an answer that never comes', async () => {
    await mounted.sh('echo x > f');
    await mounted.command({ command: 'hang', method: 'read', ignoreInterrupt: false });
    const reader = spawn('cat', [`${mounted.mountPoint}/f`], { stdio: 'ignore' });
    const ended = once(reader, 'exit');
    await mounted.command({ command: 'await-call', method: 'read' });
    await mounted.command({ command: 'unmount', graceMs: 200 });
    const [code] = await ended;
    assert.deepEqual([code, await mounted.isMounted(), await mounted.exited], [1, false, 0]);
  });
});
