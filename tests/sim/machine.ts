import { MemoryDisk, type Survival } from '../../common/memory-disk.js';
import type { Prng } from '../../common/prng.js';
import type { DiskMood } from './disk.js';
import type { SimProcess } from './process.js';
import type { World } from './world.js';

/** How long a supervisor waits before it starts a server that ended by itself, ms. */
export const RESTART_MS = 200;

/** A host with one server: the disk stays, processes come and go. */
export abstract class Machine {
  readonly world: World;
  readonly name: string;
  readonly id: number;
  disk = new MemoryDisk();
  /** Of the disk, while nothing fills it. */
  readonly capacityBytes = this.disk.capacityBytes;
  readonly mood: DiskMood = { extraSyncMs: 0, lies: false };
  process: SimProcess | undefined;
  /** Why its processes ended by themselves. */
  readonly failures: string[] = [];
  /** A disk error was injected: that a process ends of it is right. */
  diskFaults = 0;
  /** By a fault, on the disk that it has now. */
  bitsFlipped = 0;
  /** Disks that were given up, because their server found them damaged. */
  damageFound = 0;

  /** Called when it loses what was written and not synced. */
  onLoss: (() => void) | undefined;

  constructor(world: World, name: string, id: number) {
    this.world = world;
    this.name = name;
    this.id = id;
  }

  get up(): boolean {
    return this.process !== undefined;
  }

  /** Opens everything and takes part. */
  protected abstract boot(process: SimProcess): Promise<void>;
  /** The memory of the last life is gone: what it leaves behind. */
  protected abstract afterDeath(): void;
  /** What is on the disk beside its files goes with it. */
  protected abstract forget(): void;

  get prng(): Prng {
    return this.world.prng;
  }

  start(): void {
    if (this.process) return;
    const { world } = this;
    world.network.dark.delete(this.name);
    const process = world.newProcess(this.name);
    this.process = process;
    world.trace.note(`start ${this.name}`, undefined);
    this.boot(process).catch((error: unknown) => this.failed(process, error));
  }

  /** kill -9: what was written is in the page cache and stays. */
  kill(): void {
    this.#end(false, 'everything');
  }

  /** Power cut: nothing that was not synced is certain, and nobody is told. */
  cutPower(): void {
    this.#end(true, this.prng.float() < 0.3 ? 'nothing' : 'random');
    this.onLoss?.();
  }

  /** kill -9, and an empty disk in the place of the old one. */
  wipe(): void {
    this.kill();
    this.world.trace.note(`wipe ${this.name}`, undefined);
    this.disk = new MemoryDisk();
    this.bitsFlipped = 0;
    this.forget();
  }

  /** Whether the error says that what lies on the disk is not what was written there. */
  protected abstract isDamage(error: unknown): boolean;

  /** The server cannot go on, as it says itself. One whose disk was damaged is given an empty one. */
  failed(process: SimProcess, error: unknown): void {
    if (this.process !== process || !process.alive) return;
    const { world } = this;
    if (this.bitsFlipped > 0 && this.isDamage(error)) {
      world.trace.note(`${this.name} finds its disk damaged`, undefined, () => String(error));
      this.damageFound++;
      this.wipe();
      this.onLoss?.();
      world.time.after(RESTART_MS, () => this.start());
      return;
    }
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.failures.push(text);
    world.trace.note(`${this.name} ended by itself`, undefined, () => text);
    if (this.diskFaults === 0) world.fail(new Error(`${this.name} ended by itself: ${text}`));
    this.kill();
    this.onLoss?.();
    world.time.after(RESTART_MS, () => this.start());
  }

  #end(silent: boolean, survival: Survival): void {
    const { process, world } = this;
    if (silent) world.network.dark.add(this.name);
    if (!process) return;
    world.trace.note(`${silent ? 'power cut' : 'kill'} ${this.name}`, undefined);
    this.process = undefined;
    process.die();
    world.network.died(process, silent);
    this.disk.crash(survival, this.prng);
    this.afterDeath();
  }
}
