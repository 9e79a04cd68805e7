import { type Clock, delay } from '../../common/clock.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { CheckFinding, CheckSummary } from '../../proto/gen/admin.js';
import type { CheckedInode, CheckedPage, ClusterMap, PgTask } from '../../proto/gen/cluster.js';
import { ReplicaState } from '../../proto/gen/cluster.js';
import type { Attr } from '../../proto/gen/meta.js';
import { reservesBehindEnd } from '../../proto/inode-flags.js';
import type { MetaState } from '../service/ports.js';
import type { PgTasks } from './pg-tasks.js';

/** Groups looked at beside one another. */
const PGS_AT_ONCE = 4;
/**
 * Data that nobody seems to reach is looked at again after so long: its writer may be about to say what it wrote, a delete
 * or truncate may be under way. What is in use then is looked at once more, and once more.
 */
export const RECHECK_DELAYS_MS: readonly number[] = [5000, 2000, 2000];
/** Inodes that are looked at again at most; further ones are left to the next check. */
export const SUSPECTS_MAX = 100_000;
const LAST_CHUNK = 0xffff_ffff;

export interface DataCheckOptions {
  state: MetaState;
  tasks: PgTasks;
  map(): ClusterMap | undefined;
  /** Somebody may have written to the inode without having said yet how far; asks for what is known of it. */
  inUse(ino: number): boolean;
  clock: Clock;
  contents: boolean;
  repair: boolean;
  /** Look for data that nobody reaches. */
  reach: boolean;
  /** Throws when the check is over. */
  goesOn(): void;
  progress(phase: string, done: number, total: number): void;
  finding(finding: Omit<CheckFinding, 'pg'> & { pg: number }): Promise<void>;
  summary: CheckSummary;
}

interface Suspect {
  pg: number;
  ino: number;
}

/** Why data cannot be reached, and from where on. */
interface Unreached {
  kind: 'unreachable' | 'beyond-end';
  from: number;
  chunkSize: number;
  text: string;
}

/** Compares the replicas of every group, and every chunk with the inode that it belongs to, while all are in use. */
export class DataCheck {
  readonly #options: DataCheckOptions;
  readonly #suspects: Suspect[] = [];

  constructor(options: DataCheckOptions) {
    this.#options = options;
  }

  /** @throws HoldfastError when the check is over */
  async run(): Promise<void> {
    const { summary, map, progress } = this.#options;
    const pgs = map()?.pgs.map(({ id }) => id) ?? [];
    summary.pgs = pgs.length;
    let done = 0;
    const lane = async (): Promise<void> => {
      for (let pg = pgs.shift(); pg !== undefined; pg = pgs.shift()) {
        await this.#group(pg);
        progress('data', ++done, summary.pgs);
      }
    };
    progress('data', 0, summary.pgs);
    await Promise.all(Array.from({ length: PGS_AT_ONCE }, lane));
    if (this.#suspects.length > 0) await this.#again();
  }

  /** All pages of one group. */
  async #group(pg: number): Promise<void> {
    const { summary, contents, repair, reach } = this.#options;
    let whole = true;
    let after = { afterIno: 0, afterChunk: 0 };
    for (;;) {
      let page: CheckedPage;
      try {
        page = await this.#page(pg, { ...after, contents, repair });
      } catch (error) {
        this.#options.goesOn();
        summary.pgsSkipped++;
        const { message } = toHoldfastError(error);
        const text = `not checked: ${message}`;
        await this.#found({ kind: 'unchecked', text, ino: 0, pg, repairable: false, repaired: false });
        return;
      }
      summary.chunks += page.chunks;
      summary.bytes += page.bytes;
      whole &&= page.replicas >= this.#inSync(pg);
      for (const { ino, chunk, server, kind, repairable, repaired } of page.findings) {
        const text = `chunk ${chunk} of inode ${ino} ${PHRASES[kind] ?? kind} at chunkserver ${server}`;
        await this.#found({ kind: `replica-${kind}`, text, ino, pg, repairable, repaired });
      }
      if (reach) {
        for (const inode of page.inodes) {
          if (this.#suspects.length < SUSPECTS_MAX && this.#unreached(inode, () => false))
            this.#suspects.push({ pg, ino: inode.ino });
        }
      }
      if (page.end) break;
      after = { afterIno: page.lastIno, afterChunk: page.lastChunk };
    }
    if (!whole) summary.pgsSkipped++;
  }

  async #page(pg: number, value: Extract<PgTask['body'], { $case: 'check' }>['value']): Promise<CheckedPage> {
    const { tasks, goesOn } = this.#options;
    const { page } = await tasks.call(pg, { $case: 'check', value }, goesOn);
    if (!page) throw new HoldfastError('PROTOCOL', 'a check was answered without a page');
    return page;
  }

  #inSync(pg: number): number {
    const replicas = this.#options.map()?.pgs[pg]?.replicas ?? [];
    return replicas.filter(({ state }) => state === ReplicaState.REPLICA_IN_SYNC).length;
  }

  /** Whether data of the inode reaches further than anybody can read; 'later': that cannot be told now. */
  #unreached(
    { ino, lastChunk, lastEnd }: CheckedInode,
    inUse: (ino: number) => boolean,
  ): Unreached | 'later' | undefined {
    const { state } = this.#options;
    const attr = this.#attr(ino);
    if (!attr) {
      if (isReclaimed(state, ino)) return undefined;
      if (state.isReserved(ino)) return 'later';
      const text = `data of inode ${ino}, which does not exist`;
      return { kind: 'unreachable', from: 0, chunkSize: 1, text };
    }
    // What is deleted goes anyway.
    if (attr.nlink === 0 || attr.chunkSize === 0) return undefined;
    // fallocate(2) may keep space there; what is more goes with the next cut.
    if (reservesBehindEnd(attr)) return undefined;
    const end = lastChunk * attr.chunkSize + Math.max(1, lastEnd);
    if (end <= attr.size) return undefined;
    if (attr.truncates.length > 0 || inUse(ino)) return 'later';
    const text = `data of inode ${ino} up to ${end}, behind its end at ${attr.size}`;
    return { kind: 'beyond-end', from: attr.size, chunkSize: attr.chunkSize, text };
  }

  #attr(ino: number): Attr | undefined {
    try {
      const { result } = this.#options.state.read({
        op: { $case: 'getAttr', value: { ino, want: undefined } },
      });
      return result?.$case === 'attr' ? result.value : undefined;
    } catch (error) {
      if (toHoldfastError(error).errorName === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** What still cannot be reached after a while is reported, and discarded where that is asked for. */
  async #again(): Promise<void> {
    const { clock, goesOn, progress } = this.#options;
    let suspects = this.#suspects;
    const total = suspects.length;
    for (const delayMs of RECHECK_DELAYS_MS) {
      if (suspects.length === 0) return;
      progress('reach', total - suspects.length, total);
      await delay(clock, delayMs);
      const inUse: Suspect[] = [];
      for (const [index, suspect] of suspects.entries()) {
        goesOn();
        progress('reach', total - suspects.length + index - inUse.length, total);
        if (!(await this.#suspect(suspect.pg, suspect.ino))) inUse.push(suspect);
      }
      suspects = inUse;
    }
  }

  /** @returns false: it is in use now */
  async #suspect(pg: number, ino: number): Promise<boolean> {
    const after = { afterIno: ino - 1, afterChunk: LAST_CHUNK };
    let last: CheckedInode | undefined;
    let page: CheckedPage | undefined;
    // The inode's last chunk: it may have more of them than a page holds.
    for (let next = after; ; next = { afterIno: page.lastIno, afterChunk: page.lastChunk }) {
      page = await this.#page(pg, { ...next, contents: this.#options.contents, repair: false });
      const found = page.inodes.find((inode) => inode.ino === ino);
      last = found ?? last;
      if (page.end || page.lastIno > ino) break;
    }
    const unreached = last && this.#unreached(last, this.#options.inUse);
    if (unreached === 'later') return false;
    if (!unreached) return true;
    const { kind, text } = unreached;
    const repaired = this.#options.repair && (await this.#discard(pg, ino, unreached, page));
    await this.#found({ kind, text, ino, pg, repairable: true, repaired });
    return true;
  }

  async #discard(
    pg: number,
    ino: number,
    { from, chunkSize }: Unreached,
    page: CheckedPage,
  ): Promise<boolean> {
    const { tasks, goesOn } = this.#options;
    const { versionEpoch, versionSeq } = page;
    const value = { ino, from, chunkSize, versionEpoch, versionSeq };
    try {
      await tasks.call(pg, { $case: 'discard', value }, goesOn);
      return true;
    } catch (error) {
      goesOn();
      // Somebody has begun to use it; or the group has no primary.
      if (toHoldfastError(error).errorName === 'EAGAIN') return false;
      throw error;
    }
  }

  #found(finding: Omit<CheckFinding, 'pg'> & { pg: number }): Promise<void> {
    this.#options.summary.found++;
    return this.#options.finding(finding);
  }
}

const PHRASES: Record<string, string> = {
  damaged: 'is damaged',
  missing: 'is missing',
  extra: 'should not exist',
  differs: 'differs from the others',
};

/** Whether the removal of the inode's data is under way. */
function isReclaimed(state: MetaState, ino: number): boolean {
  const [next] = state.reclaims({ ino: ino - 1, truncateSeq: 0xffff_ffff }, 1);
  return next?.ino === ino;
}
