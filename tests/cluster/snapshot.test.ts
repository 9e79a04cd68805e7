import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { holdfast, nodeScript, sh } from '../lab/command.js';
import { TestCluster } from '../lab/test-cluster.js';

describe('a snapshot of the metadata', function () {
  this.timeout(240_000);
  const cluster = new TestCluster('snapshot');
  const file = join(cluster.root, 'backup.hfs');
  const path = (name: string): string => join(cluster.dir, name);

  before(() => cluster.up());
  after(() => cluster.destroy());

  async function refuses(args: string[], pattern: RegExp): Promise<void> {
    const result = await holdfast(['snapshot', ...args, '--data', cluster.data]);
    assert.ok(result.code === 1 || result.code === 2, `${result.code}: ${result.stdout}`);
    assert.equal(result.stderr.trimEnd().split('\n').length, 1, result.stderr);
    assert.match(result.stderr, pattern);
  }

  it('is saved from a cluster that is being used, into a new file', async () => {
    await sh(`cd ${cluster.dir}; mkdir -p a/b; head -c 9000000 /dev/urandom > a/large; sha256sum a/large > a/sum;
      ln a/large hard; ln -s a/large soft; for i in $(seq 200); do echo "file $i" > a/b/$i; done; echo 0123456789 > cut; touch guarded; chattr +ad guarded; sync`);
    const busy = nodeScript(
      `for (let i = 0; i < 100; i++) fs.writeFileSync(path.join(args[0], 'busy-' + (i % 30)), 'x'.repeat(i));`,
      [cluster.dir],
    );
    const saved = await holdfast(['snapshot', 'save', file, '--data', cluster.data, '--json']);
    assert.equal(saved.code, 0, saved.stderr);
    const report = JSON.parse(saved.stdout) as { inodes: number; records: number; bytes: number };
    assert.ok(report.inodes > 200 && report.records > 600, saved.stdout);
    assert.equal(readFileSync(file).length, report.bytes);
    assert.ok(!existsSync(`${file}.part`));
    await busy;
    await refuses(['save', file], /exists/);
  });

  it('is refused when it is damaged, cut off, foreign, of another version, or not wanted', async () => {
    const good = readFileSync(file);
    const bad = join(cluster.root, 'bad.hfs');
    const variant = (change: (bytes: Buffer) => Buffer): void =>
      writeFileSync(bad, change(Buffer.from(good)));
    variant((bytes) => {
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
      return bytes;
    });
    await refuses(['restore', bad], /bad\.hfs is damaged \(a checksum is wrong\)/);
    variant((bytes) => bytes.subarray(0, -10));
    await refuses(['restore', bad], /bad\.hfs is damaged \(its end is missing\)/);
    variant((bytes) => Buffer.concat([bytes, bytes.subarray(8, 100)]));
    await refuses(['restore', bad], /something follows its end/);
    variant((bytes) => {
      bytes[7] = 9;
      return bytes;
    });
    await refuses(['restore', bad], /snapshot of version 9/);
    writeFileSync(bad, 'something else');
    await refuses(['restore', bad], /is no snapshot of holdfast/);
    await refuses(['restore', join(cluster.root, 'missing')], /cannot read .*missing/);
    await refuses(['restore', file], /these metaservers hold a cluster already/);
    assert.equal(await sh(`cat ${path('cut')}`), '0123456789\n');
  });

  it('is restored into new metaservers with the same chunkservers', async () => {
    // What happens behind the snapshot: new files, a shorter one, one more text in an old one.
    await sh(
      `cd ${cluster.dir}; for i in $(seq 50); do head -c 100000 /dev/urandom > late-$i; done; truncate -s 4 cut; sync`,
    );
    assert.equal(await cluster.down(), 0);
    for (const id of [1, 2, 3]) rmSync(join(cluster.data, `metaserver-${id}`), { recursive: true });
    await cluster.up(['--restore', file]);
    assert.match(cluster.output, /restored \d+ inodes/);
    await cluster.waitHealthy();
    await sh(`cd ${cluster.dir}; sha256sum -c a/sum; cmp a/large hard; cmp a/large soft; test $(ls a/b | wc -l) = 200;
      lsattr guarded | grep -q -- -ad-; ! rm guarded 2> /dev/null; chattr -a guarded; test "$(cat a/b/77)" = "file 77"; test $(stat -c %h hard) = 2; ! ls | grep late`);
    // The shorter file is as long as it was; what was cut off since is zeros. It can be written and cut again.
    await sh(`cd ${cluster.dir}; test $(stat -c %s cut) = 11; head -c 4 cut | grep -q 0123; echo abcdefghijklmn > cut;
      truncate -s 6 cut; truncate -s 10 cut; test "$(head -c 6 cut)" = abcdef; tail -c 4 cut | cmp - <(head -c 4 /dev/zero)`);
    await sh(
      `cd ${cluster.dir}; for i in $(seq 50); do echo new > new-$i; test "$(cat new-$i)" = new; done; sync`,
    );
  });

  it('leaves data behind that fsck finds and discards', async () => {
    const first = await holdfast(['fsck', '--data', cluster.data, '--repair', '--json'], {
      timeoutMs: 120_000,
    });
    const report = JSON.parse(first.stdout) as {
      findings: { kind: string }[];
      found: number;
      repaired: number;
    };
    assert.ok(
      report.findings.some(({ kind }) => kind === 'unreachable'),
      first.stdout.slice(0, 2000),
    );
    assert.equal(report.found, report.repaired);
    // Once is enough: what is in use, or being cut off, is waited for.
    const again = await holdfast(['fsck', '--data', cluster.data, '--json'], { timeoutMs: 120_000 });
    assert.equal((JSON.parse(again.stdout) as { found: number }).found, 0, again.stdout.slice(0, 2000));
    await sh(`cd ${cluster.dir}; sha256sum -c a/sum; test "$(cat new-7)" = new`);
    const up = await holdfast(['up', join(cluster.root, 'm2'), '--data', cluster.data, '--restore', file]);
    assert.equal(up.code, 2);
  });
});
