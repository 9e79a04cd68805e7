import path from 'node:path';
import { type Disk, diskErrorCode, replaceFile } from '../../common/disk.js';
import { HoldfastError } from '../../proto/errors.js';
import type { ClusterMap, Fence } from '../../proto/gen/cluster.js';
import type { CommandResult, InitCluster, ReadReply, ReadRequest } from '../../proto/gen/meta.js';
import { MetaStateMachine } from '../namespace/state-machine.js';
import type { Command, StateMachine } from '../replica/state-machine.js';
import type { Kv, KvView } from '../store/kv.js';
import { type FailureListener, lmdbFiles, type StoreFiles } from '../store/store-files.js';
import type { MetaQuotas, MetaState, ReclaimItem, ReclaimKey, SessionRecord } from './ports.js';

/** In the directory of a metaserver. */
export const STATE_FILE = 'state.mdb';
/** Lies beside the state while nobody has it open, after a clean end. */
const CLEAN_FILE = 'state.clean';

export interface StateOptions {
  /** Told once when a read finds damage later (CORRUPT), or the disk refuses a write (EIO). */
  onFailure?: FailureListener;
  /** Up to which size a state that was not closed cleanly is read as a whole before it is used; a larger one by verifyBehind(). */
  verifyFirstMaxBytes?: number;
  /** How stores lie in files; default: as LMDB keeps them. */
  files?: StoreFiles;
  /** Told when verifyBehind() could not look, once each time: the state is neither known to be sound nor found damaged. */
  onUnverified?: (error: Error) => void;
}

/** What verifyBehind() has still to find out. */
export interface Unverified {
  /** Why it could not look; the next start tries again. Absent: it has not ended yet. */
  failure?: string;
}

/**
 * The state machine in its file, as the replica drives it and the services ask it. A snapshot of a replica replaces
 * file and machine; the services are asked to forget everything anyway when the leadership changes.
 */
export class ReplicatedState implements StateMachine<CommandResult>, MetaState {
  readonly #file: string;
  readonly #disk: Disk;
  readonly #files: StoreFiles;
  readonly #options: StateOptions;
  #kv: Kv;
  #machine: MetaStateMachine;
  /** Not read as a whole since a crash: not known to be sound. */
  #unverified: Unverified | undefined;
  #verification: { stop: AbortController; done: Promise<void> } | undefined;

  /**
   * Opens the state in the directory `dir`, or makes an empty one. Unless it was closed cleanly it is read as a whole, before
   * anything else if it is small; nothing is used of a larger one either that does not match its checksum.
   * @throws HoldfastError CORRUPT, or VERSION when another version wrote it
   */
  static async open(disk: Disk, dir: string, options: StateOptions = {}): Promise<ReplicatedState> {
    const { onFailure, verifyFirstMaxBytes = Number.POSITIVE_INFINITY, files = lmdbFiles } = options;
    const file = path.join(dir, STATE_FILE);
    const sound = await takeCleanMark(disk, dir);
    const behind = !sound && (await files.bytes(file)) > verifyFirstMaxBytes;
    if (!sound && !behind) await files.verify(file);
    const kv = files.open(file, onFailure);
    try {
      const state = new ReplicatedState(disk, files, file, kv, new MetaStateMachine(kv), options);
      if (behind) state.#unverified = {};
      return state;
    } catch (error) {
      await kv.close();
      throw error;
    }
  }

  private constructor(
    disk: Disk,
    files: StoreFiles,
    file: string,
    kv: Kv,
    machine: MetaStateMachine,
    options: StateOptions,
  ) {
    this.#disk = disk;
    this.#files = files;
    this.#options = options;
    this.#file = file;
    this.#kv = kv;
    this.#machine = machine;
  }

  apply(commands: readonly Command[]): CommandResult[] {
    return this.#machine.apply(commands);
  }

  appliedIndex(): number {
    return this.#machine.appliedIndex();
  }

  async flushed(): Promise<number> {
    const index = this.#machine.appliedIndex();
    await this.#kv.flushed();
    return index;
  }

  behind(): Promise<void> | undefined {
    return this.#kv.behind();
  }

  async backup(file: string): Promise<number> {
    await this.#kv.backup(file);
    await this.#verifyCopy(file);
    // Commands were applied meanwhile: only the copy itself knows how far it got.
    const copy = this.#files.open(file);
    try {
      return new MetaStateMachine(copy).appliedIndex();
    } finally {
      await copy.close();
      await this.#files.tidy(file);
    }
  }

  /** Reads as a whole, while it is in use, what open() has left to this. Whoever hears of damage must be ready for it. */
  verifyBehind(): void {
    if (!this.#unverified || this.#verification) return;
    const stop = new AbortController();
    const done = this.#files.verify(this.#file, { inUse: true, signal: stop.signal }).then(
      () => {
        this.#unverified = undefined;
      },
      (error: unknown) => this.#notVerified(error, stop.signal.aborted),
    );
    this.#verification = { stop, done };
  }

  /** Present while the state is not known to be sound after a crash, because it has not been read as a whole. */
  get unverified(): Unverified | undefined {
    return this.#unverified;
  }

  #notVerified(cause: unknown, stopped: boolean): void {
    if (cause instanceof HoldfastError && cause.errorName === 'CORRUPT') {
      this.#options.onFailure?.(cause);
      return;
    }
    if (stopped) return;
    // Whatever kept it from looking: the next start looks again, as the state is not marked as sound.
    const error = cause instanceof Error ? cause : new Error(String(cause));
    this.#unverified = { failure: error.message };
    this.#options.onUnverified?.(error);
  }

  async #stopVerifying(): Promise<void> {
    this.#verification?.stop.abort();
    await this.#verification?.done;
    this.#verification = undefined;
  }

  /** Damage must not spread: a copy is read as a whole before anybody gets it. */
  async #verifyCopy(file: string): Promise<void> {
    try {
      await this.#files.verify(file);
    } catch (error) {
      if (error instanceof HoldfastError && error.errorName === 'CORRUPT') this.#options.onFailure?.(error);
      throw error;
    } finally {
      await this.#files.tidy(file);
    }
  }

  async restore(file: string): Promise<void> {
    await this.#stopVerifying();
    this.#unverified = undefined;
    await this.#kv.close();
    await this.#files.replace(file, this.#file);
    await this.#disk.syncDir(path.dirname(this.#file));
    this.#kv = this.#files.open(this.#file, this.#options.onFailure);
    this.#machine = new MetaStateMachine(this.#kv);
  }

  /** @throws HoldfastError when the last transactions could not be written, or the state is damaged */
  async close(): Promise<void> {
    await this.#stopVerifying();
    await this.#kv.close();
    if (this.#unverified) return;
    await replaceFile(this.#disk, cleanMark(path.dirname(this.#file)), Buffer.alloc(0));
  }

  read(request: ReadRequest): ReadReply {
    return this.#machine.read(request);
  }

  cluster(): InitCluster | undefined {
    return this.#machine.cluster();
  }

  map(): ClusterMap {
    return this.#machine.map();
  }

  mapVersion(): number {
    return this.#machine.mapVersion();
  }

  session(id: number): SessionRecord | undefined {
    return this.#machine.session(id);
  }

  sessions(): SessionRecord[] {
    return this.#machine.sessions();
  }

  fencing(): number[] {
    return this.#machine.fencing();
  }

  fence(): Fence {
    return this.#machine.fence();
  }

  reclaims(after: ReclaimKey | undefined, limit: number): ReclaimItem[] {
    return this.#machine.reclaims(after, limit);
  }

  isReserved(ino: number): boolean {
    return this.#machine.isReserved(ino);
  }

  view(): Promise<KvView> {
    return this.#kv.view();
  }

  quotas(): MetaQuotas {
    return this.#machine.quotas();
  }

  usage(): { inodes: number; orphans: number } {
    return this.#machine.usage();
  }
}

function cleanMark(dir: string): string {
  return path.join(dir, CLEAN_FILE);
}

/** Removes the mark of a clean end, durably, before anything is written. @returns whether there was one */
async function takeCleanMark(disk: Disk, dir: string): Promise<boolean> {
  try {
    await disk.unlink(cleanMark(dir));
  } catch (error) {
    if (diskErrorCode(error) === 'ENOENT') return false;
    throw error;
  }
  await disk.syncDir(dir);
  return true;
}
