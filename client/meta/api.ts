import { HoldfastError } from '../../proto/errors.js';
import type {
  Attr,
  CommandResult,
  Lease,
  Mutation,
  MutationReply,
  QuotaAmount,
  QuotaRules,
  ReadReply,
  ReadRequest,
  Time,
} from '../../proto/gen/meta.js';
import type { LeaseTable, RecallOrder } from '../leases/lease-table.js';
import type { Interrupt } from '../wait.js';
import type { LockClient } from './locks.js';

export type ReadOp = NonNullable<ReadRequest['op']>;
export type ReadResult = NonNullable<ReadReply['result']>;
export type MutationOp = NonNullable<Mutation['op']>;

/** What a read brought: a result, or the server's refusal that names what does not exist. */
export interface ReadAnswer {
  result: ReadResult | undefined;
  error: HoldfastError | undefined;
  /** LeaseTable.stamp() when it arrived: what covers() it then makes it good to keep. */
  asOf: number;
}

/** What a change brought, and LeaseTable.stamp() when that arrived. */
export type MutationAnswer = MutationReply & { asOf: number };

/** A change that the holder of exclusive leases has made already, on its way to the server. */
export interface Change {
  op: MutationOp;
  /** When it was made; absent: the server's time counts. */
  time?: Time;
  /** As for MetaApi.mutate. */
  spent?: QuotaAmount[] | undefined;
}

/** What the session pushes to whoever keeps caches under its leases. */
export interface LeaseEvents {
  /** The leader wants these back. @param orders as LeaseTable.recalled() gave them */
  onRecall(orders: readonly RecallOrder[]): void;
  /** Which quotas there are: after each connection, and at every change. */
  onQuotaRules?(rules: QuotaRules): void;
  /** Others need what was set aside of these. */
  onQuotaRecall?(amounts: readonly QuotaAmount[]): void;
  /** The session is over: nothing that was cached or buffered under its leases is good any more. */
  onSessionLost(inos: readonly number[]): void;
}

/** The metadata service as the rest of the client sees it: fail-overs happen behind it. */
export interface MetaApi {
  /**
   * @throws HoldfastError a POSIX error of the server; EINTR when `signal` aborts; ETIMEDOUT with the soft option
   */
  read(op: ReadOp, signal?: Interrupt): Promise<ReadResult>;
  /** The same; that a name does not exist is an answer, too. @throws HoldfastError as read(), but for ENOENT of a lookup */
  ask(op: ReadOp, signal?: Interrupt): Promise<ReadAnswer>;
  /**
   * Applied exactly once, even when the wait for it ends early (EINTR, ETIMEDOUT): it is then repeated in the
   * background until it is answered.
   * @param spent reservations that end with it, whatever comes of it
   * @throws HoldfastError as read(); EIO when the session expired and the outcome is unknown
   */
  mutate(op: MutationOp, signal?: Interrupt, spent?: QuotaAmount[]): Promise<MutationAnswer>;
  /** Resolves when every change that is repeated in the background has been answered; undefined: there is none. */
  readonly orphansSettled: Promise<void> | undefined;
  /**
   * Changes in their order, as one entry of the log; repeated until they are answered. One batch at a time keeps the
   * order over several.
   * @returns a result for each
   * @throws HoldfastError EIO when the session expired: the outcome is unknown
   */
  mutateBatch(changes: readonly Change[]): Promise<CommandResult[]>;
  readonly leases: LeaseTable;
  readonly locks: LockClient;
  /** One listener. */
  listenToLeases(events: LeaseEvents): void;
  /** Answers recalls, or gives back leases unasked. One-way. */
  returnLeases(leases: readonly Lease[]): void;
  /** Tells the server now which of these inodes are open here, where it may not know. One-way. */
  announceOpen(inos: readonly number[]): void;
  /** One more open of the inode. Call it before the Open request is sent. */
  retainOpen(ino: number): void;
  /** One open less; at the last one the server is told, soon. */
  releaseOpen(ino: number): void;
}

/** The attributes in an answer. @throws HoldfastError PROTOCOL when it carries none */
export function attrOf(result: ReadReply['result'] | MutationReply['result']): Attr {
  if (result?.$case === 'attr') return result.value;
  throw new HoldfastError('PROTOCOL', 'the metaserver answered without attributes');
}

type ResultValues = { [R in ReadResult as R['$case']]: R['value'] };

/** The answer of the kind that was asked for. @throws HoldfastError PROTOCOL */
export function resultOf<K extends keyof ResultValues>(result: ReadResult, kind: K): ResultValues[K] {
  if (result.$case !== kind) throw new HoldfastError('PROTOCOL', `expected ${kind}, got ${result.$case}`);
  return result.value as ResultValues[K];
}
