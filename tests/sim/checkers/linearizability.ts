import { createPrng } from '../../../common/prng.js';

/**
 * Is there an order of all operations, each between its call and its return, that a sequential model allows? The search of
 * Wing and Gong with the memory of Lowe (as in Porcupine): a set of linearized operations that led to a state once
 * without success is not tried again.
 *
 * Two rules make it short and lose no order. An answered operation that may come next and by its answer changes no state is
 * taken at once: any order that has it later is as good with it here. (One that merely changes nothing here, as a write of
 * what is there, may be needed later.) One without an answer that would change nothing is left: it loses nothing by coming
 * later, or never.
 */
export interface Model<State, Input, Output> {
  readonly initial: State;
  /**
   * The state after the operation, the same object where nothing changes; undefined when the model could not have
   * answered so. An absent output: nobody knows the answer, any will do.
   */
  step(state: State, input: Input, output: Output | undefined): State | undefined;
  /** Whether an operation with this answer leaves every state as it is, wherever step() allows it. */
  observes(input: Input, output: Output): boolean;
  /** Equal for equal states. */
  key(state: State): string;
}

export interface Operation<Input, Output> {
  client: string;
  input: Input;
  /** Undefined: never answered, or with an error that leaves the outcome open. */
  output: Output | undefined;
  /** Moments of the call and the return; Infinity: it may take effect at any later time, or never. */
  call: number;
  end: number;
}

export interface Verdict<Input, Output> {
  ok: boolean;
  /** With a failure: the longest order that was found, and what could not follow it. */
  longest: Operation<Input, Output>[];
  stuck: Operation<Input, Output>[];
}

/** States that are visited at most; beyond it the history counts as not decided. */
const STATES_MAX = 60_000;

/** Too many operations overlap for the search to end: nothing is known of the history. */
export class UndecidedError extends Error {
  override name = 'UndecidedError';
}

interface Event<I, O> {
  op: Operation<I, O>;
  id: number;
  /** The event of the return; undefined: this is one. */
  match: Event<I, O> | undefined;
  previous: Event<I, O> | undefined;
  next: Event<I, O> | undefined;
}

interface Frame<S, I, O> {
  event: Event<I, O>;
  /** Before the event. */
  state: S;
  /** There was no other choice. */
  forced: boolean;
}

/** @throws UndecidedError when the history is too tangled */
export function checkLinearizable<S, I, O>(
  model: Model<S, I, O>,
  history: readonly Operation<I, O>[],
): Verdict<I, O> {
  return new Search(model, history).run();
}

class Search<S, I, O> {
  readonly #model: Model<S, I, O>;
  readonly #history: readonly Operation<I, O>[];
  readonly #head: Event<I, O>;
  readonly #seen: Visited;
  readonly #frames: Frame<S, I, O>[] = [];
  #state: S;
  #longest: Operation<I, O>[] = [];
  /** Answered operations that have no place yet. */
  #left: number;

  constructor(model: Model<S, I, O>, history: readonly Operation<I, O>[]) {
    this.#model = model;
    this.#history = history;
    this.#head = link(history);
    this.#seen = new Visited(history.length);
    this.#state = model.initial;
    this.#left = history.filter(({ end }) => end !== Number.POSITIVE_INFINITY).length;
  }

  run(): Verdict<I, O> {
    const { next } = this.#head;
    let event = next && this.#settle(next);
    while (this.#left > 0) {
      const chosen = this.#choose(event);
      if (chosen) event = this.#settle(this.#head.next as Event<I, O>);
      else {
        const taken = this.#takeBack();
        if (!taken) {
          const found = new Set(this.#longest);
          const stuck = this.#history.filter((op) => !found.has(op)).slice(0, 8);
          return { ok: false, longest: this.#longest, stuck };
        }
        event = taken.next;
      }
    }
    return { ok: true, longest: [], stuck: [] };
  }

  /** Takes all that may come next and changes nothing anywhere. @returns the first event that is left */
  #settle(first: Event<I, O>): Event<I, O> | undefined {
    let event: Event<I, O> | undefined = first;
    while (event?.match) {
      const input: I = event.op.input;
      const output: O | undefined = event.op.output;
      const match: Event<I, O> = event.match;
      const next: Event<I, O> | undefined = event.next === match ? match.next : event.next;
      const idle: boolean =
        output !== undefined &&
        this.#model.observes(input, output) &&
        this.#model.step(this.#state, input, output) === this.#state;
      if (idle) this.#take(event, this.#state, true);
      event = idle ? next : event.next;
    }
    return this.#head.next;
  }

  /** Takes the first operation from `event` on that leads to somewhere new. */
  #choose(event: Event<I, O> | undefined): boolean {
    for (let at = event; at?.match; at = at.next) {
      const next = this.#model.step(this.#state, at.op.input, at.op.output);
      if (next === undefined || (next === this.#state && at.op.output === undefined)) continue;
      if (!this.#seen.add(at.id, this.#model.key(next))) continue;
      if (this.#seen.size > STATES_MAX) {
        throw new UndecidedError(`history of ${this.#history.length} operations is not decided`);
      }
      this.#take(at, next, false);
      return true;
    }
    return false;
  }

  #take(event: Event<I, O>, next: S, forced: boolean): void {
    this.#frames.push({ event, state: this.#state, forced });
    this.#state = next;
    this.#seen.toggle(event.id);
    lift(event);
    if (event.op.end !== Number.POSITIVE_INFINITY) this.#left--;
  }

  /** Takes the last choice back. */
  #takeBack(): Event<I, O> | undefined {
    if (this.#frames.length > this.#longest.length) this.#longest = this.#frames.map(({ event }) => event.op);
    for (;;) {
      const frame = this.#frames.pop();
      if (!frame) return undefined;
      this.#state = frame.state;
      this.#seen.toggle(frame.event.id);
      unlift(frame.event);
      if (frame.event.op.end !== Number.POSITIVE_INFINITY) this.#left++;
      if (!frame.forced) return frame.event;
    }
  }
}

const TOP = 2 ** 21;

/**
 * Sets of operations with a state in which the search was. A set is told by the sum of random numbers of its members (53 bits):
 * that two of them meet among all that one search visits has a chance of less than one in a million.
 */
class Visited {
  readonly #high: Int32Array;
  readonly #low: Int32Array;
  readonly #sets = new Map<string, Set<number>>();
  #top = 0;
  #bottom = 0;
  size = 0;

  constructor(operations: number) {
    const prng = createPrng(operations);
    this.#high = Int32Array.from({ length: operations }, () => prng.int(TOP));
    this.#low = Int32Array.from({ length: operations }, () => prng.int(2 ** 32));
  }

  /** An operation enters the present set, or leaves it. */
  toggle(id: number): void {
    this.#top ^= this.#high[id] as number;
    this.#bottom ^= this.#low[id] as number;
  }

  /** @returns false: the present set with this operation was there in this state */
  add(id: number, state: string): boolean {
    const set =
      (this.#top ^ (this.#high[id] as number)) * 2 ** 32 + ((this.#bottom ^ (this.#low[id] as number)) >>> 0);
    let sets = this.#sets.get(state);
    if (!sets) {
      sets = new Set();
      this.#sets.set(state, sets);
    }
    if (sets.has(set)) return false;
    sets.add(set);
    this.size++;
    return true;
  }
}

/** Calls and returns as one list in the order of time; operations without a return end behind all others. */
function link<I, O>(history: readonly Operation<I, O>[]): Event<I, O> {
  const events: { at: number; isCall: boolean; event: Event<I, O> }[] = [];
  history.forEach((op, id) => {
    const end: Event<I, O> = { op, id, match: undefined, previous: undefined, next: undefined };
    const call: Event<I, O> = { op, id, match: end, previous: undefined, next: undefined };
    events.push({ at: op.call, isCall: true, event: call }, { at: op.end, isCall: false, event: end });
  });
  events.sort((a, b) => (a.at === b.at ? Number(b.isCall) - Number(a.isCall) : a.at < b.at ? -1 : 1));
  const head = { op: undefined, id: -1, match: undefined, previous: undefined, next: undefined };
  const first = head as unknown as Event<I, O>;
  let last = first;
  for (const { event } of events) {
    last.next = event;
    event.previous = last;
    last = event;
  }
  return first;
}

function remove<I, O>(event: Event<I, O>): void {
  (event.previous as Event<I, O>).next = event.next;
  if (event.next) event.next.previous = event.previous;
}

function insert<I, O>(event: Event<I, O>): void {
  (event.previous as Event<I, O>).next = event;
  if (event.next) event.next.previous = event;
}

function lift<I, O>(event: Event<I, O>): void {
  remove(event);
  remove(event.match as Event<I, O>);
}

function unlift<I, O>(event: Event<I, O>): void {
  insert(event.match as Event<I, O>);
  insert(event);
}

/** A history while it is made: calls and returns are numbered in the order in which they happen. */
export class History<Input, Output> {
  readonly operations: Operation<Input, Output>[] = [];
  #moment = 0;

  /** @returns tells the answer; without it the outcome stays open */
  call(client: string, input: Input): (output: Output) => void {
    const operation: Operation<Input, Output> = {
      client,
      input,
      output: undefined,
      call: this.#moment++,
      end: Number.POSITIVE_INFINITY,
    };
    this.operations.push(operation);
    return (output) => {
      operation.output = output;
      operation.end = this.#moment++;
    };
  }
}

/** A cell that is written and read. */
export type RegisterInput = { kind: 'write'; value: string } | { kind: 'read' };

export const registerModel: Model<string, RegisterInput, string> = {
  initial: '',
  step(state, input, output) {
    if (input.kind === 'write') return input.value;
    return output === undefined || output === state ? state : undefined;
  },
  observes: ({ kind }) => kind === 'read',
  key: (state) => state,
};
