import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT, sh } from '../lab/command.js';
import { TestCluster } from '../lab/test-cluster.js';
import { processesOf } from './cpu.js';
import type { System } from './system.js';

const BUILD_TIMEOUT_MS = 300_000;

/** Three metaservers, three chunkservers, three copies, one mount by the kernel binding. */
export function holdfastSystem(name = 'Holdfast', main?: string): System {
  let cluster: TestCluster | undefined;
  let mounted: string | undefined;
  let mounts = 0;
  return {
    name,
    missing: () => undefined,
    async up() {
      cluster = new TestCluster('bench', [], main);
      await cluster.up();
      await cluster.waitHealthy();
      return cluster.dir;
    },
    async remount() {
      const running = cluster as TestCluster;
      if (mounted && (await running.umount(mounted)).code !== 0) throw new Error(`cannot unmount ${mounted}`);
      mounted = await running.mount(`bench-${process.pid}-${mounts++}`);
      return mounted;
    },
    async down() {
      await cluster?.destroy();
      cluster = undefined;
      mounted = undefined;
    },
    // A mount in the background keeps no file in the data directory.
    pids() {
      const known = cluster?.pids() ?? new Map<string, number>();
      const listed = new Set(known.values());
      const others = mounted ? processesOf('mount', mounted).filter((pid) => !listed.has(pid)) : [];
      return new Map([...known, ...others.map((pid): [string, number] => [`mount-${pid}`, pid])]);
    },
  };
}

/** The build of another commit of this repository, in a worktree of its own, and how to remove it. */
export async function buildRevision(revision: string): Promise<{ main: string; remove(): Promise<void> }> {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-compare-'));
  const remove = async (): Promise<void> => {
    await sh(`git worktree remove --force ${dir}/tree || true`, { cwd: ROOT });
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    await sh(`git worktree add --detach ${dir}/tree '${revision.replaceAll("'", '')}'`, { cwd: ROOT });
    symlinkSync(join(ROOT, 'node_modules'), join(dir, 'tree', 'node_modules'));
    await sh('npm run build', { cwd: join(dir, 'tree'), timeoutMs: BUILD_TIMEOUT_MS });
    const main = join(dir, 'tree', 'dist', 'cli', 'main.js');
    if (!existsSync(main)) throw new Error(`${revision} has no ${main}`);
    return { main, remove };
  } catch (error) {
    await remove();
    throw error;
  }
}
