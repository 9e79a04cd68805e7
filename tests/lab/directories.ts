import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A temporary directory of the tests. */
export function temporaryDirectory(name: string): string {
  return mkdtempSync(join(tmpdir(), `holdfast-${name}-`));
}

/** Those of one suite, removed behind each of its tests; for tests without mounts. */
export function passingDirectories(): (name: string) => string {
  const made: string[] = [];
  afterEach(() => {
    for (const directory of made.splice(0)) rmSync(directory, { recursive: true, force: true });
  });
  return (name) => {
    const directory = temporaryDirectory(name);
    made.push(directory);
    return directory;
  };
}

/** Mount points at and below a directory, deepest first. */
export function mountsBelow(root: string): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((mount) => mount === root || mount.startsWith(`${root}/`))
    .reverse();
}

/** Takes away what is still mounted at and below a directory, whether or not somebody serves it. */
export function detachMounts(root: string): void {
  for (const mount of mountsBelow(root)) spawnSync('umount', ['-l', mount]);
}

/** The same for mounts whose process is dead, stopped or waits for servers that will not come: their callers get errors. */
export function abortMounts(root: string): void {
  for (const mount of mountsBelow(root)) {
    spawnSync('umount', ['-f', mount]);
    spawnSync('umount', ['-l', mount]);
  }
}
