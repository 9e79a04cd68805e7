import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../../proto/types.js';
import {
  checkLinearizable,
  type Model,
  type Operation,
  UndecidedError,
} from '../sim/checkers/linearizability.js';
import type { Arena, Recorded } from './arena.js';
import { ROOTS } from './arena.js';
import { type CellsInput, cellsModel } from './cells-model.js';
import { OK, type TreeInput, tagsByDescriptor, treeModel } from './tree-model.js';

/** What is said of the histories of a run. */
export interface Verdict {
  histories: number;
  /** Operations that were answered, or may have been carried out. */
  operations: number;
  /** Changes of which nobody knows whether they were made. */
  unknown: number;
  /** Operations during which another mount's was on in the same history. */
  overlapping: number;
  /** Histories that are too tangled to be decided. */
  undecided: string[];
  /** A text for each history that no order explains. */
  violations: string[];
}

/** So many of an explanation's last operations are shown. */
const SHOWN_MAX = 24;
/** So many of them are each left out in turn, beside those that cannot follow: each takes as long as a judgement. */
const SUSPECTS_MAX = 8;
/** Renames beside an exchange of their names, of each of which it is tried that it did nothing. */
const IDLE_TRIED_MAX = 16;

/** Is there for every arena an order of what was done there, each call between its begin and its end, that explains all answers? */
export function judge(arenas: Iterable<Arena>): Verdict {
  const verdict: Verdict = {
    ...{ histories: 0, operations: 0, unknown: 0, overlapping: 0 },
    ...{ undecided: [], violations: [] },
  };
  const roots = ROOTS.map(({ tag }) => tag);
  for (const { name, tree, cells } of arenas) {
    const wanted = tagsByDescriptor(tree.map(({ input }) => input));
    const names = looksBesideChanges(movesThatMeet(tree));
    judgeHistory(`${name}, names`, treeModel(roots, wanted), names, verdict, idleBesideExchange(names));
    judgeHistory(`${name}, cells`, cellsModel, readsBesideWrites(cells), verdict);
  }
  return verdict;
}

/** Marks renames during which somebody else made the very same one. */
function movesThatMeet(tree: readonly Recorded<TreeInput>[]): Recorded<TreeInput>[] {
  const ends = ({ input }: Recorded<TreeInput>): string | undefined =>
    input.kind === 'rename' ? [input.dir, input.name, input.toDir, input.toName].join() : undefined;
  return tree.map((op) => {
    if (op.input.kind !== 'rename') return op;
    const meets = tree.some((one) => one.mount !== op.mount && ends(one) === ends(op) && overlap(one, op));
    return meets ? { ...op, input: { ...op.input, meets } } : op;
  });
}

/**
 * Histories in which one rename, during which another mount exchanged its two names, did nothing: the kernel looks them up one
 * after the other, and may have found one inode behind both.
 */
function idleBesideExchange(tree: readonly Recorded<TreeInput>[]): Recorded<TreeInput>[][] {
  const ends = ({ input }: Recorded<TreeInput>): string =>
    input.kind === 'rename'
      ? [`${input.dir}/${input.name}`, `${input.toDir}/${input.toName}`].sort().join()
      : '';
  const exchanges = tree.filter(({ input }) => input.kind === 'rename' && input.flags === RENAME_EXCHANGE);
  const maybeIdle = tree.filter(
    (op) =>
      op.input.kind === 'rename' &&
      op.output === OK &&
      op.input.flags !== RENAME_NOREPLACE &&
      exchanges.some((one) => one.mount !== op.mount && ends(one) === ends(op) && overlap(one, op)),
  );
  return maybeIdle
    .slice(0, IDLE_TRIED_MAX)
    .map((idle) =>
      tree.map((op) =>
        op === idle && op.input.kind === 'rename' ? { ...op, input: { ...op.input, idle: true } } : op,
      ),
    );
}

/**
 * The kernel shows a name as it knows it until a change of that name, made on its own mount, returns. Other mounts may have seen
 * the change before: so what is seen of the name meanwhile may be of any moment since the change was called, and since whoever
 * looks made another call in that directory than to look.
 */
function looksBesideChanges(tree: readonly Recorded<TreeInput>[]): Recorded<TreeInput>[] {
  return tree.map((look) => {
    if (look.input.kind !== 'lookup') return look;
    const { dir, name } = look.input;
    const changed = tree
      .filter((one) => one.mount === look.mount && overlap(one, look) && changes(one.input, dir, name))
      .map(({ call }) => call);
    const before = tree
      .filter(
        ({ client, end, input }) =>
          client === look.client && end < look.call && input.kind !== 'lookup' && isIn(input, dir),
      )
      .map(({ end }) => end);
    return { ...look, call: Math.min(look.call, Math.max(Math.min(...changed), ...before)) };
  });
}

function isIn(input: TreeInput, dir: number): boolean {
  return ('dir' in input && input.dir === dir) || (input.kind === 'rename' && input.toDir === dir);
}

function changes(input: TreeInput, dir: number, name: string): boolean {
  if (!NAME_CHANGES.includes(input.kind) || !('name' in input)) return false;
  if (input.dir === dir && input.name === name) return true;
  return input.kind === 'rename' && input.toDir === dir && input.toName === name;
}

/** Marks reads during which another program of the same mount changed the file. */
function readsBesideWrites(cells: readonly Recorded<CellsInput>[]): Recorded<CellsInput>[] {
  const changes = cells.filter(({ input }) => !QUESTIONS.includes(input.kind));
  return cells.map((op) => {
    if (op.input.kind !== 'pread') return op;
    const besideWrite = changes.some((one) => one.mount === op.mount && overlap(one, op));
    return besideWrite ? { ...op, input: { ...op.input, besideWrite } } : op;
  });
}

function overlap(one: Operation<unknown, string>, other: Operation<unknown, string>): boolean {
  return one.call <= other.end && other.call <= one.end;
}

const NAME_CHANGES = ['create', 'mkdir', 'unlink', 'rmdir', 'link', 'rename'];
/** A question that was not answered says nothing. */
const QUESTIONS = ['lookup', 'list', 'stat', 'getxattr', 'pread', 'size'];

function judgeHistory<S, I extends { kind: string }>(
  name: string,
  model: Model<S, I, string>,
  recorded: readonly Recorded<I>[],
  verdict: Verdict,
  otherwise: readonly (readonly Recorded<I>[])[] = [],
): void {
  const telling = (all: readonly Recorded<I>[]): Recorded<I>[] =>
    all.filter(({ output, input }) => output !== undefined || !QUESTIONS.includes(input.kind));
  const history = telling(recorded);
  verdict.histories++;
  verdict.operations += history.length;
  verdict.unknown += history.filter(({ output }) => output === undefined).length;
  verdict.overlapping += overlapping(history);
  try {
    const { ok, longest, stuck } = checkLinearizable(model, history);
    if (ok || otherwise.some((one) => checkLinearizable(model, telling(one)).ok)) return;
    const line = (op: Operation<I, string>): string => `    ${shown(op, history)}`;
    verdict.violations.push(
      [
        `${name}: no order of ${history.length} operations explains what was answered`,
        `  the longest that was found (${longest.length} operations) ends with`,
        ...longest.slice(-SHOWN_MAX).map(line),
        '  none of these can follow',
        ...stuck.map(line),
        '  there is an order without any one of these',
        ...culprits(model, history, [...longest.slice(-SUSPECTS_MAX), ...stuck]).map(line),
      ].join('\n'),
    );
  } catch (error) {
    if (!(error instanceof UndecidedError)) throw error;
    verdict.undecided.push(`${name}: ${error.message}`);
  }
}

/** Which of these operations, each left out alone, leave a history that has an order: where to begin to look. */
function culprits<S, I>(
  model: Model<S, I, string>,
  history: readonly Recorded<I>[],
  suspects: readonly Operation<I, string>[],
): Operation<I, string>[] {
  return suspects.filter((suspect) => {
    try {
      return checkLinearizable(
        model,
        history.filter((op) => op !== suspect),
      ).ok;
    } catch (error) {
      if (error instanceof UndecidedError) return false;
      throw error;
    }
  });
}

function shown<I>(
  { client, input, output, call, end }: Operation<I, string>,
  history: readonly Recorded<I>[],
): string {
  const first = history[0]?.call ?? 0;
  const at = (moment: number): string => ((moment - first) / 1000).toFixed(3);
  const span = end === Number.POSITIVE_INFINITY ? `${at(call)}..` : `${at(call)}..${at(end)}`;
  return `${span} ms ${client}: ${JSON.stringify(input)} -> ${output === undefined ? 'unknown' : `'${output}'`}`;
}

/** How many operations have an answered one of another mount beside them. */
function overlapping(history: readonly Recorded<unknown>[]): number {
  const answered = history.filter(({ output }) => output !== undefined).sort((a, b) => a.call - b.call);
  let count = 0;
  for (const [n, op] of answered.entries())
    for (let next = n + 1; next < answered.length; next++) {
      const other = answered[next] as Recorded<unknown>;
      if (other.call > op.end) break;
      if (other.mount === op.mount) continue;
      count++;
      break;
    }
  return count;
}
