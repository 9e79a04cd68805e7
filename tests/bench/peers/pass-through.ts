import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type PeerPlaces, peerPlaces, type System } from '../system.js';
import { Daemons, missingPrograms, unmount, waitMounted } from './daemons.js';

/** bindfs: a C file system that passes every call through to the local disk, what FUSE itself costs. */
export function passThrough(): System {
  let places: PeerPlaces | undefined;
  let daemons: Daemons | undefined;

  const remount = async (): Promise<string> => {
    const { root, mount } = places as PeerPlaces;
    await unmount(mount);
    await daemons?.stop('mount');
    daemons?.start('mount', 'bindfs', ['-f', join(root, 'data'), mount]);
    await waitMounted(mount);
    return mount;
  };

  return {
    name: 'C pass-through (bindfs)',
    missing: () => missingPrograms(['bindfs'], 'bindfs'),
    async up() {
      places = peerPlaces('bindfs');
      daemons = new Daemons(places.root);
      for (const dir of [join(places.root, 'data'), places.mount]) mkdirSync(dir);
      return remount();
    },
    remount,
    async down() {
      if (!places) return;
      await unmount(places.mount);
      await daemons?.stopAll();
      rmSync(places.root, { recursive: true, force: true });
      places = undefined;
    },
    pids: () => daemons?.pids() ?? new Map(),
  };
}
