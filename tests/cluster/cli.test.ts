import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { basename, join } from 'node:path';
import { holdfast, MAIN, run, sh } from '../lab/command.js';
import { mountsBelow } from '../lab/directories.js';
import { TestCluster } from '../lab/test-cluster.js';

describe('the holdfast command', function () {
  this.timeout(180_000);
  const cluster = new TestCluster('cli');
  const path = (name: string): string => join(cluster.root, name);

  before(() => cluster.up());
  after(() => cluster.destroy());

  /** Bad input: exit code 2 and exactly one line that matches. */
  async function refuses(args: string[], pattern: RegExp, code = 2): Promise<void> {
    const result = await holdfast(args, { cwd: cluster.root });
    assert.equal(result.code, code, `${args.join(' ')}: ${result.stdout}${result.stderr}`);
    const lines = result.stderr.trimEnd().split('\n');
    assert.equal(lines.length, 1, result.stderr);
    assert.match(lines[0] as string, pattern);
  }

  it('explains itself', async () => {
    const all = await holdfast(['--help']);
    assert.equal(all.code, 0);
    for (const name of [
      'up',
      'status',
      'fsck',
      'mount',
      'umount',
      'start',
      'stop',
      'metaserver',
      'chunkserver',
    ]) {
      assert.match(all.stdout, new RegExp(`^ +${name}\\b`, 'm'));
      const one = await holdfast([name, '--help']);
      assert.equal(one.code, 0);
      assert.match(one.stdout, /Usage: holdfast/);
    }
  });

  it('refuses an unknown command, an unknown flag, a bad value', async () => {
    await refuses(['upp'], /unknown command 'upp'.*see 'holdfast --help'/);
    await refuses(['up', '--frob'], /unknown option '--frob'.*see 'holdfast up --help'/);
    await refuses(['chunkserver', 'drain', '--frob'], /'--frob'.*see 'holdfast chunkserver drain --help'/);
    await refuses(['up', '--port', 'x'], /--port: 'x' is not a whole number from 1024 to 65535/);
    await refuses(['up', '--binding', 'x'], /--binding: 'x' is not one of auto, kernel, fuse-native/);
    await refuses(['up', '--metaservers', '2'], /even number/);
  });

  it('refuses a mount point that is missing, not empty, not a directory, or mounted', async () => {
    const data = ['--data', path('d1')];
    await refuses(['up', path('missing'), ...data], /missing.*(no such directory|does not exist)/i);
    mkdirSync(path('full'));
    writeFileSync(path('full/x'), '');
    await refuses(['up', path('full'), ...data], /full.*not empty/);
    await refuses(['up', path('full/x'), ...data], /not a directory/);
    await refuses(['up', cluster.dir, ...data], /mounted/);
    await refuses(['mount', path('missing'), '--data', cluster.data], /missing/);
  });

  it('refuses a port in use, before it starts anything', async () => {
    mkdirSync(path('m2'));
    const blocker = createServer();
    await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve));
    const { port } = blocker.address() as AddressInfo;
    try {
      await refuses(
        ['up', path('m2'), '--data', path('d2'), '--port', String(port - 2)],
        /port \d+ is in use/,
      );
    } finally {
      blocker.close();
    }
  });

  it('refuses a second `up` on the same data', async () => {
    mkdirSync(path('m3'));
    await refuses(['up', path('m3'), '--data', cluster.data], /already runs/);
  });

  it('refuses a cluster.json that is damaged or of an unknown format', async () => {
    mkdirSync(path('m4'));
    mkdirSync(path('d4'));
    writeFileSync(path('d4/cluster.json'), '{"format": 1, "clus');
    await refuses(['up', path('m4'), '--data', path('d4')], /cluster\.json is damaged/);
    writeFileSync(path('d4/cluster.json'), '{"format": 1, "clusterId": "x"}');
    await refuses(['status', '--data', path('d4')], /cluster\.json is damaged/);
    writeFileSync(path('d4/cluster.json'), '{"format": 99}');
    await refuses(['up', path('m4'), '--data', path('d4')], /format version 99/);
  });

  it('refuses the data of another cluster', async () => {
    mkdirSync(path('m5'));
    mkdirSync(path('d5'));
    const file = JSON.parse(readFileSync(join(cluster.data, 'cluster.json'), 'utf8')) as {
      clusterId: string;
    };
    file.clusterId = '00000000-0000-4000-8000-000000000000';
    writeFileSync(path('d5/cluster.json'), JSON.stringify(file));
    mkdirSync(path('d5/metaserver-1'));
    await sh(
      `find ${cluster.data}/metaserver-1 -maxdepth 1 -name '*.json' -exec cp {} ${path('d5/metaserver-1')} \\;`,
    );
    await refuses(
      ['up', path('m5'), '--data', path('d5'), '--port', '27600'],
      /data of cluster [0-9a-f-]+, not of/,
    );
  });

  it('says that no cluster is there, or that none answers', async () => {
    await refuses(['status', '--data', path('nowhere')], /no cluster file/);
    cpSync(join(cluster.data, 'cluster.json'), path('dead.json'));
    // Nobody listens on the discard port.
    const text = readFileSync(path('dead.json'), 'utf8').replaceAll(/"port": \d+/g, '"port": 9');
    writeFileSync(path('dead.json'), text);
    await refuses(['status', '--cluster', path('dead.json')], /no metaserver answers/, 1);
    await refuses(['stop', 'chunkserver-1', '--data', path('nowhere')], /no `holdfast up`/);
    await refuses(['stop', 'chunkserver-9', '--data', cluster.data], /chunkserver-9/);
    await refuses(['umount', path('m2')], /not mounted/, 1);
  });

  it('status --json is one object that names every part', async () => {
    const status = await cluster.waitHealthy();
    assert.equal(status.metaservers.length, 3);
    assert.equal(status.chunkservers.length, 3);
    assert.equal(status.pgs.inSync, status.pgs.total);
    assert.ok(status.pgs.total > 0 && status.capacity.totalBytes > 0 && status.term > 0);
    assert.equal(status.metaservers.filter((one) => one.role === 'leader').length, 1);
    const shown = await holdfast(['status', '--data', cluster.data]);
    assert.match(shown.stdout, /leader +metaserver-\d/);
    assert.match(shown.stdout, /health +healthy/);
  });

  it('mounts by --data, --cluster and --meta', async () => {
    const meta = JSON.parse(readFileSync(join(cluster.data, 'cluster.json'), 'utf8')) as {
      metaservers: { host: string; port: number }[];
    };
    const addresses = meta.metaservers.map((one) => `${one.host}:${one.port}`).join(',');
    await sh(`echo hello > ${cluster.dir}/greeting`);
    for (const flags of [
      ['--data', cluster.data],
      ['--cluster', join(cluster.data, 'cluster.json')],
      ['--meta', addresses],
    ]) {
      const dir = path(`by${flags[0]}`);
      mkdirSync(dir, { recursive: true });
      const result = await holdfast(['mount', dir, ...flags]);
      assert.equal(result.code, 0, result.stderr);
      assert.equal((await sh(`cat ${dir}/greeting`)).trim(), 'hello');
      assert.equal((await holdfast(['umount', dir])).code, 0);
      assert.deepEqual(mountsBelow(dir), []);
    }
    const logs = readdirSync(join(cluster.data, 'log')).filter((name) => name.startsWith('mount-by-'));
    const by = logs.map((name) => name.replace(/-\d+\.log$/, '')).sort();
    assert.deepEqual(by, ['mount-by--cluster', 'mount-by--data'], 'beside those of the servers');
  });

  it('a mount whose data directory is elsewhere logs to the temporary directory, and leaves a log there that somebody wants', async () => {
    const temporary = path('tmp');
    for (const dir of [temporary, path('copied'), path('full/of')]) mkdirSync(dir, { recursive: true });
    const copy = path('copy.json');
    cpSync(join(cluster.data, 'cluster.json'), copy);
    const command = (...args: string[]) =>
      run(process.execPath, [MAIN, ...args], { env: { TMPDIR: temporary } });

    const mounted = await command('mount', path('copied'), '--cluster', copy, '--json');
    assert.equal(mounted.code, 0, mounted.stderr);
    const { log } = JSON.parse(mounted.stdout) as { log: string };
    assert.deepEqual(readdirSync(temporary), [basename(log)]);
    assert.equal((await command('umount', path('copied'))).code, 0);
    assert.deepEqual(readdirSync(temporary), [], 'removed at a clean end');

    const full = await command('mount', path('full'), '--cluster', copy);
    assert.match(full.stderr, /is not empty\n$/);
    assert.deepEqual(readdirSync(temporary), [], 'the error said all');

    const text = readFileSync(copy, 'utf8').replace(/"clusterId": "[^"]+"/, `"clusterId": "${randomUUID()}"`);
    writeFileSync(copy, text);
    const failed = await command('mount', path('copied'), '--cluster', copy);
    assert.match(failed.stderr, /^holdfast: .*; see \S+\/holdfast-mount-copied-\d+\.log\n$/);
    assert.equal(readdirSync(temporary).length, 1, 'kept for whoever looks for the cause');
  });

  it('leaves no mount behind when whoever asked for it has gone meanwhile', async () => {
    const dir = path('unasked');
    mkdirSync(dir);
    const command = [process.execPath, 'dist/cli/main.js', 'mount', dir, '--data', cluster.data, '-f'].join(
      ' ',
    );
    // The report goes into a pipe whose reader has ended.
    await sh(
      `mkfifo ${dir}.p; exec 4<>${dir}.p 3>${dir}.p 4<&-; HOLDFAST_READY_FD=3 ${command} && exit 1 || true`,
    );
    assert.deepEqual(mountsBelow(dir), []);
  });

  it('umount says when the mount is in use, and --lazy detaches it', async () => {
    const dir = path('busy');
    mkdirSync(dir);
    assert.equal((await holdfast(['mount', dir, '--data', cluster.data])).code, 0);
    await sh(
      `exec 5<${dir}/greeting; ! ${process.execPath} dist/cli/main.js umount ${dir} 2>err.txt; grep -q 'in use' err.txt; rm err.txt; exec 5<&-`,
    );
    assert.equal((await holdfast(['umount', '--lazy', dir])).code, 0);
  });

  it('`up` that is stopped unmounts the other mounts of its cluster first, and says so', async () => {
    const dir = await cluster.mount('further');
    await sh(`echo last > ${dir}/words`);
    assert.equal(await cluster.down(), 0);
    assert.deepEqual(mountsBelow(cluster.root), []);
    const order = cluster.output.match(/^(mount|up): unmounted .*|^(mount|chunkserver-1): stopped/gm);
    assert.deepEqual(order, [`up: unmounted ${dir}`, 'mount: stopped', 'chunkserver-1: stopped']);
  });
});
