import assert from 'node:assert/strict';
import { join } from 'node:path';
import { holdfast, sh } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { TestCluster } from '../lab/test-cluster.js';

const MIB = 1024 * 1024;

interface Shown {
  bytes: number;
  inodes: number;
  limitBytes: number | null;
  state: string;
  path?: string;
}

describe('quotas of a real cluster', function () {
  this.timeout(240_000);
  const cluster = new TestCluster('quota');
  let a: string;
  let b: string;
  before(async () => {
    await cluster.up();
    a = cluster.dir;
    b = await cluster.mount('second');
  });
  after(() => cluster.destroy());

  async function quota(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await holdfast(['quota', ...args, '--data', cluster.data]);
    assert.equal(code, 0, stderr);
    return stdout;
  }

  async function show(...args: string[]): Promise<Shown> {
    return JSON.parse(await quota('show', ...args, '--json')) as Shown;
  }

  it('a tree is filled to its limit, byte for byte, and rm makes room', async () => {
    await sh(`mkdir -p ${a}/t/sub; echo before > ${a}/t/sub/before`);
    const set = await quota('set', join(a, 't'), '--bytes', '5M', '--inodes', '20');
    assert.match(set, /7 B of 5\.00 MiB, 3 inodes of 20/);
    const dd = await sh(
      `dd if=/dev/zero of=${a}/t/f bs=64K count=1000 conv=fsync 2>&1 || true; rm ${a}/t/sub/before`,
    );
    assert.match(dd, /Disk quota exceeded/);
    assert.equal(await sh(`df --output=size ${a}/t | tail -1 | tr -d ' '`), '5120\n');
    const seen = await sh(
      `stat -c %s ${b}/t/f; rm ${b}/t/f; dd if=/dev/urandom of=${a}/t/g bs=1M count=5 conv=fsync 2>&1`,
    );
    // Whole pages of the last request.
    assert.equal(Number(seen.split('\n')[0]), Math.floor((5 * MIB - 7) / 4096) * 4096);
    const shown = await show('/t');
    assert.deepEqual([shown.bytes, shown.inodes, shown.path], [5 * MIB, 3, '/t']);
    await sh(`dd if=/dev/urandom of=${b}/t/g bs=1M count=5 conv=notrunc,fsync 2>&1; rm ${b}/t/g`);
  });

  it('two mounts together never exceed it, and none fails while there is room', async () => {
    const fill = (dir: string, name: string, size: string): Promise<string> =>
      sh(`dd if=/dev/zero of=${dir}/t/${name} bs=${size} count=400 conv=fsync 2>&1 || true`);
    await Promise.all([
      fill(a, 'a1', '64K'),
      fill(b, 'b1', '48K'),
      fill(a, 'a2', '80K'),
      fill(b, 'b2', '16K'),
    ]);
    const { bytes } = await show('/t');
    assert.ok(bytes <= 5 * MIB && bytes > 5 * MIB - 4 * 4096, `${bytes} bytes`);
    await sh(`rm ${a}/t/*[12]`);
    const make = (dir: string, name: string): Promise<string> =>
      sh(
        `n=0; for i in $(seq 30); do (: > ${dir}/t/${name}$i) 2> /dev/null || break; n=$((n+1)); done; echo $n`,
      );
    const made = await Promise.all([make(a, 'x'), make(b, 'y')]);
    assert.equal(Number(made[0]) + Number(made[1]), 18, made.join());
    assert.equal((await sh(`find ${a}/t | wc -l`)).trim(), '20');
    await sh(`rm ${a}/t/[xy]*`);
  });

  it('names go from tree to tree where a file can go by itself', async () => {
    const out =
      await sh(`cd ${a}; echo data > one; mkdir -p d; echo deep > d/deep; mv one t/one; cat t/one; mv d t/d; cat t/d/deep;
      ln t/one outside 2>&1 || true; head -c 6000000 /dev/zero > large; mv large t/large 2>&1 || true; ls t; mv t/one one; rm -r t/d one large`);
    assert.match(
      out,
      /^data\ndeep\nln: .*Invalid cross-device link\nmv: .*Disk quota exceeded\nd\none\nsub\n$/,
    );
  });

  it('a user is limited wherever he writes', async () => {
    await quota('set', '--user', '4321', '--bytes', '1M');
    const out =
      await sh(`chmod 755 ${cluster.root}; mkdir -m 777 ${a}/u ${a}/v; cat > ${cluster.root}/as.sh <<'EOF'
for dir in "$@"; do dd if=/dev/zero of=$dir/f bs=64K count=12 conv=fsync 2>&1 | tail -1; done
EOF
      setpriv --reuid 4321 --regid 4321 --clear-groups bash -c "$(cat ${cluster.root}/as.sh)" as ${a}/u ${b}/v; sync ${b}/v/f; stat -c %s ${a}/v/f`);
    assert.equal(out.trim().split('\n').at(-1), String(4 * 64 * 1024));
    assert.equal((await show('--user', '4321')).bytes, MIB);
    await quota('remove', '--user', '4321');
  });

  it('bad input is answered with one line', async () => {
    const bad: [string[], RegExp][] = [
      [['set', '/t', '--bytes', 'much'], /--bytes: 'much' is not a size/],
      [['set', 'nowhere', '--bytes', '1M'], /'nowhere' is not below a mount/],
      [['set', '/nowhere', '--bytes', '1M'], /no such directory/],
      [['set', '--user', 'nobody-knows', '--bytes', '1M'], /no user 'nobody-knows'/],
      [['remove', '--group', '77'], /no such quota/],
    ];
    const check = async ([args, pattern]: [string[], RegExp]): Promise<void> => {
      const { code, stderr } = await holdfast(['quota', ...args, '--data', cluster.data]);
      assert.ok(code === 1 || code === 2, `${args.join(' ')}: ${code}`);
      assert.match(stderr.trimEnd(), pattern);
      assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
    };
    await Promise.all(bad.map(check));
  });

  it('a check finds everything counted as it is, with a quota and when it has gone', async () => {
    await sh(`rm -rf ${a}/t/sub; for i in 1 2 3; do mkdir ${b}/t/d$i; echo $i > ${b}/t/d$i/f; done; sync`);
    const check = async (): Promise<void> => {
      const { code, stdout } = await holdfast(['fsck', '--quick', '--data', cluster.data]);
      assert.equal(code, 0, stdout);
    };
    await check();
    const there = Number(await sh(`find ${a}/t | wc -l`));
    await eventually('what was deleted counts no more', async () => {
      const { inodes } = await show(join(b, 't'));
      return inodes === there || undefined;
    });
    await quota('remove', join(b, 't'));
    assert.equal(await quota('show'), 'there is no quota\n');
    await check();
  });
});
