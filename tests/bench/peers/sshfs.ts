import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sh } from '../../lab/command.js';
import type { System } from '../system.js';
import { waitPort } from './daemons.js';
import { peerSystem } from './peer.js';

const PORT = 2299;

/** sshfs with default options over an sshd of its own: one copy. */
export function sshfs(): System {
  return peerSystem({
    name: 'sshfs',
    directory: 'sshfs',
    programs: ['sshfs', '/usr/sbin/sshd', 'ssh-keygen'],
    packages: 'sshfs openssh-server',
    async start({ root }, daemons) {
      for (const dir of [join(root, 'data'), '/run/sshd']) mkdirSync(dir, { recursive: true });
      chmodSync(root, 0o700);
      for (const key of ['hostkey', 'key']) await sh(`ssh-keygen -q -t ed25519 -N '' -f ${join(root, key)}`);
      copyFileSync(join(root, 'key.pub'), join(root, 'authorized_keys'));
      writeFileSync(join(root, 'sshd_config'), sshdConfig(root));
      daemons.start('sshd', '/usr/sbin/sshd', ['-D', '-e', '-f', join(root, 'sshd_config')]);
      await waitPort('127.0.0.1', PORT);
    },
    mount({ root, mount }) {
      const options = [
        `IdentityFile=${root}/key`,
        `UserKnownHostsFile=${root}/known_hosts`,
        'StrictHostKeyChecking=no',
        'BatchMode=yes',
      ];
      const source = `root@127.0.0.1:${root}/data`;
      return ['sshfs', '-f', '-p', String(PORT), '-o', options.join(','), source, mount];
    },
  });
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
