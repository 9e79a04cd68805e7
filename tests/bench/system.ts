import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryDirectory } from '../lab/directories.js';

/** A file system that is measured: brought up empty, mounted anew for cold rows, taken down without a trace. */
export interface System {
  readonly name: string;
  /** What is missing to run it here; undefined: nothing. */
  missing(): string | undefined;
  /** @returns the mounted directory. @throws Error */
  up(): Promise<string>;
  remount(): Promise<string>;
  /** Idempotent; also after a failed up(). */
  down(): Promise<void>;
  /** Processes that serve it, for their memory: name and pid. */
  pids?(): Map<string, number>;
}

/** Name of the local disk in reports. */
export const LOCAL_DISK = 'local disk';

/** A directory of the disk that everything else lies on too. */
export function localDisk(): System {
  let root: string | undefined;
  const dir = (): string => {
    root ??= temporaryDirectory('bench-local');
    return root;
  };
  return {
    name: LOCAL_DISK,
    missing: () => undefined,
    up: async () => dir(),
    remount: async () => dir(),
    async down() {
      if (root) rmSync(root, { recursive: true, force: true });
      root = undefined;
    },
  };
}

/** Where a peer keeps its files and mounts. */
export interface PeerPlaces {
  root: string;
  mount: string;
}

export function peerPlaces(name: string): PeerPlaces {
  const root = temporaryDirectory(`bench-${name}`);
  return { root, mount: join(root, 'mnt') };
}
