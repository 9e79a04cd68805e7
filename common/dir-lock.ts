import fs from 'node:fs';
import path from 'node:path';
import { bootId } from './boot-id.js';

const LOCK_FILE = 'lock';
/** Taking over the lock of a dead process may have to be tried again when another one does the same. */
const MAX_TAKEOVER_TRIES = 5;

/** Another living process works in the directory. */
export class DirectoryLockedError extends Error {
  override name = 'DirectoryLockedError';
}

/** Who holds the lock: a process id alone may be reused, with start time and boot id it is unique. */
interface Holder {
  pid: number;
  start: string;
  boot: string;
}

/**
 * Takes the directory for this process alone. The lock of a process that no longer lives is taken over; processes in
 * other PID namespaces are not recognised.
 * @returns a function that gives the lock back
 * @throws DirectoryLockedError naming the process that has it
 */
export async function lockDirectory(dir: string): Promise<() => Promise<void>> {
  const file = path.join(dir, LOCK_FILE);
  const mine = `${file}.${process.pid}`;
  const self: Holder = { pid: process.pid, start: startOf(process.pid) ?? '', boot: bootId() };
  await fs.promises.writeFile(mine, JSON.stringify(self));
  try {
    for (let attempt = 0; attempt < MAX_TAKEOVER_TRIES; attempt++) {
      if (await linkExclusively(mine, file)) return () => fs.promises.unlink(file);
      const content = await fs.promises.readFile(file, 'utf8').catch(() => '');
      const holder = parseHolder(content);
      if (holder && isAlive(holder, self)) {
        throw new DirectoryLockedError(`${dir} is in use by process ${holder.pid}`);
      }
      await removeStale(file, `${mine}.stale`, content);
    }
    throw new DirectoryLockedError(`${dir} is being taken by other processes`);
  } finally {
    await fs.promises.unlink(mine).catch(() => undefined);
  }
}

/** Link(2) makes a file with its content at once, or fails. */
async function linkExclusively(from: string, to: string): Promise<boolean> {
  try {
    await fs.promises.link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Removes the stale lock; one that somebody else has put there meanwhile is put back. */
async function removeStale(file: string, aside: string, expected: string): Promise<void> {
  try {
    await fs.promises.rename(file, aside);
  } catch {
    return;
  }
  const content = await fs.promises.readFile(aside, 'utf8');
  if (content !== expected) await linkExclusively(aside, file);
  await fs.promises.unlink(aside);
}

function parseHolder(content: string): Holder | undefined {
  try {
    const holder = JSON.parse(content) as Holder;
    return Number.isInteger(holder.pid) ? holder : undefined;
  } catch {
    return undefined;
  }
}

function isAlive(holder: Holder, self: Holder): boolean {
  return holder.boot === self.boot && startOf(holder.pid) === holder.start;
}

/** Start time of a process, field 22 of proc(5)'s stat; undefined when there is no such process. */
function startOf(pid: number): string | undefined {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}
