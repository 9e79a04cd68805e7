import { chmodSync, copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sh } from '../../cluster/support/cluster.js';
import { type PeerPlaces, peerPlaces, type System } from '../system.js';
import { Daemons, missingPrograms, unmount, waitMounted, waitPort } from './daemons.js';

const PORT = 2299;

/** sshfs with default options over an sshd of its own: one copy. */
export function sshfs(): System {
  let places: PeerPlaces | undefined;
  let daemons: Daemons | undefined;

  const remount = async (): Promise<string> => {
    const { root, mount } = places as PeerPlaces;
    await unmount(mount);
    await daemons?.stop('mount');
    const options = [
      `IdentityFile=${root}/key`,
      `UserKnownHostsFile=${root}/known_hosts`,
      'StrictHostKeyChecking=no',
      'BatchMode=yes',
    ];
    const source = `root@127.0.0.1:${root}/data`;
    daemons?.start('mount', 'sshfs', ['-f', '-p', String(PORT), '-o', options.join(','), source, mount]);
    await waitMounted(mount);
    return mount;
  };

  return {
    name: 'sshfs',
    missing: () => missingPrograms(['sshfs', '/usr/sbin/sshd', 'ssh-keygen'], 'sshfs openssh-server'),
    async up() {
      places = peerPlaces('sshfs');
      const { root, mount } = places;
      daemons = new Daemons(root);
      for (const dir of [join(root, 'data'), mount, '/run/sshd']) mkdirSync(dir, { recursive: true });
      chmodSync(root, 0o700);
      for (const key of ['hostkey', 'key']) await sh(`ssh-keygen -q -t ed25519 -N '' -f ${join(root, key)}`);
      copyFileSync(join(root, 'key.pub'), join(root, 'authorized_keys'));
      writeFileSync(join(root, 'sshd_config'), sshdConfig(root));
      daemons.start('sshd', '/usr/sbin/sshd', ['-D', '-e', '-f', join(root, 'sshd_config')]);
      await waitPort('127.0.0.1', PORT);
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

function sshdConfig(root: string): string {
  const settings = {
    ListenAddress: '127.0.0.1',
    Port: PORT,
    HostKey: `${root}/hostkey`,
    AuthorizedKeysFile: `${root}/authorized_keys`,
    PidFile: 'none',
    StrictModes: 'no',
    UsePAM: 'no',
    PasswordAuthentication: 'no',
    KbdInteractiveAuthentication: 'no',
    PermitRootLogin: 'prohibit-password',
    Subsystem: 'sftp /usr/lib/openssh/sftp-server',
  };
  return Object.entries(settings)
    .map(([key, value]) => `${key} ${value}\n`)
    .join('');
}
