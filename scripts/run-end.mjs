// Ends a test run that hangs: everything that it started, however far away from it, and what that left mounted.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The processes of a run inherit it. */
export const RUN_VARIABLE = 'HOLDFAST_TEST_RUN';

/** Processes, with their command lines, whose environment says that they belong to the run. */
function processesOf(run) {
  const found = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
      if (!environment.includes(`${RUN_VARIABLE}=${run}`)) continue;
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim();
      found.push({ pid: Number(pid), command });
    } catch {
      // It has ended meanwhile.
    }
  }
  return found;
}

/** Mounts of the tests, the deepest first. */
function testMounts() {
  const mounts = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '');
  return mounts.filter((mount) => mount.startsWith(join(tmpdir(), 'holdfast-'))).reverse();
}

/** Kills what the run started. @returns the command lines */
export function endProcesses(run) {
  const commands = [];
  // Who is killed first can no longer start others; a second look finds those who were being started.
  for (const _look of [1, 2]) {
    for (const { pid, command } of processesOf(run)) {
      if (pid === process.pid) continue;
      commands.push(command);
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended meanwhile.
      }
    }
  }
  return commands;
}

/** Takes away what is mounted by tests, of any run. @returns the directories, which name their suites */
export function detachMounts() {
  const mounts = testMounts();
  for (const mount of mounts) {
    spawnSync('umount', ['-f', mount]);
    spawnSync('umount', ['-l', mount]);
  }
  return mounts;
}
