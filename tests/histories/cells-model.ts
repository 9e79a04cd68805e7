import type { Model } from '../sim/checkers/linearizability.js';

/**
 * The contents of one file that all mounts share, in cells of 8 bytes: a call reads or writes one of them, and all sizes are
 * multiples of it, so that no call can be seen half done (a larger one may be, also on a local file system).
 */
export const CELL_BYTES = 8;

export type CellsInput =
  | { kind: 'pwrite'; at: number; value: string }
  | { kind: 'append'; value: string }
  | { kind: 'truncate'; size: number }
  | { kind: 'pread'; at: number; besideWrite?: boolean }
  | { kind: 'size' };

/** OK, a cell's content (HOLE: zeros; nothing: it lies behind the end), a size, or an errno. */
export type CellsOutput = string;
export const DONE = 'ok';
export const HOLE = '0';

/** Never changed in place. */
export class CellsState {
  static readonly EMPTY = new CellsState(0, new Map());
  readonly size: number;
  readonly #cells: ReadonlyMap<number, string>;
  #key: string | undefined;

  private constructor(size: number, cells: ReadonlyMap<number, string>) {
    this.size = size;
    this.#cells = cells;
  }

  get key(): string {
    this.#key ??= `${this.size}:${[...this.#cells]
      .sort(([a], [b]) => a - b)
      .map(([at, value]) => `${at}=${value}`)
      .join()}`;
    return this.#key;
  }

  read(at: number): string {
    return at >= this.size ? '' : (this.#cells.get(at) ?? HOLE);
  }

  write(at: number, value: string): CellsState {
    const cells = new Map(this.#cells).set(at, value);
    return new CellsState(Math.max(this.size, at + CELL_BYTES), cells);
  }

  truncate(size: number): CellsState {
    return new CellsState(size, new Map([...this.#cells].filter(([at]) => at < size)));
  }
}

function perform(state: CellsState, input: CellsInput): [next: CellsState, output: CellsOutput] {
  switch (input.kind) {
    case 'pwrite':
      return [state.write(input.at, input.value), DONE];
    case 'append':
      return [state.write(state.size, input.value), DONE];
    case 'truncate':
      return [state.truncate(input.size), DONE];
    case 'pread':
      return [state, state.read(input.at)];
    case 'size':
      return [state, String(state.size)];
  }
}

/** The one answer that the model gives. */
export function cellsAnswer(state: CellsState, input: CellsInput): CellsOutput {
  return perform(state, input)[1];
}

/**
 * The kernel drops the answer to its question for the size when a write of its own mount ends meanwhile, and reads up to the
 * size that it knew: less than there is, or zeros where the file was cut.
 */
function mayBeCut(input: CellsInput, output: CellsOutput): boolean {
  return input.kind === 'pread' && input.besideWrite === true && (output === '' || output === HOLE);
}

export const cellsModel: Model<CellsState, CellsInput, CellsOutput> = {
  initial: CellsState.EMPTY,
  step(state, input, output) {
    const [next, found] = perform(state, input);
    if (output === undefined || output === found) return next;
    return mayBeCut(input, output) ? state : undefined;
  },
  observes: ({ kind }) => kind === 'pread' || kind === 'size',
  key: (state) => state.key,
};
