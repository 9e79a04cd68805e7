import { assert } from '../../common/assert.js';
import type { Clock, Timer } from '../../common/clock.js';
import { Counts } from '../../common/counts.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import { errorFromCode, type HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type {
  CommandResult,
  CommitWrite,
  MutationReply,
  QuotaAmount,
  SetAttr,
  Time,
} from '../../proto/gen/meta.js';
import { BATCH_MUTATIONS_MAX, S_IFMT, S_IFREG } from '../../proto/types.js';
import { copyOfMaking } from '../attr-copy.js';
import type { Change, MutationOp } from '../meta/api.js';

/**
 * Changes that this mount made by itself under exclusive leases, on their way to the leader in the order in which they
 * were made. Everything in the lane is covered by leases of this session, so that nothing in it ever waits for another
 * session: a recall that waits for the lane cannot wait for itself.
 *
 * A file that was written and closed has a place in the lane from then on; its commit is put there once the data has
 * landed, and what was changed later waits behind it. One that was closed again meanwhile has the next place as well: what
 * that commit does not tell of comes there. So what a crash of this machine leaves is always a prefix.
 */

/** Changes and places that wait or are on their way; whoever makes a further one waits for room. */
export const LANE_CHANGES_MAX = 4096;
/** Changes of one batch. */
export const LANE_BATCH_MAX = BATCH_MUTATIONS_MAX;
/**
 * Changes are gathered for so long at most, unless somebody waits for them. Each batch is an entry of the log, which
 * three servers write, sync and apply: what it costs does not depend on how many changes it has.
 */
export const LANE_DELAY_MS = 200;

/**
 * With so many who wait at least, commits of times beside data that is still on its way are held back until there is one
 * for every other of those who wait, for so long at most, and no longer than until the data beside one of them has landed.
 */
export const LANE_GATHER_WAITERS_MIN = 8;
export const LANE_GATHER_MS = 4;

interface Item {
  /** Undefined: a place that is kept for the commit of `inos[0]`. */
  change: Change | undefined;
  readonly inos: readonly number[];
  /** The commit of a file that is open: whoever syncs that file waits for it, and nobody else needs it. */
  readonly loose: boolean;
  readonly result: Deferred<MutationReply>;
}

export interface LaneDeps {
  clock: Clock;
  /** As MetaApi.mutateBatch. */
  send(changes: readonly Change[]): Promise<CommandResult[]>;
  /** Whether a further commit of the file comes behind the one that is being pushed: for what was written and closed since. */
  expectsMore?(ino: number): boolean;
  /** Somebody waits for what is in the lane: commits that it expects should be made now. */
  onHurry?(): void;
  /** A change was refused or its outcome is unknown: what is known of these inodes is wrong. */
  onFailure(inos: readonly number[], op: MutationOp['$case'], error: HoldfastError): void;
}

export class ChangeLane {
  readonly #deps: LaneDeps;
  #waiting: Item[] = [];
  #sending: Item[] = [];
  /** Places without a change yet, by inode. */
  readonly #places = new Map<number, Item>();
  /** Of each inode, its changes that are not answered yet. */
  readonly #touched = new Counts();
  readonly #roomWaiters: Deferred<void>[] = [];
  readonly #idleWaiters: { last: Item; done: Deferred<void> }[] = [];
  #timer: Timer | undefined;
  #gathering: Timer | undefined;
  /** Something that waits is not to be held back for others. */
  #due = false;
  /** Those who wait for what is in the lane, or will be. */
  #hurried = 0;

  constructor(deps: LaneDeps) {
    this.#deps = deps;
  }

  /** Changes and places that are not answered yet. */
  get pending(): number {
    return this.#waiting.length + this.#sending.length;
  }

  /** Whether a change of one of these inodes is not answered yet. */
  touches(inos: readonly number[]): boolean {
    return this.#touched.size > 0 && inos.some((ino) => this.#touched.has(ino));
  }

  /** Whether a commit of this file belongs here: its place is kept, or earlier changes of it are on their way. */
  expects(ino: number): boolean {
    return this.#touched.has(ino);
  }

  get hasRoom(): boolean {
    return this.pending < LANE_CHANGES_MAX;
  }

  /** Waits until there is room for another change; undefined: there is. */
  room(): Promise<void> | undefined {
    if (this.hasRoom) return undefined;
    const waiter = deferred<void>();
    this.#roomWaiters.push(waiter);
    return this.urgently(waiter.promise);
  }

  /**
   * Takes a change that was made here. A commit goes to the place that is kept for it.
   * @param inos all whose attributes, names or data it changes
   * @param spent as for MetaApi.mutate
   * @param behind all changes so far: a commit, and not in that place
   * @returns the server's answer; rejects with its refusal, which onFailure() has heard already
   */
  push(
    op: MutationOp,
    inos: readonly number[],
    time?: Time,
    spent?: QuotaAmount[],
    behind = false,
  ): Promise<MutationReply> {
    const change = { op, time, spent };
    const place = op.$case === 'commitWrite' && !behind ? this.#places.get(op.value.ino) : undefined;
    let item = place;
    if (item) {
      item.change = change;
      this.#passPlaceOn(item);
    } else item = this.#append(change, inos);
    item.result.promise.catch(() => undefined); // most callers go on without it
    this.#schedule();
    return item.result.promise;
  }

  /** The place is taken; a further commit of the file gets the next one. */
  #passPlaceOn(item: Item): void {
    const ino = item.inos[0] as number;
    this.#places.delete(ino);
    if (!this.#deps.expectsMore?.(ino)) return;
    const next = this.#placeOf(ino);
    this.#waiting.splice(this.#waiting.indexOf(item) + 1, 0, next);
  }

  /** Keeps a place for the commit of what was written to a file so far; release it when no commit comes. */
  keepPlace(ino: number): void {
    if (!this.#places.has(ino)) this.#waiting.push(this.#placeOf(ino));
  }

  #placeOf(ino: number): Item {
    const item = this.#made(undefined, [ino]);
    item.result.promise.catch(() => undefined);
    this.#places.set(ino, item);
    return item;
  }

  /** Whether a commit of the file may go ahead of changes that were made before it. */
  keepsPlace(ino: number): boolean {
    return this.#places.has(ino);
  }

  /** No commit of the file comes: nothing waits for it any more. */
  releasePlace(ino: number): void {
    const item = this.#places.get(ino);
    if (!item) return;
    this.#places.delete(ino);
    const at = this.#waiting.indexOf(item);
    this.#waiting.splice(at, 1);
    const before = this.#waiting[at - 1] ?? this.#sending.at(-1);
    // Whoever waits for it still waits for what went before it.
    if (before) for (const waiter of this.#idleWaiters) if (waiter.last === item) waiter.last = before;
    this.#settle(item);
    this.#schedule();
  }

  /** Whether somebody waits for what is in the lane. */
  get hurried(): boolean {
    return this.#hurried > 0;
  }

  /** Nothing in the lane is held back until `work` is done. */
  async urgently<T>(work: Promise<T>): Promise<T> {
    this.#hurried++;
    this.#deps.onHurry?.();
    this.#pump();
    try {
      return await work;
    } finally {
      this.#hurried--;
    }
  }

  /** The data beside the commit of a file's times has landed: who waits for both waits for the commit alone. */
  dataLanded(ino: number): void {
    if (this.#due || !this.#waiting.some((item) => item.loose && item.inos[0] === ino)) return;
    this.#due = true;
    this.#pump();
  }

  /** Everything so far is on a majority's disks, or was refused. */
  async settled(): Promise<void> {
    const last = this.#waiting.at(-1) ?? this.#sending.at(-1);
    if (last) await this.urgently(this.#settling(last));
  }

  /**
   * What a sync of this file or directory promises: all changes of names and attributes so far, the commits of files that were
   * closed, and whatever concerns the inode itself have left the lane. Not the commits of files that are open: syncs at once
   * would wait for one another in turn.
   */
  async synced(ino: number): Promise<void> {
    const soFar = this.syncing(ino);
    if (soFar) await this.urgently(soFar);
  }

  /** When synced() would be done, if nobody hurries; undefined: now. */
  syncing(ino: number): Promise<void> | undefined {
    const counts = ({ loose, inos }: Item): boolean => !loose || inos.includes(ino);
    const waiting = this.#waiting.findLast(counts);
    if (waiting) return this.#settling(waiting);
    return this.#sending.some(counts) ? this.#settling(this.#sending.at(-1) as Item) : undefined;
  }

  /** What has been changed of these inodes, with all that went before it, is on a majority's disks or was refused. */
  async settledFor(inos: readonly number[]): Promise<void> {
    if (!this.touches(inos)) return;
    const touches = (item: Item): boolean => item.inos.some((ino) => inos.includes(ino));
    const last = this.#waiting.findLast(touches) ?? this.#sending.at(-1);
    if (last) await this.urgently(this.#settling(last));
  }

  /** The session is over: everything that waits fails. What is on its way fails by itself. */
  abort(error: HoldfastError): void {
    const items = this.#waiting;
    this.#waiting = [];
    this.#places.clear();
    for (const item of items) this.#fail(item, error);
    this.#timer?.cancel();
    this.#gathering?.cancel();
    this.#timer = this.#gathering = undefined;
  }

  #append(change: Change | undefined, inos: readonly number[]): Item {
    const item = this.#made(change, inos);
    this.#waiting.push(item);
    return item;
  }

  #made(change: Change | undefined, inos: readonly number[]): Item {
    for (const ino of inos) this.#touched.up(ino);
    return { change, inos, loose: change?.op.$case === 'commitWrite', result: deferred() };
  }

  #settling(last: Item): Promise<void> {
    const done = deferred<void>();
    this.#idleWaiters.push({ last, done });
    return done.promise;
  }

  #schedule(): void {
    if (this.#hurried > 0 || this.#waiting.length >= LANE_BATCH_MAX) {
      this.#pump();
      return;
    }
    if (this.#waiting.length === 0 || this.#sending.length > 0) return;
    this.#timer ??= this.#deps.clock.after(LANE_DELAY_MS, () => {
      this.#timer = undefined;
      this.#pump();
    });
  }

  /** Sends what is ready at the head, one batch at a time. */
  #pump(): void {
    if (this.#sending.length > 0) return;
    let ready = 0;
    while (ready < LANE_BATCH_MAX && this.#waiting[ready]?.change) ready++;
    if (ready === 0) return;
    if (this.#gathers(ready)) return;
    this.#due = false;
    this.#timer?.cancel();
    this.#gathering?.cancel();
    this.#timer = this.#gathering = undefined;
    this.#sending = this.#waiting.splice(0, ready);
    void this.#send(this.#sending);
  }

  /** Whether what is ready is held back for a moment, for others to go with it. */
  #gathers(ready: number): boolean {
    const enough = this.#hurried < LANE_GATHER_WAITERS_MIN || 2 * ready >= this.#hurried;
    // Who waits for the lane itself has nothing else to wait for.
    if (enough || this.#due || this.#idleWaiters.length > 0) return false;
    for (let at = 0; at < ready; at++) if (!isBesideData(this.#waiting[at] as Item)) return false;
    this.#gathering ??= this.#deps.clock.after(LANE_GATHER_MS, () => {
      this.#gathering = undefined;
      this.#due = true;
      this.#pump();
    });
    return true;
  }

  async #send(items: readonly Item[]): Promise<void> {
    const { changes, places } = merged(items.map(({ change }) => change as Change));
    try {
      const results = await this.#deps.send(changes);
      assert(results.length === changes.length, 'a batch has a result for each change');
      for (const [at, item] of items.entries())
        this.#answer(item, results[places[at] as number] as CommandResult);
    } catch (error) {
      for (const item of items) this.#fail(item, toHoldfastError(error));
    }
    this.#sending = [];
    for (const waiter of this.#roomWaiters.splice(0)) waiter.resolve(); // they look again
    this.#schedule();
  }

  #answer(item: Item, { error, errorText, mutation }: CommandResult): void {
    if (error === 0 && mutation) {
      item.result.resolve(mutation);
      this.#settle(item);
    } else this.#fail(item, errorFromCode(error, errorText));
  }

  #fail(item: Item, error: HoldfastError): void {
    if (item.change) {
      item.result.reject(error);
      this.#deps.onFailure(item.inos, item.change.op.$case, error);
    }
    this.#settle(item);
  }

  #settle(item: Item): void {
    for (const ino of item.inos) this.#touched.down(ino);
    for (let at = this.#idleWaiters.length - 1; at >= 0; at--) {
      const waiter = this.#idleWaiters[at] as { last: Item; done: Deferred<void> };
      if (waiter.last !== item) continue;
      this.#idleWaiters.splice(at, 1);
      waiter.done.resolve();
    }
  }
}

/** A commit behind which nobody sees more of the file than before. */
function isBesideData({ change, loose }: Item): boolean {
  return loose && change?.op.$case === 'commitWrite' && change.op.value.newSize === 0;
}

/** A file made in a batch, and what was set of it since, which goes with its making. */
interface Made {
  readonly at: number;
  set: SetAttr | undefined;
}

/**
 * One entry of the log is applied as a whole: what was written to a file that is made in the same batch, and what was set
 * of it, goes with its making.
 * @returns the changes to send, and the place among them of each one that was given
 */
function merged(given: readonly Change[]): { changes: Change[]; places: number[] } {
  const changes: Change[] = [];
  const places: number[] = [];
  /** Files made in this batch, until names change in another way, or they are written once more. */
  const made = new Map<number, Made>();
  for (const change of given) {
    const { op } = change;
    const file = op.$case === 'commitWrite' ? made.get(op.value.ino) : undefined;
    if (op.$case === 'commitWrite' && file && mayGoAhead(op.value, file, changes)) {
      const { at } = file;
      changes[at] = withWritten(changes[at] as Change, op.value, change.spent);
      places.push(at);
      continue;
    }
    const owner = op.$case === 'setAttr' ? made.get(op.value.ino) : undefined;
    if (op.$case === 'setAttr' && owner && change.time && op.value.size === undefined) {
      owner.set = bothSet(owner.set, op.value, change.time);
      changes[owner.at] = withSet(changes[owner.at] as Change, owner.set);
      places.push(owner.at);
      continue;
    }
    if (op.$case === 'makeNode') {
      const { ino, mode } = op.value;
      if (ino && (mode & S_IFMT) === S_IFREG) made.set(ino, { at: changes.length, set: undefined });
    } else if (op.$case === 'commitWrite' || op.$case === 'setAttr') made.delete(op.value.ino);
    else made.clear();
    places.push(changes.length);
    changes.push(change);
  }
  return { changes, places };
}

function withWritten(making: Change, written: CommitWrite, spentOnIt: QuotaAmount[] | undefined): Change {
  assert(making.op.$case === 'makeNode', 'a file is made before it is written');
  const value = copyOfMaking(making.op.value);
  value.written = written;
  const spent = spentOnIt ? [...(making.spent ?? []), ...spentOnIt] : making.spent;
  return { op: { $case: 'makeNode', value }, time: making.time, spent };
}

function withSet(making: Change, set: SetAttr): Change {
  assert(making.op.$case === 'makeNode', 'a file is made before anything is set of it');
  const value = copyOfMaking(making.op.value);
  value.set = set;
  return { op: { $case: 'makeNode', value }, time: making.time, spent: making.spent };
}

/**
 * What two calls have set, one after the other. Of a file that was just made here it is known that there are no
 * privileges to take away.
 */
function bothSet(before: SetAttr | undefined, change: SetAttr, time: Time): SetAttr {
  return {
    ino: 0,
    size: undefined,
    mode: change.mode ?? before?.mode,
    uid: change.uid ?? before?.uid,
    gid: change.gid ?? before?.gid,
    atime: change.atimeNow ? time : (change.atime ?? before?.atime),
    mtime: change.mtimeNow ? time : (change.mtime ?? before?.mtime),
    ctime: change.ctime ?? time,
    atimeNow: false,
    mtimeNow: false,
    killPriv: false,
    changes: (before?.changes ?? 0) + 1,
  };
}

/** Whether a commit can go ahead of what was set since the file was made: the times come out the same. */
function mayGoAhead(written: CommitWrite, { at, set }: Made, changes: readonly Change[]): boolean {
  const { op } = changes[at] as Change;
  if (op.$case !== 'makeNode' || op.value.written) return false; // one commit each
  if (!set?.ctime) return true;
  const { mtime, ctime } = written;
  if (!ctime || compareTimes(ctime, set.ctime) > 0) return false;
  return !set.mtime || (mtime !== undefined && compareTimes(mtime, set.mtime) === 0);
}

function compareTimes(a: Time, b: Time): number {
  return a.sec - b.sec || a.nsec - b.nsec;
}
