import { Command } from 'commander';
import { canonicalMountPoint, findMount } from '../client/fuse/mount-point.js';
import { runTool, type ToolResult } from '../client/fuse/tool.js';
import { delay, systemClock } from '../common/clock.js';
import { ENDING_SIGNAL } from './ending-mount.js';
import {
  type EndingNote,
  endingNote,
  type LocalMount,
  localMount,
  unregisterMount,
} from './mount-registry.js';
import { CliError, EXIT_FAILED, formatBytes, printJson, printLine } from './output.js';
import { isAlive, signal } from './run-files.js';

const POLL_MS = 50;
/** An ordinary unmount is over by then; later the mount's process is asked how far it is. */
const ASK_AFTER_MS = 1_000;
/** A process that has said nothing for so long is beyond help: it is killed. */
const SILENCE_MAX_MS = 20_000;
/** The same when nothing is to be waited for. */
const FORCE_SILENCE_MAX_MS = 2_000;
/** A lazy unmount may take as long as programs use the mount; so long it is waited for. */
const LAZY_WAIT_MS = 30_000;
/** For the system's tool; what ends it earlier is the end of the mount's process. */
const TOOL_TIMEOUT_MS = 24 * 3_600_000;

interface UmountFlags {
  lazy?: boolean;
  force?: boolean;
  json?: boolean;
}

/** `holdfast umount DIR`: unmounts, and returns when everything has been written back or given up. */
export function umountCommand(): Command {
  return new Command('umount')
    .description(
      'unmount a directory; returns when everything has been written back, or no server takes it (exit code 1)',
    )
    .argument('<dir>', 'mount point')
    .option('-l, --lazy', 'detach now, finish when the last user has left')
    .option('-f, --force', 'break off requests that hang, and give up what the servers do not take at once')
    .option('--json', 'print one JSON object')
    .action(async (dir: string, flags: UmountFlags) => {
      const mountPoint = await canonicalMountPoint(dir);
      const mount = await findMount(mountPoint);
      const local = localMount(mountPoint);
      // What an interrupted unmount has left: the kernel has let go of the directory, the process still writes back.
      if (!mount && !local) throw new CliError(`${mountPoint} is not mounted`, EXIT_FAILED);
      if (mount && !mount.type.startsWith('fuse'))
        throw new CliError(`${mountPoint} is not a Holdfast mount (${mount.type})`);
      process.once('SIGINT', () => {
        process.stderr.write(`holdfast: interrupted; ${mountPoint} may not be unmounted (--force ends it)\n`);
        process.exit(EXIT_FAILED);
      });
      const kernel = mount ? umount(mountPoint, flags) : Promise.resolve();
      await (local ? finish(local, kernel, flags) : kernel);
      if (flags.json) printJson({ unmounted: mountPoint });
      else printLine(`unmounted: ${mountPoint}`);
    });
}

/** The kernel's part. It waits for what the kernel itself has to write back. @throws CliError */
async function umount(mountPoint: string, flags: UmountFlags): Promise<void> {
  // Neither a helper nor a canonical path: both would touch the mount, which may not answer.
  const options = ['-i', '-c', ...(flags.lazy || flags.force ? ['-l'] : []), ...(flags.force ? ['-f'] : [])];
  const userOptions = ['-u', ...(flags.lazy || flags.force ? ['-z'] : [])];
  const result: ToolResult =
    process.getuid?.() === 0
      ? await runTool(systemClock, 'umount', [...options, mountPoint], TOOL_TIMEOUT_MS)
      : await runTool(systemClock, 'fusermount3', [...userOptions, mountPoint], TOOL_TIMEOUT_MS);
  if (result.code === 0) return;
  const text = result.stderr.trim().split('\n').at(-1) ?? '';
  if (/busy/.test(text)) {
    throw new CliError(
      `${mountPoint} is in use by a program: end it (fuser -m ${mountPoint}), or use --lazy or --force`,
      EXIT_FAILED,
    );
  }
  throw new CliError(`cannot unmount ${mountPoint}: ${text}`, EXIT_FAILED);
}

/** Waits for the kernel and for the mount's process, as long as the latter gets on. @throws CliError */
async function finish(local: LocalMount, kernel: Promise<void>, flags: UmountFlags): Promise<void> {
  const { mountPoint, pid } = local;
  let kernelDone = false;
  kernel.then(
    () => {
      kernelDone = true;
    },
    () => {
      kernelDone = true;
    },
  );
  const began = systemClock.now();
  let note: EndingNote | undefined;
  let heardAt = began;
  let asked = false;
  let killed = false;
  while (!kernelDone || isAlive(pid)) {
    await delay(systemClock, POLL_MS);
    if (kernelDone) await kernel;
    const now = systemClock.now();
    if (flags.lazy && !flags.force) {
      if (now - began >= LAZY_WAIT_MS) throw new CliError(stillUsed(mountPoint, pid), EXIT_FAILED);
      continue;
    }
    if (!asked && (flags.force || now - began >= ASK_AFTER_MS)) {
      asked = signal(pid, ENDING_SIGNAL);
      heardAt = now;
    }
    const latest = endingNote(mountPoint, pid);
    if (latest?.beat !== note?.beat) {
      note = latest;
      if (!flags.force) heardAt = now;
    }
    if (asked && now - heardAt >= (flags.force ? FORCE_SILENCE_MAX_MS : SILENCE_MAX_MS))
      killed = signal(pid, 'SIGKILL') || killed;
  }
  await kernel;
  note = endingNote(mountPoint, pid) ?? note;
  unregisterMount(mountPoint);
  if (killed || note?.givenUp) throw new CliError(givenUp(local, note), EXIT_FAILED);
}

function stillUsed(mountPoint: string, pid: number): string {
  return `${mountPoint} is detached, but still in use: its process ${pid} ends with the last program (--force ends it now)`;
}

/** @param note absent: it said nothing before it was killed */
export function givenUp({ mountPoint, log }: LocalMount, note: EndingNote | undefined): string {
  const hint = log === undefined ? '' : `; see ${log}`;
  if (!note)
    return `${mountPoint} is unmounted, but its process did not answer and was killed: what was unwritten is given up${hint}`;
  const { bytes, changes } = note.unwritten;
  const what = `${formatBytes(bytes)} of data and ${changes} changes of names`;
  return `${mountPoint} is unmounted, but ${what} that no server took are given up${hint}`;
}
