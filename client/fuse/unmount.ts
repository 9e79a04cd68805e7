import fs from 'node:fs/promises';
import { type Clock, delay } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { runTool, type ToolResult } from './tool.js';

/** Between two attempts while programs still use the mount. */
const RETRY_INTERVAL_MS = 100;
/** For umount(8) when it should do its work at once. */
const TOOL_TIMEOUT_MS = 5_000;
/** After a lazy unmount, before the connection is aborted. */
const DETACHED_WAIT_MS = 1_000;

/** What unmounting has to know of a mount. */
export interface UnmountTarget {
  /** Canonical path. */
  mountPoint: string;
  /** Number of the FUSE connection: the minor device number of the mount. */
  connection: number | undefined;
  /** Whether the connection has ended. */
  hasEnded(): boolean;
  /** Settles with the connection. */
  ended: Promise<void>;
  /** Run for plain and for lazy unmounting. */
  umount(lazy: boolean, timeoutMs: number): Promise<ToolResult>;
}

/** umount(8) without its helpers, and without touching the mount to canonicalise its path. */
export function umountTool(clock: Clock, mountPoint: string): UnmountTarget['umount'] {
  return (lazy, timeoutMs) =>
    runTool(clock, 'umount', ['-i', '-c', ...(lazy ? ['-l'] : []), mountPoint], timeoutMs);
}

/**
 * Unmounts, by harder and harder means: plainly until `graceMs` are over, as long as programs use the mount; then
 * detached from the tree; then the connection is aborted, so that whatever still waits gets an error. Resolves when
 * the connection has ended or nothing is left to try.
 */
export async function unmountByForce(
  target: UnmountTarget,
  graceMs: number,
  clock: Clock,
  log: Logger,
): Promise<void> {
  const deadline = clock.now() + graceMs;
  while (!target.hasEnded()) {
    const left = Math.max(deadline - clock.now(), RETRY_INTERVAL_MS);
    const result = await Promise.race([target.umount(false, left), target.ended.then(() => undefined)]);
    if (result === undefined || result.code === 0) {
      if (await endsWithin(target, Math.max(deadline - clock.now(), DETACHED_WAIT_MS), clock)) return;
      break;
    }
    if (/not mounted|not found|no mount point/i.test(result.stderr)) break;
    if (clock.now() >= deadline) break;
    await Promise.race([delay(clock, RETRY_INTERVAL_MS), target.ended]);
  }
  if (target.hasEnded()) return;
  log.warn({ mountPoint: target.mountPoint }, 'the mount is busy: detaching it');
  const abortFile = await abortFileOf(target.connection);
  if (abortFile === undefined) {
    // A detached mount could not be aborted any more: both in one.
    const force = await runTool(
      clock,
      'umount',
      ['-i', '-c', '-f', '-l', target.mountPoint],
      TOOL_TIMEOUT_MS,
    );
    if (force.code !== 0) log.error({ stderr: force.stderr.trim() }, 'the mount could not be forced off');
  } else {
    const lazy = await target.umount(true, TOOL_TIMEOUT_MS);
    if (lazy.code !== 0) log.error({ stderr: lazy.stderr.trim() }, 'the mount could not be detached');
    if (await endsWithin(target, DETACHED_WAIT_MS, clock)) return;
    log.warn({ mountPoint: target.mountPoint }, 'the mount is still in use: aborting its connection');
    await fs.writeFile(abortFile, '1').catch((error: unknown) => {
      log.error({ err: error }, 'the connection could not be aborted');
    });
  }
  await endsWithin(target, DETACHED_WAIT_MS, clock);
}

async function endsWithin(target: UnmountTarget, ms: number, clock: Clock): Promise<boolean> {
  if (target.hasEnded()) return true;
  await new Promise<void>((resolve) => {
    const timer = clock.after(ms, resolve);
    void target.ended.then(() => {
      timer.cancel();
      resolve();
    });
  });
  return target.hasEnded();
}

/** The file of fusectl that aborts a connection; undefined where that file system is not mounted or not ours. */
async function abortFileOf(connection: number | undefined): Promise<string | undefined> {
  if (connection === undefined) return undefined;
  const file = `/sys/fs/fuse/connections/${connection}/abort`;
  return fs.access(file, fs.constants.W_OK).then(
    () => file,
    () => undefined,
  );
}
