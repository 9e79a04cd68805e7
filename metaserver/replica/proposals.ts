import { assert } from '../../common/assert.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import { HoldfastError } from '../../proto/errors.js';
import type { RaftEntry } from '../raft/types.js';
import type { Command } from './state-machine.js';

/** Commands that wait to be proposed or to be applied; further ones are refused as OVERLOADED. */
export const PROPOSALS_MAX = 16_384;
/** The largest command: with its envelope it must fit into one message between servers. */
export const COMMAND_MAX_BYTES = 4 * 1024 * 1024;
/** Handed to the core at once, at most; the rest follows as the next batch. */
const BATCH_MAX_COMMANDS = 1024;
const BATCH_MAX_BYTES = 1024 * 1024;

interface Waiting<Result> {
  data: Buffer;
  done: Deferred<Result>;
}

interface Proposed<Result> {
  index: number;
  term: number;
  done: Deferred<Result>;
}

/** What the core says to a batch: the place of its first command, or why not. */
export type Placed = { index: number; term: number } | HoldfastError;

/** What the callers are told when the leader's core takes no proposals for the moment. */
export function refusedProposal(refusal: 'overloaded' | 'transferring'): HoldfastError {
  const isFull = refusal === 'overloaded';
  return new HoldfastError(
    'OVERLOADED',
    isFull ? 'too much is not yet committed' : 'the leadership is being handed over',
  );
}

/**
 * The commands of this server's callers from propose() to their result: first they wait for the next batch, then, in order of
 * their index, for their application.
 */
export class Proposals<Result> {
  #waiting: Waiting<Result>[] = [];
  /** In order of index, from #head on. */
  #proposed: (Proposed<Result> | undefined)[] = [];
  #head = 0;

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Commands in the log whose result is awaited. */
  get proposed(): number {
    return this.#proposed.length - this.#head;
  }

  /** Queues a command. The promise settles with its result, or rejects with a HoldfastError. */
  add(data: Buffer): Promise<Result> {
    if (data.length === 0 || data.length > COMMAND_MAX_BYTES) {
      return Promise.reject(new HoldfastError('PROTOCOL', `a command of ${data.length} bytes`));
    }
    if (this.#waiting.length + this.proposed >= PROPOSALS_MAX) {
      return Promise.reject(new HoldfastError('OVERLOADED', `${PROPOSALS_MAX} commands wait`));
    }
    const done = deferred<Result>();
    this.#waiting.push({ data, done });
    return done.promise;
  }

  /** Proposes what waits, a batch at a time, until everything is placed; a refusal rejects the rest. */
  place(propose: (batch: Buffer[]) => Placed): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    let next = 0;
    while (next < waiting.length) {
      const batch: Buffer[] = [];
      let bytes = 0;
      for (let i = next; i < waiting.length && batch.length < BATCH_MAX_COMMANDS; i++) {
        const { data } = waiting[i] as Waiting<Result>;
        bytes += data.length;
        if (batch.length > 0 && bytes > BATCH_MAX_BYTES) break;
        batch.push(data);
      }
      const placed = propose(batch);
      if (placed instanceof HoldfastError) {
        for (const { done } of waiting.slice(next)) done.reject(placed);
        return;
      }
      for (let i = 0; i < batch.length; i++) {
        const { done } = waiting[next + i] as Waiting<Result>;
        this.#proposed.push({ index: placed.index + i, term: placed.term, done });
      }
      next += batch.length;
    }
  }

  /** An entry was applied: answers the caller whose command it was, if it was one of ours. */
  applied(index: number, term: number, result: Result | undefined): void {
    for (
      let first = this.#proposed[this.#head];
      first && first.index <= index;
      first = this.#proposed[this.#head]
    ) {
      this.#shift();
      if (first.index === index && first.term === term) {
        assert(result !== undefined, `the command at ${index} has a result`);
        first.done.resolve(result);
      } else {
        // Another leader's entry has its place: it can never be applied.
        first.done.reject(new HoldfastError('NOT_LEADER', 'another leader took over'));
      }
    }
  }

  /** A batch was applied: `commands` are those of the entries that are commands, each with its result. */
  answer(entries: readonly RaftEntry[], commands: readonly Command[], results: readonly Result[]): void {
    if (this.proposed === 0) return;
    let next = 0;
    for (const { index, term } of entries) {
      const isCommand = commands[next]?.index === index;
      this.applied(index, term, isCommand ? results[next] : undefined);
      if (isCommand) next++;
    }
  }

  /** Rejects what is proposed beyond `index`: whether it will be committed is unknown. */
  rejectAfter(index: number, error: HoldfastError): void {
    let from = this.#head;
    while (from < this.#proposed.length && (this.#proposed[from] as Proposed<Result>).index <= index) from++;
    for (const proposed of this.#proposed.splice(from)) proposed?.done.reject(error);
  }

  /** Rejects everything. */
  rejectAll(error: HoldfastError): void {
    for (const { done } of this.#waiting.splice(0)) done.reject(error);
    this.rejectAfter(-1, error);
  }

  #shift(): void {
    this.#proposed[this.#head++] = undefined;
    if (this.#head * 2 >= this.#proposed.length) {
      this.#proposed = this.#proposed.slice(this.#head);
      this.#head = 0;
    }
  }
}
