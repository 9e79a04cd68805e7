import assert from 'node:assert/strict';
import { sh } from '../lab/command.js';
import { ONE_OF_EACH, TestCluster } from '../lab/test-cluster.js';

/** nobody: a user and group of every Debian system, without any right of its own. */
const UID = 65534;
const as = (script: string): string =>
  `setpriv --reuid ${UID} --regid ${UID} --clear-groups bash -c '${script}'`;

describe('several users on one mount', function () {
  this.timeout(180_000);
  const cluster = new TestCluster('users', ONE_OF_EACH);
  before(async () => {
    await cluster.up();
    await sh(`chmod 755 ${cluster.root}; chmod 1777 ${cluster.dir}`);
  });
  after(() => cluster.destroy());

  it('files belong to whoever makes them', async () => {
    await sh(as('umask 022; echo mine > f; mkdir d; ln -s x l; mkfifo p'), { cwd: cluster.dir });
    const owners = await sh('stat -c "%n %u %g %a" f d l p', { cwd: cluster.dir });
    assert.equal(
      owners.trim(),
      `f ${UID} ${UID} 644\nd ${UID} ${UID} 755\nl ${UID} ${UID} 777\np ${UID} ${UID} 644`,
    );
  });

  it('permissions refuse what they must', async () => {
    await sh('echo secret > root-only; chmod 600 root-only; mkdir closed; chmod 700 closed; touch closed/x', {
      cwd: cluster.dir,
    });
    for (const script of [
      'cat root-only',
      'echo x >> root-only',
      'ls closed',
      'touch closed/y',
      'rm -f root-only',
      'chown 0 f',
      'chmod 777 root-only',
    ]) {
      await sh(`! ${as(script)} 2>/dev/null`, { cwd: cluster.dir });
    }
    assert.equal((await sh('cat root-only', { cwd: cluster.dir })).trim(), 'secret');
  });

  it('setgid directories hand their group down', async () => {
    await sh('mkdir shared; chgrp 12 shared; chmod 2777 shared', { cwd: cluster.dir });
    await sh(as('touch shared/f; mkdir shared/d'), { cwd: cluster.dir });
    assert.equal(
      (await sh('stat -c "%g %A" shared/f shared/d', { cwd: cluster.dir }))
        .trim()
        .split('\n')[0]
        ?.split(' ')[0],
      '12',
    );
    assert.match(await sh('stat -c "%g %A" shared/d', { cwd: cluster.dir }), /^12 d..x..s/);
  });

  it('a write by another user clears setuid', async () => {
    await sh('echo x > su; chmod 4777 su', { cwd: cluster.dir });
    await sh(as('echo y >> su'), { cwd: cluster.dir });
    assert.equal((await sh('stat -c %a su', { cwd: cluster.dir })).trim(), '777');
  });
});
