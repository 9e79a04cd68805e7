import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from './command.js';
import { detachMounts } from './directories.js';

/**
 * A disk that can lose its power: an ext4 file system on a loop device. A power cut is ext4's own shutdown without
 * flushing its journal (EXT4_IOC_SHUTDOWN), as xfstests does it: from that moment nothing in the page cache or the
 * running transaction reaches the device any more, and the next mount replays the journal. What was not synced is
 * gone, unless the kernel had written it back by itself; the device keeps every block that it was given.
 */

/** _IOR('X', 125, __u32), and EXT4_GOING_FLAGS_NOLOGFLUSH (fs/ext4/ext4.h). */
const EXT4_IOC_SHUTDOWN = 0x8004587d;
const NO_LOG_FLUSH = 2;
/** The journal commits by itself only so seldom: what is there after a cut was synced. */
const COMMIT_INTERVAL_S = 300;
const CUT =
  'open(my $d, "<", $ARGV[0]) or die $!; my $f = pack("L", $ARGV[2]); ioctl($d, $ARGV[1], $f) or die $!;';
const BALLAST = '.ballast';
const LAST = '.ballast-last';
const LAST_BYTES = 4 * 1024 * 1024;

/** Why such disks cannot be made here, or undefined when they can. */
export function imageDiskUnavailable(): string | undefined {
  if (process.getuid?.() !== 0) return 'loop devices need root';
  if (!existsSync('/dev/loop-control')) return 'this kernel has no loop devices';
  return undefined;
}

export class ImageDisk {
  readonly #image: string;
  #frozen = false;
  readonly dir: string;

  /** @param dir where it is mounted; the image lies beside it */
  constructor(dir: string) {
    this.dir = dir;
    this.#image = `${dir}.img`;
  }

  /** Makes an empty one of this size and mounts it. */
  create(sizeMib: number): void {
    mkdirSync(dirname(this.#image), { recursive: true });
    writeFileSync(this.#image, '');
    truncateSync(this.#image, sizeMib * 1024 * 1024);
    command('mkfs.ext4', '-q', '-F', '-m', '0', this.#image);
    this.#mount();
    rmSync(join(this.dir, 'lost+found'), { recursive: true });
  }

  /** The power goes, and comes back: every process that used it must have ended. */
  powerCut(): void {
    command('perl', '-e', CUT, this.dir, String(EXT4_IOC_SHUTDOWN), String(NO_LOG_FLUSH));
    command('umount', this.dir);
    this.#mount();
  }

  /** Others take all of it but so much; 0: every block. */
  fill(leaveMib: number): void {
    const free = spawnSync('df', ['--output=avail', '-B1', this.dir], { encoding: 'utf8' }).stdout;
    const bytes = Number(free.trim().split('\n').at(-1)) - leaveMib * 1024 * 1024;
    // The file system takes some for itself, and others may take some meanwhile.
    const ballast = bytes - (leaveMib > 0 ? 0 : LAST_BYTES);
    if (ballast > 0) command('fallocate', '-l', String(ballast), join(this.dir, BALLAST));
    if (leaveMib === 0)
      spawnSync('dd', ['if=/dev/zero', `of=${join(this.dir, LAST)}`, 'bs=4096', 'conv=fsync']);
  }

  /** Ends `fill`. */
  free(): void {
    for (const file of [BALLAST, LAST]) rmSync(join(this.dir, file), { force: true });
  }

  /** From now on every write to it hangs, and every sync; what was written before goes to disk first. */
  async freeze(): Promise<void> {
    if (this.#frozen) return;
    const { code, stderr } = await run('fsfreeze', ['--freeze', this.dir]);
    if (code !== 0) throw new Error(`fsfreeze ${this.dir}: ${stderr}`);
    this.#frozen = true;
  }

  /** Ends `freeze`; what hung goes on. */
  thaw(): void {
    if (!this.#frozen) return;
    this.#frozen = false;
    command('fsfreeze', '--unfreeze', this.dir);
  }

  /** Removes it, whatever state it is in. */
  destroy(): void {
    this.thaw();
    detachMounts(this.dir);
    rmSync(this.#image, { force: true });
  }

  #mount(): void {
    mkdirSync(this.dir, { recursive: true });
    command('mount', '-o', `loop,commit=${COMMIT_INTERVAL_S}`, this.#image, this.dir);
  }
}

function command(name: string, ...args: string[]): void {
  const result = spawnSync(name, args, { encoding: 'utf8' });
  if (result.status !== 0)
    throw new Error(`${name} ${args.join(' ')}: ${result.stderr ?? result.error?.message}`);
}
