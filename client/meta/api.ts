import { HoldfastError } from '../../proto/errors.js';
import type { Attr, Mutation, MutationReply, ReadReply, ReadRequest } from '../../proto/gen/meta.js';

export type ReadOp = NonNullable<ReadRequest['op']>;
export type ReadResult = NonNullable<ReadReply['result']>;
export type MutationOp = NonNullable<Mutation['op']>;

/** The metadata service as the rest of the client sees it: fail-overs happen behind it. */
export interface MetaApi {
  /**
   * @throws HoldfastError a POSIX error of the server; EINTR when `signal` aborts; ETIMEDOUT with the soft option
   */
  read(op: ReadOp, signal?: AbortSignal): Promise<ReadResult>;
  /**
   * Applied exactly once, even when the wait for it ends early (EINTR, ETIMEDOUT): it is then repeated in the
   * background until it is answered.
   * @throws HoldfastError as read(); EIO when the session expired and the outcome is unknown
   */
  mutate(op: MutationOp, signal?: AbortSignal): Promise<MutationReply>;
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
