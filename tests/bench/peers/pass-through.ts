import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { System } from '../system.js';
import { peerSystem } from './peer.js';

/** Name of the pass-through in reports. */
export const PASS_THROUGH = 'C pass-through (bindfs)';

/** bindfs: a C file system that passes every call through to the local disk, what FUSE itself costs. */
export function passThrough(): System {
  return peerSystem({
    name: PASS_THROUGH,
    directory: 'bindfs',
    programs: ['bindfs'],
    packages: 'bindfs',
    start: async ({ root }) => mkdirSync(join(root, 'data')),
    mount: ({ root, mount }) => ['bindfs', '-f', join(root, 'data'), mount],
  });
}
