import { nodeScript } from '../lab/command.js';
import { TestCluster } from '../lab/test-cluster.js';

/** Every round is this many operations on this many files. */
const FILES_PER_ROUND = 500;
const OPERATIONS_PER_FILE = 8;
const ROUND_TIMEOUT_MS = 600_000;
const REPORT_EVERY_ROUNDS = 25;

const ROUND = `
  const [root, round, count] = [args[0], args[1], Number(args[2])];
  const dir = path.join(root, 'soak-' + round); fs.mkdirSync(dir);
  const data = Buffer.alloc(2048, 97);
  for (let i = 0; i < count; i++) {
    const a = path.join(dir, 'a' + i), b = path.join(dir, 'b' + i);
    const f = fs.openSync(a, 'w+'); fs.writeSync(f, data); if (i % 50 === 0) fs.fsyncSync(f); fs.closeSync(f);
    fs.statSync(a); fs.renameSync(a, b); fs.readFileSync(b); fs.chmodSync(b, 0o600); fs.unlinkSync(b);
  }
  fs.rmdirSync(dir);`;

/** Runs about `operations` operations on one mount and prints the memory of every process along the way. */
export async function soak(
  operations: number,
  residentMemory: (pids: ReadonlyMap<string, number>) => Map<string, number>,
): Promise<void> {
  const cluster = new TestCluster('soak');
  try {
    await cluster.up();
    await cluster.waitHealthy();
    const rounds = Math.ceil(operations / (FILES_PER_ROUND * OPERATIONS_PER_FILE));
    const report = (done: number): void => {
      const memory = [...residentMemory(cluster.pids())].map(
        ([name, bytes]) => `${name} ${Math.round(bytes / 2 ** 20)}`,
      );
      console.log(`${done * FILES_PER_ROUND * OPERATIONS_PER_FILE} operations; MiB: ${memory.join(', ')}`);
    };
    report(0);
    for (let round = 1; round <= rounds; round++) {
      await nodeScript(ROUND, [cluster.dir, String(round), String(FILES_PER_ROUND)], ROUND_TIMEOUT_MS);
      if (round % REPORT_EVERY_ROUNDS === 0 || round === rounds) report(round);
    }
  } finally {
    await cluster.destroy();
  }
}
