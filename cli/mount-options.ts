import { CliError } from './output.js';

/** What -o asks of a mount. */
export interface MountOptions {
  readOnly: boolean;
  noAtime: boolean;
  /** For the kernel, as they were given. */
  kernel: readonly string[];
}

export const NO_MOUNT_OPTIONS: MountOptions = { readOnly: false, noAtime: false, kernel: [] };

/** Where two contradict one another, the later one counts, as with mount(8). */
const OWN: Readonly<Record<string, Partial<MountOptions>>> = {
  ro: { readOnly: true },
  rw: { readOnly: false },
  noatime: { noAtime: true },
  relatime: { noAtime: false },
  defaults: {},
};
const KERNEL = ['noatime', 'relatime', 'nosuid', 'suid', 'nodev', 'dev', 'noexec', 'exec', 'dirsync', 'sync'];

export const MOUNT_OPTION_NAMES: readonly string[] = [...new Set([...Object.keys(OWN), ...KERNEL])];

/** "ro,noatime" as options; repeated -o add up. @throws CliError naming what is unknown */
export function parseMountOptions(text: string, before: MountOptions): MountOptions {
  let options = before;
  for (const name of text.split(',').filter((part) => part !== '')) {
    const own = OWN[name];
    if (own) options = { ...options, ...own };
    if (KERNEL.includes(name)) options = { ...options, kernel: [...options.kernel, name] };
    else if (!own)
      throw new CliError(`-o ${name}: unknown mount option; known are ${MOUNT_OPTION_NAMES.join(', ')}`);
  }
  return options;
}
