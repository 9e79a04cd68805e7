import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, sh } from '../../lab/command.js';
import { eventually } from '../../lab/eventually.js';
import type { System } from '../system.js';
import { PEER_ADDRESS, waitPort } from './daemons.js';
import { peerSystem } from './peer.js';

/** Name of MooseFS in reports. */
export const MOOSEFS = 'MooseFS';

const CLIENT_PORT = 9420;
const CHUNKSERVERS = [1, 2, 3];
const COPIES_TIMEOUT_MS = 60_000;

/** MooseFS as shipped: one master, three chunkservers, goal 3. It issues no disk sync for an fsync. */
export function moosefs(): System {
  return peerSystem({
    name: MOOSEFS,
    directory: 'moosefs',
    programs: ['mfsmaster', 'mfschunkserver', 'mfsmount'],
    packages: 'moosefs-master moosefs-chunkserver moosefs-client',
    needsAddress: true,
    async start({ root }, daemons) {
      writeMasterConfig(root);
      daemons.start('master', 'mfsmaster', ['-f', '-a', '-c', join(root, 'mfsmaster.cfg'), 'start']);
      await waitPort(PEER_ADDRESS, CLIENT_PORT);
      for (const number of CHUNKSERVERS) {
        const config = writeChunkserverConfig(root, number);
        daemons.start(`chunkserver-${number}`, 'mfschunkserver', ['-f', '-c', config, 'start']);
      }
      for (const number of CHUNKSERVERS) await waitPort(PEER_ADDRESS, chunkserverPort(number));
    },
    mount: ({ mount }) => ['mfsmount', '-f', '-H', PEER_ADDRESS, mount],
    async mounted({ mount }) {
      await sh(`mfssetgoal 3 ${mount}`);
      const probe = join(mount, 'probe');
      await eventually(
        'three copies of a file',
        async () => {
          await run('bash', ['-c', `echo x > ${probe}; sync -f ${probe}`]);
          return /3 copies|copies: *3|chunks with 3/.test((await run('mfscheckfile', [probe])).stdout);
        },
        COPIES_TIMEOUT_MS,
      );
      rmSync(probe);
    },
  });
}

const chunkserverPort = (number: number): number => 9402 + 10 * number;

function writeMasterConfig(root: string): void {
  const data = join(root, 'master');
  mkdirSync(data);
  copyFileSync('/var/lib/mfs/metadata.mfs.empty', join(data, 'metadata.mfs'));
  writeFileSync(join(root, 'mfsexports.cfg'), '* / rw,alldirs,admin,maproot=0:0\n');
  writeFileSync(join(root, 'mfstopology.cfg'), '');
  const settings = {
    WORKING_USER: 'root',
    WORKING_GROUP: 'root',
    DATA_PATH: data,
    EXPORTS_FILENAME: join(root, 'mfsexports.cfg'),
    TOPOLOGY_FILENAME: join(root, 'mfstopology.cfg'),
    MATOML_LISTEN_HOST: PEER_ADDRESS,
    MATOCS_LISTEN_HOST: PEER_ADDRESS,
    MATOCL_LISTEN_HOST: PEER_ADDRESS,
  };
  writeFileSync(join(root, 'mfsmaster.cfg'), settingLines(settings));
}

function writeChunkserverConfig(root: string, number: number): string {
  const base = join(root, `cs${number}`);
  for (const dir of ['state', 'hdd']) mkdirSync(join(base, dir), { recursive: true });
  writeFileSync(join(base, 'mfshdd.cfg'), `${join(base, 'hdd')}\n`);
  const settings = {
    WORKING_USER: 'root',
    WORKING_GROUP: 'root',
    SYSLOG_IDENT: `mfschunkserver${number}`,
    DATA_PATH: join(base, 'state'),
    HDD_CONF_FILENAME: join(base, 'mfshdd.cfg'),
    HDD_LEAVE_SPACE_DEFAULT: '64MiB',
    BIND_HOST: PEER_ADDRESS,
    MASTER_HOST: PEER_ADDRESS,
    CSSERV_LISTEN_HOST: PEER_ADDRESS,
    CSSERV_LISTEN_PORT: chunkserverPort(number),
    MASTER_RECONNECTION_DELAY: 1,
  };
  const file = join(base, 'mfschunkserver.cfg');
  writeFileSync(file, settingLines(settings));
  return file;
}

function settingLines(settings: Record<string, string | number>): string {
  return Object.entries(settings)
    .map(([key, value]) => `${key} = ${value}\n`)
    .join('');
}
