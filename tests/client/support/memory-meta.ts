import { LeaseTable } from '../../../client/leases/lease-table.js';
import type {
  Change,
  LeaseEvents,
  MetaApi,
  MutationAnswer,
  MutationOp,
  ReadAnswer,
  ReadOp,
  ReadResult,
} from '../../../client/meta/api.js';
import type { ClientBody } from '../../../client/meta/dialer.js';
import { LockClient } from '../../../client/meta/locks.js';
import { unpack } from '../../../client/meta/packed-page.js';
import { interruptible, throwIfInterrupted } from '../../../client/wait.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { errorFromCode, HoldfastError } from '../../../proto/errors.js';
import {
  type CommandResult,
  type Lease,
  LeaseMode,
  LockType,
  type MutationReply,
  type QuotaAmount,
  type ServerEnvelope,
} from '../../../proto/gen/meta.js';
import { Namespace } from '../../metaserver/namespace/harness.js';
import { ManualClock } from './manual-clock.js';

/** The metadata service in memory: the real state machine, asked without a network. */
export class MemoryMeta implements MetaApi {
  readonly namespace: Namespace;
  /** Kinds of the requests so far, in order. */
  readonly calls: string[] = [];
  readonly opens = new Map<number, number>();
  /** Inodes that the server knows to be open here. */
  readonly registered = new Set<number>();
  readonly leases = new LeaseTable();
  readonly locks = new LockClient({
    clock: new ManualClock(),
    call: (body) => this.#lock(body),
    push: () => {},
  });
  /** Inodes that locks were asked for; whoever asks gets them. */
  readonly locked: number[] = [];
  leaseEvents: LeaseEvents | undefined;
  /** Leases given back, inodes announced as open, kinds of the changes in each batch; in order. */
  readonly returned: Lease[] = [];
  readonly announced: number[] = [];
  readonly batches: string[][] = [];
  /** False: no lease is ever granted to this mount. */
  granting = true;
  /** Recalls that this mount got: inode, mode left. */
  readonly recalls: [number, number][] = [];
  readonly #recalling = new Map<number, Deferred<void>>();
  failMutation: ((op: MutationOp) => HoldfastError | undefined) | undefined;
  #gate: Deferred<void> | undefined;
  readonly #arrivals: { [to in 'questions' | 'changes']?: Deferred<void> | undefined } = {};
  #orphans = 0;
  #orphansSettled: Deferred<void> | undefined;
  readonly #group: Group;

  /**
   * @param namespace shared with another mount
   * @param leaseMs how long leases are believed after the start, and after each leases.answered() of the test
   */
  constructor(namespace: Namespace = new Namespace(), leaseMs = FOREVER_MS) {
    this.namespace = namespace;
    this.leases.setLeaseMs(leaseMs);
    this.leases.answered(0);
    const group = GROUPS.get(namespace) ?? { mounts: [], seq: 0, writers: new Set() };
    GROUPS.set(namespace, group);
    group.mounts.push(this);
    this.#group = group;
  }

  /** Requests wait until the returned function is called. */
  hold(): () => void {
    const gate = deferred<void>();
    this.#gate = gate;
    return () => {
      this.#gate = undefined;
      gate.resolve();
    };
  }

  /** Answers to questions, or those to changes, wait where they have arrived until the returned function is called. */
  holdAnswers(to: 'questions' | 'changes' = 'questions'): () => void {
    const arrival = deferred<void>();
    this.#arrivals[to] = arrival;
    return () => {
      this.#arrivals[to] = undefined;
      arrival.resolve();
    };
  }

  /** How many requests of a kind there were since the last call. */
  take(): string[] {
    return this.calls.splice(0);
  }

  async read(op: ReadOp, signal?: AbortSignal): Promise<ReadResult> {
    const { result, error } = await this.ask(op, signal);
    if (!result) throw error;
    return result;
  }

  async ask(op: ReadOp, signal?: AbortSignal): Promise<ReadAnswer> {
    this.calls.push(op.$case);
    await this.#pass(signal);
    const alone = (op.$case === 'open' && op.value.write) || this.#mustBeSole(op);
    await this.#takeLeases(subjects(op), alone ? NONE : SHARED, signal);
    if (op.$case === 'open') {
      this.registered.add(op.value.ino);
      if (op.value.write) this.#group.writers.add(op.value.ino);
    }
    let result: ReadResult | undefined;
    let error: HoldfastError | undefined;
    try {
      result = this.namespace.machine.read({ op }).result as ReadResult;
    } catch (refusal) {
      if (!(refusal instanceof HoldfastError && refusal.errorName === 'ENOENT' && op.$case === 'lookup'))
        throw refusal;
      error = refusal;
    }
    if (result?.$case === 'attr' && op.$case === 'lookup')
      await this.#takeLeases([result.value.ino], SHARED, signal);
    if (result?.$case === 'attr' && op.$case === 'lookup')
      result = this.namespace.machine.read({ op }).result as ReadResult;
    if (result?.$case === 'dir') unpack(result.value);
    if (result?.$case === 'dir' && op.$case === 'readDir' && op.value.sole)
      await this.#takeLeases(
        result.value.entries.map(({ ino }) => ino),
        NONE,
        signal,
      );
    this.#grantRead(op, result);
    const answer = { result, error, asOf: this.leases.stamp() };
    if (this.#arrivals.questions) await this.#arrivals.questions.promise;
    return answer;
  }

  async mutateBatch(changes: readonly Change[]): Promise<CommandResult[]> {
    this.batches.push(changes.map(({ op }) => op.$case));
    await this.#pass();
    for (const { op } of changes) {
      const inos = this.#changed(op);
      if (this.#peers().some((peer) => inos.some((ino) => peer.leases.has(ino))))
        throw new Error(`${op.$case} of a batch is not covered by leases`);
    }
    const results = this.namespace.mutateBatch(changes);
    for (const { mutation } of results)
      if (mutation?.created && mutation.result?.$case === 'attr')
        this.#grant(mutation.result.value.ino, EXCLUSIVE);
    return results;
  }

  listenToLeases(events: LeaseEvents): void {
    this.leaseEvents = events;
  }

  returnLeases(leases: readonly Lease[]): void {
    this.returned.push(...leases);
    for (const { ino } of leases) this.#recalling.get(ino)?.resolve();
  }

  announceOpen(inos: readonly number[]): void {
    const opened = inos.filter((ino) => this.opens.has(ino));
    this.announced.push(...opened);
    for (const ino of opened) this.registered.add(ino);
  }

  async mutate(op: MutationOp, signal?: AbortSignal, spent?: QuotaAmount[]): Promise<MutationAnswer> {
    this.calls.push(op.$case);
    throwIfInterrupted(signal);
    // It takes effect also when its caller has gone.
    const done = this.#mutated(op, spent);
    const orphaned = (): void => {
      this.#orphans++;
      this.#orphansSettled ??= deferred<void>();
      const settled = (): void => {
        if (--this.#orphans > 0) return;
        this.#orphansSettled?.resolve();
        this.#orphansSettled = undefined;
      };
      done.then(settled, settled);
    };
    signal?.addEventListener('abort', orphaned, { once: true });
    try {
      return await interruptible(done, signal);
    } finally {
      signal?.removeEventListener('abort', orphaned);
    }
  }

  get orphansSettled(): Promise<void> | undefined {
    return this.#orphansSettled?.promise;
  }

  async #mutated(op: MutationOp, spent?: QuotaAmount[]): Promise<MutationAnswer> {
    await this.#pass();
    const failure = this.failMutation?.(op);
    if (failure) throw failure;
    await this.#takeLeases(this.#changed(op), NONE);
    const result = this.namespace.mutate(op, spent);
    if (result.error !== 0) throw errorFromCode(result.error, result.errorText);
    const reply = result.mutation as MutationReply;
    if (reply.created && reply.result?.$case === 'attr') this.#grant(reply.result.value.ino, EXCLUSIVE);
    const answer = { ...reply, asOf: this.leases.stamp() };
    if (this.#arrivals.changes) await this.#arrivals.changes.promise;
    return answer;
  }

  retainOpen(ino: number): void {
    this.opens.set(ino, (this.opens.get(ino) ?? 0) + 1);
  }

  releaseOpen(ino: number): void {
    const count = this.opens.get(ino);
    if (count === undefined) throw new Error(`inode ${ino} is not open`);
    if (count === 1) {
      this.opens.delete(ino);
      this.registered.delete(ino);
    } else this.opens.set(ino, count - 1);
  }

  async #lock(body: ClientBody): Promise<ServerEnvelope['body']> {
    if (body?.$case !== 'lock') throw new HoldfastError('PROTOCOL');
    if (body.value.lock?.type !== LockType.LOCK_UNLOCK) this.locked.push(body.value.lock?.ino ?? 0);
    return { $case: 'lock', value: { conflict: undefined } };
  }

  async #pass(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) throw new HoldfastError('EINTR');
    await Promise.race([
      this.#gate?.promise ?? Promise.resolve(),
      new Promise((_, reject) => signal?.addEventListener('abort', () => reject(new HoldfastError('EINTR')))),
    ]);
  }

  // ---- a lease server, as simple as can be: one recall at a time, whatever stands in the way is taken

  #peers(): MemoryMeta[] {
    return this.#group.mounts.filter((mount) => mount !== this);
  }

  #mustBeSole(op: ReadOp): boolean {
    if (!wantsExclusive(op)) return false;
    return !subjects(op).some((ino) => this.#peers().some((peer) => peer.registered.has(ino)));
  }

  async #takeLeases(inos: readonly number[], keep: LeaseMode, signal?: AbortSignal): Promise<void> {
    for (const peer of this.#peers()) {
      for (const ino of inos) {
        const mode = peer.leases.mode(ino, 0);
        if (mode <= keep || (keep === SHARED && mode < EXCLUSIVE)) continue;
        const done = deferred<void>();
        peer.#recalling.set(ino, done);
        peer.recalls.push([ino, keep]);
        peer.leaseEvents?.onRecall([peer.leases.recalled({ ino, mode: keep, seq: ++this.#group.seq })]);
        await Promise.race([
          done.promise,
          new Promise((_, reject) =>
            signal?.addEventListener('abort', () => reject(new HoldfastError('EINTR'))),
          ),
        ]);
        peer.#recalling.delete(ino);
      }
    }
  }

  #grantRead(op: ReadOp, result: ReadResult | undefined): void {
    const inos = subjects(op);
    if (result?.$case === 'attr') inos.push(result.value.ino);
    if (result?.$case === 'dir') for (const { attr } of result.value.entries) if (attr) inos.push(attr.ino);
    const exclusive = (op.$case === 'open' && op.value.write) || wantsExclusive(op);
    for (const ino of inos) this.#grant(ino, exclusive ? EXCLUSIVE : SHARED);
  }

  #grant(ino: number, mode: LeaseMode): void {
    const peers = this.#peers();
    if (!this.granting || peers.some((peer) => peer.leases.mode(ino, 0) === EXCLUSIVE)) return;
    const shared = peers.some((peer) => peer.registered.has(ino));
    if (mode === EXCLUSIVE && (shared || peers.some((peer) => peer.leases.has(ino)))) return;
    const writers = this.#group.writers.has(ino) && this.#group.mounts.some((one) => one.registered.has(ino));
    if (writers && shared) return;
    this.leases.granted({ ino, mode, seq: ++this.#group.seq });
  }

  /** Inodes that a change touches. */
  #changed(op: MutationOp): number[] {
    const child = (parent: number, name: Buffer): number[] => {
      try {
        const read = { op: { $case: 'lookup' as const, value: { parent, name } } };
        const { result } = this.namespace.machine.read(read);
        return result?.$case === 'attr' ? [result.value.ino] : [];
      } catch {
        return [];
      }
    };
    switch (op.$case) {
      case 'makeNode':
        return [op.value.parent];
      case 'link':
        return [op.value.parent, op.value.ino];
      case 'unlink':
      case 'rmdir':
        return [op.value.parent, ...child(op.value.parent, op.value.name)];
      case 'rename': {
        const { parent, name, newParent, newName } = op.value;
        return [parent, newParent, ...child(parent, name), ...child(newParent, newName)];
      }
      case 'setAttr':
      case 'commitWrite':
      case 'setFlags':
      case 'setXattr':
      case 'removeXattr':
        return [op.value.ino];
      default:
        return [];
    }
  }
}

const { LEASE_NONE: NONE, LEASE_SHARED: SHARED, LEASE_EXCLUSIVE: EXCLUSIVE } = LeaseMode;
const wantsExclusive = (op: ReadOp): boolean =>
  (op.$case === 'getAttr' || op.$case === 'readDir') && op.value.want === EXCLUSIVE;
/** As far as a test's clock goes. */
const FOREVER_MS = 1e12;

interface Group {
  mounts: MemoryMeta[];
  seq: number;
  /** Inodes that somebody opened for writing by request. */
  writers: Set<number>;
}

const GROUPS = new WeakMap<Namespace, Group>();

function subjects(op: ReadOp): number[] {
  if (op.$case === 'statFs') return [];
  return [op.$case === 'lookup' ? op.value.parent : op.value.ino];
}
