import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { sh } from '../lab/command.js';
import { temporaryDirectory } from '../lab/directories.js';
import { TestCluster } from '../lab/test-cluster.js';
import { aclCases, fileCases, programCases, sourceTreeCases } from './support/tool-cases.js';

const SLOW_MS = 300_000;

describe('standard tools on a mounted cluster', function () {
  this.timeout(SLOW_MS);
  const cluster = new TestCluster('tools');
  let local: string;

  before(async () => {
    local = temporaryDirectory('tools-local');
    await cluster.up();
  });
  after(async () => {
    await cluster.destroy();
    rmSync(local, { recursive: true, force: true });
  });

  const context = {
    dir: () => cluster.dir,
    local: () => local,
    can: { bytesNames: true, nanoseconds: true, modificationTimes: true, sharedMmap: true },
  };
  sourceTreeCases(context);
  programCases(context);
  fileCases(context);
  aclCases(context);

  it('cp of a large file passes no data through the mount', async () => {
    const moved = (): number => {
      const io = readFileSync(`/proc/${cluster.pid('mount')}/io`, 'utf8');
      return [...io.matchAll(/^[rw]char: (\d+)$/gm)].reduce((sum, found) => sum + Number(found[1]), 0);
    };
    const [from, to] = [`${cluster.dir}/from`, `${cluster.dir}/to`];
    await sh(`head -c 16777216 /dev/urandom > ${from}; sync ${from}`);
    const before = moved();
    await sh(`cp --reflink=auto ${from} ${to}; sync ${to}`);
    const passed = moved() - before;
    assert.ok(passed < 1024 * 1024, `${passed} bytes passed the mount`);
    await sh(`cmp ${from} ${to}; rm ${from} ${to}`);
  });

  it('a file of 1 GiB is the same after a remount', async () => {
    // head ends the pipe: the SIGPIPE of openssl is no error here
    const sum = await sh(
      `set +o pipefail
       openssl enc -aes-128-ctr -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c 1073741824 | tee ${cluster.dir}/big | sha256sum`,
      { timeoutMs: SLOW_MS },
    );
    assert.equal((await sh(`stat -c %s ${cluster.dir}/big`)).trim(), '1073741824');
    const second = await cluster.mount('again');
    assert.equal(await sh(`sha256sum < ${second}/big`, { timeoutMs: SLOW_MS }), sum);
    assert.equal((await cluster.umount(second)).code, 0);
    await sh(`rm ${cluster.dir}/big`);
  });
});
