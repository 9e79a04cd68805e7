import type { MetaApi, MutationOp, ReadOp, ReadResult } from '../../../client/meta/api.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { errorFromCode, HoldfastError } from '../../../proto/errors.js';
import type { MutationReply } from '../../../proto/gen/meta.js';
import { Namespace } from '../../metaserver/namespace/harness.js';

/** The metadata service in memory: the real state machine, asked without a network. */
export class MemoryMeta implements MetaApi {
  readonly namespace: Namespace;
  /** Kinds of the requests so far, in order. */
  readonly calls: string[] = [];
  readonly opens = new Map<number, number>();
  failMutation: ((op: MutationOp) => HoldfastError | undefined) | undefined;
  #gate: Deferred<void> | undefined;

  /** @param namespace shared with another mount */
  constructor(namespace: Namespace = new Namespace()) {
    this.namespace = namespace;
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

  /** How many requests of a kind there were since the last call. */
  take(): string[] {
    return this.calls.splice(0);
  }

  async read(op: ReadOp, signal?: AbortSignal): Promise<ReadResult> {
    this.calls.push(op.$case);
    await this.#pass(signal);
    return this.namespace.machine.read({ op }).result as ReadResult;
  }

  async mutate(op: MutationOp, signal?: AbortSignal): Promise<MutationReply> {
    this.calls.push(op.$case);
    await this.#pass(signal);
    const failure = this.failMutation?.(op);
    if (failure) throw failure;
    const result = this.namespace.mutate(op);
    if (result.error !== 0) throw errorFromCode(result.error, result.errorText);
    return result.mutation as MutationReply;
  }

  retainOpen(ino: number): void {
    this.opens.set(ino, (this.opens.get(ino) ?? 0) + 1);
  }

  releaseOpen(ino: number): void {
    const count = this.opens.get(ino);
    if (count === undefined) throw new Error(`inode ${ino} is not open`);
    if (count === 1) this.opens.delete(ino);
    else this.opens.set(ino, count - 1);
  }

  async #pass(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) throw new HoldfastError('EINTR');
    await Promise.race([
      this.#gate?.promise ?? Promise.resolve(),
      new Promise((_, reject) => signal?.addEventListener('abort', () => reject(new HoldfastError('EINTR')))),
    ]);
  }
}
