import type { Clock, Timer } from '../../common/clock.js';
import { RaftEntryType } from '../../proto/gen/raft.js';
import type { RaftEntry } from '../raft/types.js';
import type { Command, StateMachine } from './state-machine.js';

/** Applied at most in one turn of the event loop, so that messages and timers get theirs. */
const TURN_MAX_BYTES = 1024 * 1024;
const TURN_MAX_ENTRIES = 2048;
/**
 * Where nobody waits for results, on followers, entries gather for so long, or until they are so many or so large: several in one
 * transaction take half the time of as many transactions, and none of it stands between an append and its answer.
 */
const GATHER_MS = 50;
const GATHER_MAX_ENTRIES = 64;
const GATHER_MAX_BYTES = 256 * 1024;

export interface ApplierOptions<Result> {
  stateMachine: StateMachine<Result>;
  clock: Clock;
  /** Somebody waits for results: this server leads. */
  waitedFor(): boolean;
  /** Runs `fn` in a later turn of the event loop. */
  schedule(fn: () => void): void;
  /** A turn is done: these entries, in order, were applied; `results` belong to those that are commands. */
  onApplied(entries: readonly RaftEntry[], commands: readonly Command[], results: readonly Result[]): void;
  /** The state machine threw (its state may differ from the others' now), or onApplied did. */
  onFailure(error: unknown): void;
}

/** A command of a caller; a new leader's first entry has no data, and members are the core's. */
export function isCommand(entry: RaftEntry): boolean {
  return entry.type === RaftEntryType.ENTRY_COMMAND && entry.data.length > 0;
}

/** Feeds committed entries to the state machine, in order, a bounded amount in each turn of the event loop. */
export class Applier<Result> {
  readonly #options: ApplierOptions<Result>;
  #queue: RaftEntry[] = [];
  #next = 0;
  #waitingBytes = 0;
  #gathering: Timer | undefined;
  #scheduled = false;
  #stopped = false;

  constructor(options: ApplierOptions<Result>) {
    this.#options = options;
  }

  /** Entries that wait. */
  get waiting(): number {
    return this.#queue.length - this.#next;
  }

  /** Takes committed entries; the first turn's worth is applied at once where somebody waits for it. */
  push(entries: readonly RaftEntry[]): void {
    for (const entry of entries) {
      this.#queue.push(entry);
      this.#waitingBytes += entry.data.length;
    }
    if (this.#scheduled) return;
    if (this.#mayGather()) this.#gathering ??= this.#options.clock.after(GATHER_MS, () => this.hurry());
    else this.hurry();
  }

  /** Applies what has gathered. */
  hurry(): void {
    this.#gathering?.cancel();
    this.#gathering = undefined;
    if (!this.#scheduled) this.#turn();
  }

  #mayGather(): boolean {
    return (
      this.waiting <= GATHER_MAX_ENTRIES &&
      this.#waitingBytes <= GATHER_MAX_BYTES &&
      !this.#options.waitedFor()
    );
  }

  /** Drops what waits and applies nothing more until entries are pushed again: a snapshot takes their place. */
  clear(): void {
    this.#queue = [];
    this.#next = 0;
    this.#waitingBytes = 0;
  }

  stop(): void {
    this.#stopped = true;
    this.#gathering?.cancel();
    this.clear();
  }

  #turn(): void {
    if (this.#stopped || this.waiting === 0) return;
    const behind = this.#options.stateMachine.behind?.();
    if (behind) {
      this.#scheduled = true;
      behind.then(
        () => this.#resume(),
        (error: unknown) => this.#fail(error),
      );
      return;
    }
    const entries = this.#take();
    const commands: Command[] = [];
    for (const entry of entries)
      if (isCommand(entry)) commands.push({ index: entry.index, data: entry.data });
    try {
      const results = commands.length > 0 ? this.#options.stateMachine.apply(commands) : [];
      if (results.length !== commands.length) {
        throw new Error(`${commands.length} commands gave ${results.length} results`);
      }
      if (this.waiting > 0) {
        this.#scheduled = true;
        this.#options.schedule(() => this.#resume());
      }
      this.#options.onApplied(entries, commands, results);
    } catch (error) {
      this.#fail(error);
    }
  }

  #resume(): void {
    this.#scheduled = false;
    this.#turn();
  }

  #fail(error: unknown): void {
    this.stop();
    this.#options.onFailure(error);
  }

  #take(): RaftEntry[] {
    let bytes = 0;
    let end = this.#next;
    while (end < this.#queue.length && end - this.#next < TURN_MAX_ENTRIES && bytes < TURN_MAX_BYTES) {
      bytes += (this.#queue[end] as RaftEntry).data.length;
      end++;
    }
    const entries = this.#queue.slice(this.#next, end);
    this.#next = end;
    this.#waitingBytes -= bytes;
    if (this.#next === this.#queue.length) this.clear();
    return entries;
  }
}
