import { LeaseTable } from '../../../client/leases/lease-table.js';
import type {
  Change,
  LeaseEvents,
  MetaApi,
  MutationOp,
  ReadAnswer,
  ReadOp,
  ReadResult,
} from '../../../client/meta/api.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { errorFromCode, HoldfastError } from '../../../proto/errors.js';
import type { CommandResult, Lease, MutationReply } from '../../../proto/gen/meta.js';
import { Namespace } from '../../metaserver/namespace/harness.js';

/** The metadata service in memory: the real state machine, asked without a network. */
export class MemoryMeta implements MetaApi {
  readonly namespace: Namespace;
  /** Kinds of the requests so far, in order. */
  readonly calls: string[] = [];
  readonly opens = new Map<number, number>();
  readonly leases = new LeaseTable();
  leaseEvents: LeaseEvents | undefined;
  /** Leases given back, inodes announced as open, kinds of the changes in each batch; in order. */
  readonly returned: Lease[] = [];
  readonly announced: number[] = [];
  readonly batches: string[][] = [];
  /** What an answer grants; nothing by default. */
  grants: (op: ReadOp | MutationOp, result: ReadResult | MutationReply | undefined) => Lease[] = () => [];
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
    const { result, error } = await this.ask(op, signal);
    if (!result) throw error;
    return result;
  }

  async ask(op: ReadOp, signal?: AbortSignal): Promise<ReadAnswer> {
    this.calls.push(op.$case);
    await this.#pass(signal);
    let result: ReadResult | undefined;
    let error: HoldfastError | undefined;
    try {
      result = this.namespace.machine.read({ op }).result as ReadResult;
    } catch (refusal) {
      if (!(refusal instanceof HoldfastError && refusal.errorName === 'ENOENT' && op.$case === 'lookup'))
        throw refusal;
      error = refusal;
    }
    for (const lease of this.grants(op, result)) this.leases.granted(lease);
    return { result, error, asOf: this.leases.stamp() };
  }

  async mutateBatch(changes: readonly Change[]): Promise<CommandResult[]> {
    this.batches.push(changes.map(({ op }) => op.$case));
    await this.#pass();
    const results = this.namespace.mutateBatch(changes);
    for (const { mutation } of results)
      for (const lease of mutation?.leases ?? []) this.leases.granted(lease);
    return results;
  }

  listenToLeases(events: LeaseEvents): void {
    this.leaseEvents = events;
  }

  returnLeases(leases: readonly Lease[]): void {
    this.returned.push(...leases);
  }

  announceOpen(inos: readonly number[]): void {
    this.announced.push(...inos.filter((ino) => this.opens.has(ino)));
  }

  async mutate(op: MutationOp, signal?: AbortSignal): Promise<MutationReply> {
    this.calls.push(op.$case);
    await this.#pass(signal);
    const failure = this.failMutation?.(op);
    if (failure) throw failure;
    const result = this.namespace.mutate(op);
    if (result.error !== 0) throw errorFromCode(result.error, result.errorText);
    const reply = result.mutation as MutationReply;
    for (const lease of this.grants(op, reply)) this.leases.granted(lease);
    return reply;
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
