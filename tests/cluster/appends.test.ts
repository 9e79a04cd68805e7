import assert from 'node:assert/strict';
import { sh } from '../lab/command.js';
import { TestCluster } from '../lab/test-cluster.js';

const LINES = 60;
const WRITERS_PER_MOUNT = 2;

/** Appends numbered lines of different lengths, each with one write(2); some are closed and opened in between. */
const WRITER = `
import os, sys
path, name, lines = sys.argv[1], sys.argv[2], int(sys.argv[3])
fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
for number in range(lines):
    line = ("%s %d " % (name, number)).encode() + b"x" * ((number * 37) % 5000) + b"\\n"
    assert os.write(fd, line) == len(line)
    if number % 10 == 9:
        os.close(fd)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    elif number % 25 == 7:
        os.fsync(fd)
os.close(fd)
`;

/** Every line of every writer is there once, whole, and in the order in which its writer wrote. */
const CHECK = `
import collections, sys
path, writers, lines = sys.argv[1], sys.argv[2].split(), int(sys.argv[3])
found = collections.defaultdict(list)
for line in open(path, "rb").read().split(b"\\n")[:-1]:
    name, number, rest = line.split(b" ", 2)
    assert rest == b"x" * ((int(number) * 37) % 5000), line[:100]
    found[name.decode()].append(int(number))
for name in writers:
    assert found[name] == list(range(lines)), (name, [n for n in range(lines) if n not in found[name]][:10])
assert sorted(found) == sorted(writers), sorted(found)
`;

describe('O_APPEND from several mounts', function () {
  this.timeout(300_000);
  const cluster = new TestCluster('appends');
  let mounts: string[];
  before(async () => {
    await cluster.up();
    mounts = [cluster.dir, await cluster.mount('second')];
  });
  after(() => cluster.destroy());

  const append = (file: string, writers: readonly { name: string; dir: string }[]): Promise<string> => {
    const commands = writers.map(
      ({ name, dir }) => `python3 -c '${WRITER}' ${dir}/${file} ${name} ${LINES} & pids="$pids $!"`,
    );
    return sh(`pids=; ${commands.join('\n')}\nfor pid in $pids; do wait $pid; done`);
  };
  const check = async (file: string, names: readonly string[]): Promise<void> => {
    for (const dir of mounts) await sh(`python3 -c '${CHECK}' ${dir}/${file} '${names.join(' ')}' ${LINES}`);
  };
  const everywhere = () =>
    mounts.flatMap((dir, at) =>
      Array.from({ length: WRITERS_PER_MOUNT }, (_, i) => ({ name: `m${at}p${i}`, dir })),
    );

  it('loses no line, tears none, and keeps the order of each writer', async () => {
    const writers = everywhere();
    await append('log', writers);
    await check(
      'log',
      writers.map(({ name }) => name),
    );
  });

  it('goes on when the leader of the metadata is killed', async () => {
    const writers = everywhere();
    const appended = append('log-2', writers);
    const { leader } = await cluster.status();
    assert.ok(leader);
    process.kill(cluster.pid(`metaserver-${leader.id}`), 'SIGKILL');
    await appended;
    await check(
      'log-2',
      writers.map(({ name }) => name),
    );
  });
});
