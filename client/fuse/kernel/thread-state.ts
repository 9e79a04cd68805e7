import fs from 'node:fs';
import type { ThreadState } from './taken-in.js';

/** A thread's state is behind its name, which is in parentheses and may hold any character (proc_pid_stat(5)). */
const STATE = /^.*\) ([A-Z]) /s;

/** @param read a file of /proc/THREAD. @throws the system's error */
export function threadState(read: (file: string) => string): ThreadState | undefined {
  try {
    const state = STATE.exec(read('stat'))?.[1];
    // A thread that is on its way to sleep, or from it, shows as sleeping while it runs: then it waits for nothing ("0").
    if (state === 'S' && read('wchan') !== '0') return 'asleep';
    if (state === 'Z' || state === 'X') return 'gone';
    const ranNs = Number(read('schedstat').split(' ')[0]);
    return Number.isFinite(ranNs) ? { ranNs } : undefined;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return code === 'ENOENT' || code === 'ESRCH' ? 'gone' : undefined;
  }
}

/** Looks at threads by proc(5). @returns undefined where that is not to be had */
export function lookAtThreads(): (thread: number) => ThreadState | undefined {
  const hasProc = fs.existsSync('/proc/self/stat');
  return (thread) =>
    hasProc ? threadState((file) => fs.readFileSync(`/proc/${thread}/${file}`, 'latin1')) : undefined;
}
