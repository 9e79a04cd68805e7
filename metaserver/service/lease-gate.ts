import type { Clock, Timespec } from '../../common/clock.js';
import { DirRows } from '../../proto/dir-rows.js';
import { HoldfastError } from '../../proto/errors.js';
import {
  type Attr,
  type Lease,
  LeaseMode,
  type Mutation,
  type MutationReply,
  type ReadReply,
  type ReadRequest,
} from '../../proto/gen/meta.js';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type SessionTimes } from '../../proto/types.js';
import { type Footprint, footprintOf, nameKey, subjectOf, toldBy } from '../leases/footprint.js';
import { LeaseCore, type RecallSink } from '../leases/lease-core.js';
import { NameOrder } from '../leases/name-order.js';
import type { MetaState, SessionRecord } from './ports.js';

export interface LeaseGateOptions {
  state: MetaState;
  clock: Clock;
  times: SessionTimes;
  /** Whether another session than this one has the inode open. */
  isOpenElsewhere(session: number, ino: number): boolean;
  /** Whether one session writes the inode while another one has it open. */
  isContested(ino: number): boolean;
  recall: RecallSink;
}

/**
 * What somebody owns and has not changed for so long, a listing with attributes asks back, a whole page in one message: else who
 * goes through a directory that another mount has made waits for each of its entries, one behind the other.
 */
export const OWNED_IDLE_MS = 1_000;
/** A listing waits no longer for that: who owns it may be away, and nobody has asked for these entries yet. */
export const IDLE_OWNER_WAIT_MS = 100;

/** So long when it wants them alone: each of the entries would be waited for at its change, one behind the other. */
export const SOLE_WAIT_MS = 500;

/** Changes that no client asked for wait like those of a session of this number, which none has. */
const NOBODY = 0;

type ReadOp = NonNullable<ReadRequest['op']>;

/**
 * Holds reads and mutations back while what they touch is leased to others, and adds leases to the answers.
 *
 * A new leader knows of no lease: it lets nothing pass before every session that may hold one has announced itself or
 * is over. Everything is volatile; who waits when the leadership ends is not called any more, its stream ends.
 */
export class LeaseGate {
  readonly #core: LeaseCore;
  readonly #options: LeaseGateOptions;
  readonly #names = new NameOrder();
  /** Sessions whose leases this leader has to hear of, or that have to be fenced. */
  readonly #awaited = new Set<number>();
  #held: (() => void)[] = [];
  /** Counts the leaderships: what was begun under a former one is void. */
  #term = 0;
  /** Listings that have waited for owners already. */
  readonly #unveiled = new WeakSet<ReadOp>();

  constructor(options: LeaseGateOptions) {
    this.#options = options;
    this.#core = new LeaseCore(options.recall);
  }

  /** @param fencing sessions that are over, but not yet shut out everywhere */
  begin(sessions: readonly SessionRecord[], fencing: readonly number[]): void {
    for (const { id, wantsLeases } of sessions) {
      this.#core.add(id, wantsLeases);
      if (wantsLeases) this.#awaited.add(id);
    }
    for (const id of fencing) this.#awaited.add(id);
    this.#core.add(NOBODY, false);
  }

  end(): void {
    this.#term++;
    this.#awaited.clear();
    this.#held = [];
    this.#names.clear();
    this.#core.clear();
  }

  /** Whether every lease that anybody may hold is known. */
  get open(): boolean {
    return this.#awaited.size === 0;
  }

  /** Whether somebody waits because that is not known yet. */
  get heldUp(): boolean {
    return this.#held.length > 0;
  }

  /** A session begins to say which leases it holds: with announce(), until endAnnouncement(). */
  beginAnnouncement({ id, wantsLeases }: SessionRecord): void {
    this.#core.add(id, wantsLeases);
    this.#core.beginAnnouncement(id);
  }

  /** @param fresh this leader has not heard all of an announcement of the session yet */
  announce(session: number, leases: readonly Lease[], fresh: boolean): void {
    this.#core.announce(session, leases, fresh, this.#options.clock.now());
  }

  /** The session has named every lease that it holds: it is not waited for any more. */
  endAnnouncement(session: number): void {
    this.#core.endAnnouncement(session, this.#options.clock.now());
    this.#arrived(session);
  }

  /** The session is over, and fenced where that was needed. */
  over(session: number): void {
    this.#core.remove(session, this.#options.clock.now());
    this.#arrived(session);
  }

  returned(session: number, leases: readonly Lease[]): void {
    this.#core.returned(session, leases, this.#options.clock.now());
  }

  /** Sessions that have not answered a recall in time. */
  overdue(): number[] {
    return this.#core.overdue(this.#options.clock.now(), this.#options.times.timeoutMs);
  }

  /** Counts `ms` as time in which nobody could answer. */
  forgive(ms: number): void {
    this.#core.forgive(ms);
  }

  /**
   * Answers a read, leases included.
   * @param read gives the answer; called once others have nothing that it does not show
   * @returns undefined when it has to wait: then `again` is called once it is to be tried again
   * @throws HoldfastError as `read`
   */
  read(session: number, op: ReadOp, read: () => ReadReply, again: () => void): ReadReply | undefined {
    if (op.$case === 'statFs') return read();
    if (!this.#core.knows(session)) throw new HoldfastError('SESSION_EXPIRED');
    if (!this.open) {
      this.#held.push(again);
      return undefined;
    }
    const subject = subjectOf(op);
    const now = this.#options.clock.now();
    if (!this.#core.readable(session, subject)) {
      this.#core.whenReadable(session, [subject], now, again);
      return undefined;
    }
    const wanted = wantedMode(op);
    if (wanted === LeaseMode.LEASE_EXCLUSIVE && this.#mustBeSole(session, op, subject)) {
      this.#core.whenSole(session, subject, now, again);
      return undefined;
    }
    const reply = read();
    const packed = reply.result?.$case === 'dir' ? reply.result.value.packed : undefined;
    if (packed) return this.#withPacked(session, op, reply, new DirRows(packed.rows), again);
    if (op.$case === 'readDir' && op.value.want !== undefined) this.#withoutHidden(session, reply);
    const told = toldBy(reply, subject);
    const hidden = told.filter((ino) => !this.#core.readable(session, ino));
    if (hidden.length > 0) {
      this.#core.whenReadable(session, hidden, now, again);
      return undefined;
    }
    this.#grant(reply.leases, session, subject, wanted);
    if (op.$case !== 'readDir' || this.#core.roomy(session)) {
      const ofEntries = op.$case === 'readDir' ? wanted : LeaseMode.LEASE_SHARED;
      for (const ino of told) this.#grant(reply.leases, session, ino, ofEntries);
    }
    return reply;
  }

  /** The same for a page of rows: what a row tells is leased by the row. */
  #withPacked(
    session: number,
    op: ReadOp,
    reply: ReadReply,
    rows: DirRows,
    again: () => void,
  ): ReadReply | undefined {
    const ahead = op.$case === 'readDir' && op.value.want !== undefined;
    const sole = ahead && op.value.sole === true;
    const subject = subjectOf(op);
    const wanted = wantedMode(op);
    const hidden: number[] = [];
    const idle: number[] = [];
    const idleSince = secondsOf(this.#options.clock.wall()) - OWNED_IDLE_MS / 1000;
    for (let row = 0; row < rows.count; row++) {
      if (!rows.hasAttr(row)) continue;
      const ino = rows.ino(row);
      if (this.#core.readable(session, ino)) {
        if (sole && this.#mayBeSole(session, ino)) idle.push(ino);
        continue;
      }
      if (!ahead) hidden.push(ino);
      else if (rows.changedAt(row) < idleSince && (!sole || this.#mayBeSole(session, ino))) idle.push(ino);
      if (ahead) rows.hideAttr(row);
    }
    if (idle.length > 0 && !this.#unveiled.has(op)) {
      this.#unveiled.add(op);
      this.#awaitIdle(session, idle, sole, again);
      return undefined;
    }
    if (hidden.length > 0) {
      this.#core.whenReadable(session, hidden, this.#options.clock.now(), again);
      return undefined;
    }
    this.#grant(reply.leases, session, subject, wanted);
    if (!this.#core.roomy(session)) return reply;
    for (let row = 0; row < rows.count; row++) {
      const lease = rows.hasAttr(row) ? this.#leaseOn(session, rows.ino(row), wanted) : undefined;
      if (lease) rows.setLease(row, lease);
    }
    return reply;
  }

  /** Whether others would have to be asked for an inode, and nobody has it open. */
  #mayBeSole(session: number, ino: number): boolean {
    return this.#core.heldByOthers(session, ino) && !this.#options.isOpenElsewhere(session, ino);
  }

  /** Calls `again` when the inodes may be read, or are left to the session alone, or have been waited for long enough. */
  #awaitIdle(session: number, inos: readonly number[], sole: boolean, again: () => void): void {
    const { clock } = this.#options;
    const term = this.#term;
    let called = false;
    const once = (): void => {
      if (called || term !== this.#term) return;
      called = true;
      timer.cancel();
      again();
    };
    const timer = clock.after(sole ? SOLE_WAIT_MS : IDLE_OWNER_WAIT_MS, once, { weak: true });
    if (sole) this.#core.whenLeft(session, inos, clock.now(), once);
    else this.#core.whenReadable(session, inos, clock.now(), once);
  }

  /** Whether a session may know more of the inode than the leader: it is asked for that. */
  unveil(ino: number): boolean {
    return !this.open || this.#core.unveil(ino, this.#options.clock.now());
  }

  /** Leases that come with a refusal: that a name does not exist may be believed too. */
  leasesOfRefusal(session: number, op: ReadOp, error: HoldfastError): Lease[] {
    const leases: Lease[] = [];
    if (op.$case === 'lookup' && error.errorName === 'ENOENT') {
      this.#grant(leases, session, op.value.parent, LeaseMode.LEASE_SHARED);
    }
    return leases;
  }

  /**
   * Calls `go` when the mutations may go into the log, together: nobody else believes anything that they change. `go` is
   * given what is to be called when they were applied, or were not.
   */
  change(session: number, ops: readonly NonNullable<Mutation['op']>[], go: (done: () => void) => void): void {
    const footprint = footprintOf(ops);
    if (!footprint) {
      go(() => {});
      return;
    }
    if (!this.open) {
      this.#held.push(() => this.change(session, ops, go));
      return;
    }
    // Whoever opens a session from now on does so behind this mutation in the log.
    if (this.#core.alone(session)) go(() => {});
    else if (footprint.existingOk) this.#openOrMake(session, footprint, go);
    else this.#change(session, footprint, go);
  }

  /** Calls `go` when nobody believes anything about the inodes; with what is to be called when they have changed. */
  changeInodes(inos: readonly number[], go: (done: () => void) => void): void {
    if (!this.open) this.#held.push(() => this.changeInodes(inos, go));
    else this.#change(NOBODY, { inos: [...inos], places: [], existingOk: false }, go);
  }

  /** Adds to a mutation's answer what may be believed of it. */
  grantAfter(session: number, op: NonNullable<Mutation['op']>, reply: MutationReply): void {
    const attr = reply.result?.$case === 'attr' ? reply.result.value : undefined;
    reply.leases = [];
    const made = op.$case === 'makeNode' && reply.created && attr && isOwnable(attr) ? op.value : undefined;
    if (attr && made?.ino) this.#grantMade(reply, session, attr.ino);
    else if (attr) this.#grantMissing(reply, session, attr.ino, made !== undefined);
    for (const { ino } of reply.parents) this.#grantMissing(reply, session, ino, false);
  }

  /** Who lists ahead does not make others flush what they work on: those entries come without attributes. */
  #withoutHidden(session: number, { result }: ReadReply): void {
    if (result?.$case !== 'dir') return;
    for (const entry of result.value.entries) {
      if (entry.attr && !this.#core.readable(session, entry.ino)) entry.attr = undefined;
    }
  }

  /** A writer that others may watch begins when they have given back what they believe; else it is worth it only if an exclusive lease comes of it. */
  #mustBeSole(session: number, op: ReadOp, ino: number): boolean {
    if (!this.#core.heldByOthers(session, ino)) return false;
    return op.$case === 'open' || !this.#options.isOpenElsewhere(session, ino);
  }

  #grant(leases: Lease[], session: number, ino: number, mode: LeaseMode): void {
    const lease = this.#leaseOn(session, ino, mode);
    if (lease) leases.push(lease);
  }

  #leaseOn(session: number, ino: number, mode: LeaseMode): Lease | undefined {
    const { clock, isOpenElsewhere, isContested } = this.#options;
    if (isContested(ino)) return undefined;
    const possible =
      mode === LeaseMode.LEASE_EXCLUSIVE && isOpenElsewhere(session, ino) ? LeaseMode.LEASE_SHARED : mode;
    return this.#core.grant(session, ino, possible, clock.now());
  }

  /** What is held already stays as it is, and is not said again. */
  #grantMissing(reply: MutationReply, session: number, ino: number, exclusive: boolean): void {
    if (this.#core.holds(session, ino)) return;
    this.#grant(reply.leases, session, ino, exclusive ? LeaseMode.LEASE_EXCLUSIVE : LeaseMode.LEASE_SHARED);
  }

  /** Whoever made an inode under a number of its own has held it exclusively since, and may have changed more of it. */
  #grantMade(reply: MutationReply, session: number, ino: number): void {
    if (this.#core.holds(session, ino)) return;
    const lease = this.#core.grantMade(session, ino, this.#options.clock.now());
    if (lease) reply.leases.push(lease);
  }

  /**
   * First the inodes that the request names, then the names themselves, then what the names stand for: who waits with a
   * name entered waits only for leases on inodes whose return takes no change of a name.
   */
  #change(session: number, { inos, places }: Footprint, go: (done: () => void) => void): void {
    const { clock } = this.#options;
    const term = this.#term;
    const names = places.map(nameKey);
    this.#core.beginChange(session, inos, clock.now(), () =>
      this.#names.enter(names, () => {
        const children = this.#resolve(places, inos);
        this.#core.beginChange(session, children, clock.now(), () =>
          go(() => {
            if (term !== this.#term) return;
            this.#core.endChange(session, inos);
            this.#core.endChange(session, children);
            this.#names.leave(names);
          }),
        );
      }),
    );
  }

  /** O_CREAT without O_EXCL: a mere open where the file exists, and nothing in its directory changes. */
  #openOrMake(session: number, footprint: Footprint, go: (done: () => void) => void): void {
    const { clock } = this.#options;
    const term = this.#term;
    const { inos, places } = footprint;
    const names = places.map(nameKey);
    this.#core.whenReadable(session, inos, clock.now(), () =>
      this.#names.enter(names, () => {
        const existing = this.#resolve(places, inos);
        if (existing.length === 0) {
          this.#names.leave(names);
          this.#change(session, footprint, go);
          return;
        }
        this.#core.whenReadable(session, existing, clock.now(), () =>
          go(() => {
            if (term === this.#term) this.#names.leave(names);
          }),
        );
      }),
    );
  }

  /** Inodes that the places stand for now, without those in `known`. */
  #resolve(places: Footprint['places'], known: readonly number[]): number[] {
    const found: number[] = [];
    for (const { parent, name } of places) {
      const ino = this.#lookup(parent, name);
      if (ino !== 0 && !known.includes(ino) && !found.includes(ino)) found.push(ino);
    }
    return found;
  }

  #lookup(parent: number, name: Buffer): number {
    try {
      const { result } = this.#options.state.read({ op: { $case: 'lookup', value: { parent, name } } });
      return result?.$case === 'attr' ? result.value.ino : 0;
    } catch (error) {
      if (error instanceof HoldfastError) return 0; // the mutation fails for the same reason
      throw error;
    }
  }

  #arrived(session: number): void {
    if (!this.#awaited.delete(session) || !this.open) return;
    for (const again of this.#held.splice(0)) again();
  }
}

function wantedMode(op: ReadOp): LeaseMode {
  if (op.$case === 'open' && op.value.write) return LeaseMode.LEASE_EXCLUSIVE;
  const wants = op.$case === 'getAttr' || op.$case === 'readDir';
  if (wants && op.value.want === LeaseMode.LEASE_EXCLUSIVE) return LeaseMode.LEASE_EXCLUSIVE;
  return LeaseMode.LEASE_SHARED;
}

/** The kinds of inodes that a mount makes by itself (client/vfs/local-changes.ts). */
function isOwnable({ mode }: Attr): boolean {
  const type = mode & S_IFMT;
  return type === S_IFREG || type === S_IFDIR || type === S_IFLNK;
}

function secondsOf({ sec, nsec }: Timespec): number {
  return sec + nsec / 1e9;
}
