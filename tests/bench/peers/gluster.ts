import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CommandResult, eventually, run } from '../../cluster/support/cluster.js';
import { type PeerPlaces, peerPlaces, type System } from '../system.js';
import {
  addPeerAddress,
  Daemons,
  missingPrograms,
  PEER_ADDRESS,
  removePeerAddress,
  unmount,
  waitMounted,
} from './daemons.js';

const START_TIMEOUT_MS = 60_000;
/** Three bricks and the self-heal daemon. */
const ONLINE_PROCESSES = 4;

/** GlusterFS, replica 3, default options; its own work directory and socket, so that no other glusterd is touched. */
export function gluster(): System {
  let places: PeerPlaces | undefined;
  let daemons: Daemons | undefined;

  const command = (args: string[]): Promise<CommandResult> =>
    run('gluster', ['--mode=script', `--glusterd-sock=${places?.root}/gd.sock`, ...args], {
      timeoutMs: START_TIMEOUT_MS,
    });
  const must = async (args: string[]): Promise<void> => {
    const { code, stdout, stderr } = await command(args);
    if (code !== 0) throw new Error(`gluster ${args.join(' ')}: ${stderr} ${stdout}`);
  };
  const remount = async (): Promise<string> => {
    const { root, mount } = places as PeerPlaces;
    await unmount(mount);
    await daemons?.stop('mount');
    const log = join(root, 'log', 'mount.log');
    const volume = [`--volfile-server=${PEER_ADDRESS}`, '--volfile-id=v'];
    daemons?.start('mount', 'glusterfs', ['-N', '--process-name', 'fuse', ...volume, '-l', log, mount]);
    await waitMounted(mount);
    return mount;
  };

  return {
    name: 'GlusterFS',
    missing: () => missingPrograms(['glusterd', 'gluster', 'glusterfs'], 'glusterfs-server'),
    async up() {
      places = peerPlaces('gluster');
      const { root } = places;
      daemons = new Daemons(root);
      await addPeerAddress();
      for (const dir of ['work', 'log', 'run', 'b1', 'b2', 'b3', 'mnt']) mkdirSync(join(root, dir));
      for (const dir of ['/var/log/glusterfs', '/var/run/gluster']) mkdirSync(dir, { recursive: true });
      writeFileSync(join(root, 'glusterd.vol'), volumeFile(root));
      const log = join(root, 'log', 'glusterd.log');
      const pidFile = join(root, 'gd.pid');
      daemons.start('glusterd', 'glusterd', [
        '-N',
        '-f',
        join(root, 'glusterd.vol'),
        '-l',
        log,
        '-p',
        pidFile,
      ]);
      const listed = async (): Promise<boolean> => (await command(['volume', 'list'])).code === 0;
      await eventually('glusterd answers', listed, START_TIMEOUT_MS);
      const bricks = ['b1', 'b2', 'b3'].map((brick) => `${PEER_ADDRESS}:${join(root, brick)}`);
      await must(['volume', 'create', 'v', 'replica', '3', ...bricks, 'force']);
      await must(['volume', 'start', 'v', 'force']);
      const online = async (): Promise<boolean> => {
        const { stdout } = await command(['volume', 'status', 'v', '--xml']);
        return (stdout.match(/<status>1<\/status>/g) ?? []).length >= ONLINE_PROCESSES;
      };
      await eventually('all bricks are online', online, START_TIMEOUT_MS);
      return remount();
    },
    remount,
    async down() {
      if (!places) return;
      await unmount(places.mount);
      await daemons?.stop('mount');
      await command(['volume', 'stop', 'v', 'force']);
      await daemons?.stopAll();
      rmSync(places.root, { recursive: true, force: true });
      await removePeerAddress();
      places = undefined;
    },
  };
}

function volumeFile(root: string): string {
  const options = {
    'working-directory': join(root, 'work'),
    'run-directory': join(root, 'run'),
    'glusterd-sockfile': join(root, 'gd.sock'),
    'transport-type': 'socket',
    'transport.socket.listen-port': 24007,
    'transport.socket.bind-address': PEER_ADDRESS,
    'ping-timeout': 0,
    'event-threads': 1,
    'max-port': 60999,
  };
  const lines = Object.entries(options).map(([key, value]) => `    option ${key} ${value}`);
  return ['volume management', '    type mgmt/glusterd', ...lines, 'end-volume', ''].join('\n');
}
