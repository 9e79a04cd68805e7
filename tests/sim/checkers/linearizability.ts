/**
 * Is there an order of all operations, each between its call and its return, that a sequential model allows? The search of
 * Wing and Gong with the memory of Lowe (as in Porcupine): a set of linearized operations that led to a state once
 * without success is not tried again.
 */
export interface Model<State, Input, Output> {
  readonly initial: State;
  /**
   * The state after the operation; undefined when the model could not have answered so. An absent output: nobody knows the
   * answer, any will do.
   */
  step(state: State, input: Input, output: Output | undefined): State | undefined;
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
  state: S;
}

/** @throws UndecidedError when the history is too tangled */
export function checkLinearizable<S, I, O>(
  model: Model<S, I, O>,
  history: readonly Operation<I, O>[],
): Verdict<I, O> {
  const head = link(history);
  const seen = new Set<string>();
  const frames: Frame<S, I, O>[] = [];
  let done = 0n;
  let state = model.initial;
  let longest: Operation<I, O>[] = [];
  let event = head.next;
  while (head.next) {
    if (event?.match) {
      const bit = 1n << BigInt(event.id);
      const next = model.step(state, event.op.input, event.op.output);
      const key = next === undefined ? '' : `${(done | bit).toString(36)} ${model.key(next)}`;
      if (next !== undefined && !seen.has(key)) {
        if (seen.size >= STATES_MAX)
          throw new UndecidedError(`history of ${history.length} operations is not decided`);
        seen.add(key);
        frames.push({ event, state });
        state = next;
        done |= bit;
        lift(event);
        event = head.next;
        if (frames.length > longest.length) longest = frames.map((frame) => frame.event.op);
      } else event = event.next;
      continue;
    }
    // A return: what comes behind it cannot come before. Take the last choice back.
    const frame = frames.pop();
    if (!frame) {
      const found = new Set(longest);
      return { ok: false, longest, stuck: history.filter((op) => !found.has(op)).slice(0, 8) };
    }
    state = frame.state;
    done &= ~(1n << BigInt(frame.event.id));
    unlift(frame.event);
    event = frame.event.next;
  }
  return { ok: true, longest, stuck: [] };
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
  key: (state) => state,
};
