import assert from 'node:assert/strict';
import { join } from 'node:path';
import { nodeScript, ROOT, run, sh } from '../lab/command.js';
import { TestCluster } from '../lab/test-cluster.js';
import { Agent } from '../posix/agent.js';
import { ALICE, BOB, ROOT_USER } from '../posix/bench.js';

const STARVED_LOOKUPS = join(ROOT, 'tests', 'cluster', 'support', 'starved-lookups.py');
const EXCHANGED_DIRECTORIES = join(ROOT, 'tests', 'cluster', 'support', 'exchanged-directories.py');

describe('two mounts of one cluster', function () {
  this.timeout(180_000);
  const cluster = new TestCluster('two');
  let a: string;
  let b: string;
  before(async () => {
    await cluster.up();
    a = cluster.dir;
    b = await cluster.mount('second');
  });
  after(() => cluster.destroy());

  it('what is closed on one is complete when opened on the other', async () => {
    for (let round = 0; round < 20; round++) {
      const [from, to] = round % 2 === 0 ? [a, b] : [b, a];
      await sh(
        `head -c ${1 + round * 77_777} /dev/urandom > ${from}/f; test "$(sha256sum < ${from}/f)" = "$(sha256sum < ${to}/f)"`,
      );
    }
  });

  it('a name that was looked up just before is gone when the other has moved it, however late the threads run that asked', async () => {
    await sh(`mkdir ${a}/starved; ls ${b}/starved`);
    const found = await run('python3', [STARVED_LOOKUPS, `${a}/starved`, `${b}/starved`, '30'], {
      timeoutMs: 120_000,
    });
    assert.equal(found.stdout, '0 stale, 0 missed\n', found.stderr);
  });

  for (const how of ['remove', 'replace'])
    it(`a directory in use takes names when another one is ${how}d in its place`, async () => {
      await sh(`mkdir ${a}/${how}; ls ${b}/${how}`);
      const script = [EXCHANGED_DIRECTORIES, how, `${a}/${how}`, `${b}/${how}`, '100'];
      const found = await run('python3', script, { timeoutMs: 120_000 });
      assert.equal(found.stdout, '0 dead\n', found.stderr);
    });

  it('a file rewritten at the same size is read anew', async () => {
    await sh(`printf aaaa > ${a}/same`);
    for (let round = 0; round < 10; round++) {
      const text = String(1000 + round);
      await sh(`printf ${text} > ${a}/same; test "$(cat ${b}/same)" = ${text}`);
    }
  });

  it('names made, renamed and removed on one are seen on the other at once', async () => {
    await sh(
      `mkdir ${a}/d; touch ${a}/d/x; test -e ${b}/d/x; mv ${b}/d/x ${b}/d/y;
       test -e ${a}/d/y; test ! -e ${a}/d/x; rm ${a}/d/y; test ! -e ${b}/d/y; rmdir ${b}/d`,
    );
  });

  for (const [kind, make] of [
    ['file', 'touch'],
    ['directory', 'mkdir'],
    ['symbolic link', 'ln -s nowhere'],
    ['fifo', 'mkfifo'],
  ])
    it(`times and owner of a ${kind} that are set on one are seen on the other at once, whatever is known there`, async () => {
      const dir = `of-${kind?.replace(' ', '-')}`;
      const look = (): Promise<string> => sh(`stat -c '%Y %u' ${b}/${dir}/d/x`);
      await sh(`mkdir ${a}/${dir} ${a}/${dir}/d; ${make} ${a}/${dir}/d/x; stat ${b}/${dir}/d`);
      await sh(`touch -h -d @7 ${a}/${dir}/d/x`);
      assert.equal((await look()).trim(), '7 0');
      await sh(`chown -h 1234 ${a}/${dir}/d/x`);
      assert.equal((await look()).trim(), '7 1234');
    });

  it('a directory that the other one has moved is moved on, and replaced, by a rename that looks at nothing before', async () => {
    const moves = `const [a, b] = args, make = (path) => fs.mkdirSync(path, { recursive: true });
      make(b + '/from/x'); make(b + '/to');
      fs.renameSync(a + '/from/x', a + '/to/y');
      fs.renameSync(b + '/to/y', b + '/z');
      make(b + '/from/x'); make(b + '/new');
      fs.renameSync(a + '/from/x', a + '/to/y');
      fs.renameSync(b + '/new', b + '/to/y');`;
    await sh(`mkdir ${a}/moves`);
    await nodeScript(moves, [`${a}/moves`, `${b}/moves`]);
    assert.equal(
      (await sh(`cd ${b}/moves && find . | sort`)).split('\n').join(' ').trim(),
      '. ./from ./to ./to/y ./z',
    );
  });

  it('an exclusive create has one winner', async () => {
    const claim = (dir: string): Promise<string> =>
      nodeScript(
        `let won = 0; for (let i = 0; i < 200; i++) { try { fs.closeSync(fs.openSync(path.join(args[0], 'lock-' + i), 'wx')); won++; }
           catch (e) { if (e.code !== 'EEXIST') throw e; } } console.log(won);`,
        [dir],
      );
    const [first, second] = await Promise.all([claim(a), claim(b)]);
    assert.equal(Number(first) + Number(second), 200);
    await sh(`rm -f ${join(a, 'lock-')}*`);
  });

  it('a file unlinked on one mount stays readable where it is open', async () => {
    await sh(`head -c 3000000 /dev/urandom > ${a}/open; sum=$(sha256sum < ${a}/open); exec 5<${b}/open; rm ${a}/open; sleep 2
              test "$(sha256sum <&5)" = "$sum"; exec 5<&-`);
  });

  it("a file given to another user on one mount is that user's to change on the other, and no longer its former owner's", async () => {
    await sh(`chmod 755 ${cluster.root} ${a}`);
    const agents = [new Agent(a, ROOT_USER), new Agent(b, ROOT_USER), new Agent(b, ALICE), new Agent(b, BOB)];
    const [rootA, rootB, alice, bob] = agents as [Agent, Agent, Agent, Agent];
    try {
      await rootB.file('given', 'x');
      // The second time both mounts write to it, and neither has a lease on it.
      for (const writers of [[], [rootA, rootB]]) {
        for (const writer of writers) await writer.open('given', 'O_RDWR');
        for (const [owner, user, other] of [
          [ALICE, alice, bob],
          [BOB, bob, alice],
        ] as const) {
          await rootA.ok('chown', 'given', owner.uid, owner.gid);
          await other.fails('EPERM', 'chmod', 'given', 0o640);
          await user.ok('chmod', 'given', 0o600);
          await rootA.ok('chown', 'given', 0, 0);
          await user.fails('EPERM', 'utimensat', 'given', '7', '7', false);
        }
      }
    } finally {
      for (const agent of agents) agent.end();
    }
  });

  it('status lists both, and umount takes one away', async () => {
    const before = await cluster.status();
    assert.equal(before.mounts.filter((one) => one.connected).length, 2, JSON.stringify(before.mounts));
    assert.equal((await cluster.umount(b)).code, 0);
    const afterwards = await cluster.status();
    assert.deepEqual(
      afterwards.mounts.map((one) => one.mountPoint),
      [a],
    );
  });
});
