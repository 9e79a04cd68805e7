import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { clearStaleMount, isStaleMount } from '../../../../client/fuse/mount-point.js';
import { canMount, Mounted } from '../support/mounted.js';
import type { ServeOptions, TraceEntry } from '../support/serve.js';
import { runShell } from '../support/shell.js';

const MIB = 1024 * 1024;
const LONG_TTL_MS = 3_600_000;

function calls(trace: readonly TraceEntry[], method: string): (string | number)[][] {
  return trace.filter((entry) => entry.method === method).map((entry) => entry.args);
}

describe('a mount of the kernel binding', () => {
  let mounted: Mounted;
  before(function () {
    if (!canMount()) this.skip();
  });
  afterEach(() => mounted?.stop());

  async function start(options: Partial<ServeOptions> = {}): Promise<void> {
    mounted = await Mounted.start('kernel', options);
  }

  it('reads and writes a megabyte in one request', async () => {
    await start();
    await mounted.sh('dd if=/dev/zero of=f bs=1M count=3 status=none');
    const writes = calls(await mounted.trace(), 'write').map(([, request]) => JSON.parse(String(request)));
    assert.deepEqual(
      writes.map(({ offset, data }) => [offset, data]),
      [0, MIB, 2 * MIB].map((offset) => [offset, `<${MIB}>`]),
    );
    await mounted.sh('dd if=f of=/dev/null bs=1M iflag=direct status=none');
    const direct = calls(await mounted.trace(), 'read').map(([, , offset, size]) => [offset, size]);
    assert.deepEqual(
      direct.slice(0, 3),
      [0, MIB, 2 * MIB].map((offset) => [offset, MIB]),
    );
    await mounted.sh('cat f | wc -c');
    const ahead = calls(await mounted.trace(), 'read').map(([, , , size]) => Number(size));
    assert.equal(Math.max(...ahead), MIB);
  });

  it('truncates in the open that asks for it', async () => {
    await start();
    await mounted.sh('echo x > f');
    await mounted.trace();
    await mounted.sh(': > f');
    const trace = await mounted.trace();
    const [open] = calls(trace, 'open');
    assert.equal(Number(open![1]) & 0o1000, 0o1000);
    assert.equal(calls(trace, 'setattr').length, 0);
  });

  it('asks for attributes with a listing only when they are wanted', async () => {
    await start({ ttlMs: LONG_TTL_MS });
    await mounted.sh('seq 2000 | xargs touch; ls > /dev/null');
    await mounted.trace();
    await mounted.sh('ls > /dev/null');
    const plain = calls(await mounted.trace(), 'readdir').map((args) => args[4]);
    assert.ok(plain.length > 2 && plain.slice(1).every((plus) => plus === 'false'));
  });

  it('hands over who asks', async () => {
    await start();
    await mounted.sh('chmod 777 .; setpriv --reuid 1234 --regid 5678 --clear-groups mkdir d');
    const mkdir = (await mounted.trace()).find(({ method }) => method === 'mkdir');
    assert.deepEqual([mkdir!.uid, mkdir!.gid], [1234, 5678]);
  });

  it('lets others in while its root is changed so often that the kernel learns no attributes of it', async () => {
    await start({ rootIsInvalidated: true, rootMode: 0o755 });
    const user = 'setpriv --reuid 1234 --regid 5678 --clear-groups';
    assert.equal(
      await mounted.sh(`${user} stat -c %A . && ${user} ls && echo entered`),
      'drwxr-xr-x\nentered',
    );
  });

  it('refuses writes when it is read-only', async () => {
    await start({ readOnly: true });
    assert.equal(await mounted.sh("touch f 2>&1 | grep -o 'Read-only file system'"), 'Read-only file system');
  });

  it('drops inodes that nobody knows any more', async () => {
    await start();
    await mounted.sh('mkdir d; cd d; seq 300 | xargs touch; ln 1 x; cd ..; ls -l d > /dev/null; rm -r d');
    await mounted.command({ command: 'await-inodes', count: 1 });
  });

  it('a signal that a program catches interrupts no request, one that ends the program ends it at once', async () => {
    await start();
    await mounted.command({ command: 'hang', method: 'mkdir', ignoreInterrupt: false });
    const script = '$| = 1; $SIG{ALRM} = sub {}; print "begun"; print mkdir($ARGV[0]) ? "made" : $! + 0';
    const args = ['-e', script, `${mounted.mountPoint}/d`];
    const child = spawn('perl', args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = once(child, 'close');
    const said: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => said.push(chunk));
    await mounted.command({ command: 'await-call', method: 'mkdir' });
    child.kill('SIGALRM');
    // A request that waits for no lock of the directory: answered behind the interrupt.
    await mounted.sh('stat -f . > /dev/null');
    child.kill('SIGTERM');
    assert.deepEqual([await ended, Buffer.concat(said).toString()], [[null, 'SIGTERM'], 'begun']);
  });

  it('^C ends a program whose read is never answered', async () => {
    await start();
    await mounted.sh('echo x > f');
    await mounted.command({ command: 'hang', method: 'read', ignoreInterrupt: true });
    const child = spawn('cat', [`${mounted.mountPoint}/f`], { stdio: 'ignore' });
    const ended = once(child, 'exit');
    await mounted.command({ command: 'await-call', method: 'read' });
    child.kill('SIGINT');
    assert.deepEqual(await ended, [null, 'SIGINT']);
  });

  it('a kill ends a process that waits for a lock', async () => {
    await start();
    const out = await mounted.sh(`
      flock f sh -c 'flock f true & waiter=$!; sleep 0.2; kill -9 $waiter; wait $waiter; echo $?'
      flock -n f echo free`);
    assert.equal(out, '137\nfree');
  });

  it('an invalidation makes the kernel read again', async () => {
    await start({ ttlMs: LONG_TTL_MS, keepCache: true });
    await mounted.sh('echo old > f; cat f');
    const ino = Number(await mounted.sh('stat -c %i f'));
    await mounted.command({ command: 'overwrite', ino, text: 'new\n' });
    assert.equal(await mounted.sh('cat f'), 'old');
    await mounted.command({ command: 'invalidate', ino });
    assert.equal(await mounted.sh('cat f'), 'new');
    await mounted.trace();
    await mounted.sh('stat f > /dev/null');
    assert.deepEqual(calls(await mounted.trace(), 'lookup'), []);
    await mounted.command({ command: 'invalidate-entry', parent: 1, name: 'f' });
    await mounted.sh('stat f > /dev/null');
    assert.deepEqual(calls(await mounted.trace(), 'lookup'), [[1, '<1>']]);
  });

  it('answers warm stats from the cache of the kernel', async () => {
    await start({ ttlMs: LONG_TTL_MS });
    await mounted.sh('mkdir d; echo x > d/f; stat d/f > /dev/null');
    await mounted.trace();
    await mounted.sh('for i in 1 2 3 4 5; do stat d/f > /dev/null; done');
    assert.deepEqual(await mounted.trace(), []);
  });

  it('ends by itself when somebody else unmounts it', async () => {
    await start();
    const { code } = await runShell('/', `echo x > ${mounted.mountPoint}/f; umount ${mounted.mountPoint}`);
    assert.deepEqual([code, await mounted.exited], [0, 0]);
  });

  it('unmounts while a program sits in it and another waits for an answer that never comes', async () => {
    await start();
    await mounted.sh('echo x > f');
    await mounted.command({ command: 'hang', method: 'read', ignoreInterrupt: true });
    const reader = spawn('cat', [`${mounted.mountPoint}/f`], { stdio: 'ignore' });
    const ended = once(reader, 'exit');
    await mounted.command({ command: 'await-call', method: 'read' });
    await mounted.command({ command: 'unmount', graceMs: 200 });
    const [code] = await ended;
    assert.deepEqual([code, await mounted.isMounted(), await mounted.exited], [1, false, 0]);
  });

  it('waits for programs to leave before it unmounts', async () => {
    await start();
    await mounted.sh('echo x > f');
    const reader = spawn('sh', ['-c', 'exec 3< "$1"; echo open; cat', 'sh', `${mounted.mountPoint}/f`]);
    await once(reader.stdout, 'data');
    const unmounted = mounted.command({ command: 'unmount', graceMs: 10_000 });
    reader.stdin.end();
    await unmounted;
    assert.deepEqual([await mounted.isMounted(), await mounted.exited], [false, 0]);
    const trace = reader.exitCode ?? (await once(reader, 'exit'))[0];
    assert.equal(trace, 0);
  });

  it('what a killed process leaves is seen, named and cleared', async () => {
    await start();
    assert.equal(await isStaleMount(mounted.mountPoint), false);
    mounted.child.kill('SIGKILL');
    await mounted.exited;
    assert.equal(await isStaleMount(mounted.mountPoint), true);
    const again = Mounted.start('kernel', { mountPoint: mounted.mountPoint });
    await assert.rejects(again, /a dead mount is there.*umount -l/);
    assert.deepEqual(
      [await clearStaleMount(mounted.mountPoint), await clearStaleMount(mounted.mountPoint)],
      [true, false],
    );
    const second = await Mounted.start('kernel', { mountPoint: mounted.mountPoint });
    assert.equal(await second.sh('echo x > f; cat f'), 'x');
    await second.stop();
  });
});
