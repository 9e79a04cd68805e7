import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CommandResult, run } from '../../lab/command.js';
import { eventually } from '../../lab/eventually.js';
import type { System } from '../system.js';
import { PEER_ADDRESS } from './daemons.js';
import { peerSystem } from './peer.js';

/** Name of GlusterFS in reports. */
export const GLUSTER = 'GlusterFS';

const START_TIMEOUT_MS = 60_000;
/** Three bricks and the self-heal daemon. */
const ONLINE_PROCESSES = 4;

function command(root: string, args: string[]): Promise<CommandResult> {
  const socket = `--glusterd-sock=${root}/gd.sock`;
  return run('gluster', ['--mode=script', socket, ...args], { timeoutMs: START_TIMEOUT_MS });
}

async function must(root: string, args: string[]): Promise<void> {
  const { code, stdout, stderr } = await command(root, args);
  if (code !== 0) throw new Error(`gluster ${args.join(' ')}: ${stderr} ${stdout}`);
}

/** GlusterFS, replica 3, default options; its own work directory and socket, so that no other glusterd is touched. */
export function gluster(): System {
  return peerSystem({
    name: GLUSTER,
    directory: 'gluster',
    programs: ['glusterd', 'gluster', 'glusterfs'],
    packages: 'glusterfs-server',
    needsAddress: true,
    async start({ root }, daemons) {
      for (const dir of ['work', 'log', 'run', 'b1', 'b2', 'b3']) mkdirSync(join(root, dir));
      for (const dir of ['/var/log/glusterfs', '/var/run/gluster']) mkdirSync(dir, { recursive: true });
      writeFileSync(join(root, 'glusterd.vol'), volumeFile(root));
      const files = ['-f', join(root, 'glusterd.vol'), '-l', join(root, 'log', 'glusterd.log')];
      daemons.start('glusterd', 'glusterd', ['-N', ...files, '-p', join(root, 'gd.pid')]);
      const listed = async (): Promise<boolean> => (await command(root, ['volume', 'list'])).code === 0;
      await eventually('glusterd answers', listed, START_TIMEOUT_MS);
      const bricks = ['b1', 'b2', 'b3'].map((brick) => `${PEER_ADDRESS}:${join(root, brick)}`);
      await must(root, ['volume', 'create', 'v', 'replica', '3', ...bricks, 'force']);
      await must(root, ['volume', 'start', 'v', 'force']);
      const online = async (): Promise<boolean> => {
        const { stdout } = await command(root, ['volume', 'status', 'v', '--xml']);
        return (stdout.match(/<status>1<\/status>/g) ?? []).length >= ONLINE_PROCESSES;
      };
      await eventually('all bricks are online', online, START_TIMEOUT_MS);
    },
    mount({ root, mount }) {
      const volume = [`--volfile-server=${PEER_ADDRESS}`, '--volfile-id=v'];
      const log = join(root, 'log', 'mount.log');
      return ['glusterfs', '-N', '--process-name', 'fuse', ...volume, '-l', log, mount];
    },
    stop: async ({ root }) => void (await command(root, ['volume', 'stop', 'v', 'force'])),
  });
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
