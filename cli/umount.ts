import { spawnSync } from 'node:child_process';
import { Command } from 'commander';
import { canonicalMountPoint, findMount } from '../client/fuse/mount-point.js';
import { delay, systemClock } from '../common/clock.js';
import { mountProcess } from './mount-registry.js';
import { CliError, EXIT_FAILED, printJson, printLine } from './output.js';

/** How long `umount` waits for the mount's process to write back and end. */
const FINISH_TIMEOUT_MS = 30_000;
const POLL_MS = 50;

interface UmountFlags {
  lazy?: boolean;
  force?: boolean;
  json?: boolean;
}

/** `holdfast umount DIR`: unmounts, and returns when everything has been written back. */
export function umountCommand(): Command {
  return new Command('umount')
    .description('unmount a directory; returns when everything has been written back')
    .argument('<dir>', 'mount point')
    .option('-l, --lazy', 'detach now, finish when the last user has left')
    .option('-f, --force', 'break off requests that hang')
    .option('--json', 'print one JSON object')
    .action(async (dir: string, flags: UmountFlags) => {
      const mountPoint = await canonicalMountPoint(dir);
      const mount = await findMount(mountPoint);
      if (!mount) throw new CliError(`${mountPoint} is not mounted`, EXIT_FAILED);
      if (!mount.type.startsWith('fuse'))
        throw new CliError(`${mountPoint} is not a Holdfast mount (${mount.type})`);
      const pid = mountProcess(mountPoint);
      unmount(mountPoint, flags);
      const finished = await waitForEnd(pid);
      if (!finished)
        throw new CliError(
          `${mountPoint} is unmounted, but its process ${pid} has not ended yet`,
          EXIT_FAILED,
        );
      if (flags.json) printJson({ unmounted: mountPoint });
      else printLine(`unmounted: ${mountPoint}`);
    });
}

function unmount(mountPoint: string, flags: UmountFlags): void {
  const options = [...(flags.lazy ? ['-l'] : []), ...(flags.force ? ['-f'] : [])];
  const root = process.getuid?.() === 0;
  const result = root
    ? spawnSync('umount', [...options, mountPoint], { encoding: 'utf8' })
    : spawnSync('fusermount3', ['-u', ...(flags.lazy ? ['-z'] : []), mountPoint], { encoding: 'utf8' });
  if (result.status === 0) return;
  const text = (result.stderr ?? '').trim().split('\n').at(-1) ?? '';
  if (/busy/.test(text)) {
    throw new CliError(
      `${mountPoint} is in use by a program: end it (fuser -m ${mountPoint}), or use --lazy`,
      EXIT_FAILED,
    );
  }
  throw new CliError(`cannot unmount ${mountPoint}: ${text}`, EXIT_FAILED);
}

async function waitForEnd(pid: number | undefined): Promise<boolean> {
  if (pid === undefined) return true;
  for (let waited = 0; waited < FINISH_TIMEOUT_MS; waited += POLL_MS) {
    try {
      process.kill(pid, 0);
    } catch {
      return true;
    }
    await delay(systemClock, POLL_MS);
  }
  return false;
}
