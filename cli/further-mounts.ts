import { clearStaleMount } from '../client/fuse/mount-point.js';
import { type Clock, delay } from '../common/clock.js';
import { endingNote, type LocalMount, mountsOfCluster, unregisterMount } from './mount-registry.js';
import { isAlive, signal } from './run-files.js';
import { STOP_GRACE_MS } from './supervisor.js';
import { givenUp } from './umount.js';

const POLL_MS = 50;

/**
 * Unmounts every mount of a cluster on this machine but one, while its servers still take what those hold: without servers
 * even umount(8) would wait for them, because it looks at the directory first.
 * @param own unmounted by the caller
 * @param hurry from when it says so no mount is waited for any longer
 * @returns what became of each, a line each
 */
export function endFurtherMounts(
  clusterId: string,
  own: string,
  { clock, hurry }: { clock: Clock; hurry: () => boolean },
): Promise<string[]> {
  const further = mountsOfCluster(clusterId).filter((mount) => mount.mountPoint !== own);
  return Promise.all(further.map((mount) => endMount(mount, clock, hurry)));
}

async function endMount(mount: LocalMount, clock: Clock, hurry: () => boolean): Promise<string> {
  const { mountPoint, pid } = mount;
  signal(pid, 'SIGTERM');
  signal(pid, 'SIGCONT'); // one that is paused takes no SIGTERM before
  const deadline = clock.now() + STOP_GRACE_MS;
  let killed = false;
  while (isAlive(pid)) {
    if (clock.now() >= deadline || hurry()) killed = signal(pid, 'SIGKILL') || killed;
    await delay(clock, POLL_MS);
  }
  await clearStaleMount(mountPoint);
  const note = endingNote(mountPoint, pid);
  unregisterMount(mountPoint);
  return killed || note?.givenUp ? givenUp(mount, note) : `unmounted ${mountPoint}`;
}
