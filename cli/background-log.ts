import { accessSync, constants, mkdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { type ClusterSelection, dataDirOf } from './cluster-options.js';
import { logFile } from './run-files.js';

/** Where a mount in the background writes its log. */
export interface BackgroundLog {
  path: string;
  /** It lies in the temporary directory: the process removes it at a clean end. */
  passing: boolean;
}

/** How the process of a mount learns of its log: the path, and `1` when that is passing. */
const PATH_VARIABLE = 'HOLDFAST_LOG';
const PASSING_VARIABLE = 'HOLDFAST_LOG_PASSING';

/** Beside the servers' logs when their data directory is on this machine, else in the temporary directory. */
export function backgroundLog(mountPoint: string, selection: ClusterSelection): BackgroundLog {
  const name = `mount-${basename(mountPoint)}-${process.pid}`;
  const dataDir = writableDataDir(selection);
  if (dataDir !== undefined) return { path: logFile(dataDir, name), passing: false };
  return { path: join(tmpdir(), `holdfast-${name}.log`), passing: true };
}

/** What the process of the mount inherits. */
export function logEnvironment({ path, passing }: BackgroundLog): Record<string, string> {
  return { [PATH_VARIABLE]: path, [PASSING_VARIABLE]: passing ? '1' : '' };
}

/** The log of this process; undefined: standard output was given by somebody else. */
export function ownLog(): BackgroundLog | undefined {
  const path = process.env[PATH_VARIABLE];
  return path ? { path, passing: process.env[PASSING_VARIABLE] === '1' } : undefined;
}

/** At the end of a mount that lost nothing, or of one that never was and whose reason has been told. */
export function removePassing(log: BackgroundLog | undefined): void {
  if (log?.passing) rmSync(log.path, { force: true });
}

/** @returns undefined when no data directory is named, or it is another user's */
function writableDataDir(selection: ClusterSelection): string | undefined {
  const dataDir = dataDirOf(selection);
  if (dataDir === undefined) return undefined;
  const logs = dirname(logFile(dataDir, 'any'));
  try {
    if (selection.cluster === undefined) mkdirSync(logs, { recursive: true });
    accessSync(logs, constants.W_OK);
    return dataDir;
  } catch {
    return undefined;
  }
}
