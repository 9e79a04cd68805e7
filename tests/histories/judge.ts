import {
  checkLinearizable,
  type Model,
  type Operation,
  UndecidedError,
} from '../sim/checkers/linearizability.js';
import type { Arena, Recorded } from './arena.js';
import { ROOTS } from './arena.js';
import { cellsModel } from './cells-model.js';
import { tagsByDescriptor, treeModel } from './tree-model.js';

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

/** Is there for every arena an order of what was done there, each call between its begin and its end, that explains all answers? */
export function judge(arenas: Iterable<Arena>): Verdict {
  const verdict: Verdict = {
    ...{ histories: 0, operations: 0, unknown: 0, overlapping: 0 },
    ...{ undecided: [], violations: [] },
  };
  const roots = ROOTS.map(({ tag }) => tag);
  for (const { name, tree, cells } of arenas) {
    const wanted = tagsByDescriptor(tree.map(({ input }) => input));
    judgeHistory(`${name}, names`, treeModel(roots, wanted), tree, verdict);
    judgeHistory(`${name}, cells`, cellsModel, cells, verdict);
  }
  return verdict;
}

/** A question that was not answered says nothing. */
const QUESTIONS = ['lookup', 'list', 'stat', 'getxattr', 'pread', 'size'];

function judgeHistory<S, I extends { kind: string }>(
  name: string,
  model: Model<S, I, string>,
  recorded: readonly Recorded<I>[],
  verdict: Verdict,
): void {
  const history = recorded.filter(
    ({ output, input }) => output !== undefined || !QUESTIONS.includes(input.kind),
  );
  verdict.histories++;
  verdict.operations += history.length;
  verdict.unknown += history.filter(({ output }) => output === undefined).length;
  verdict.overlapping += overlapping(history);
  try {
    const { ok, longest, stuck } = checkLinearizable(model, history);
    if (ok) return;
    const line = (op: Operation<I, string>): string => `    ${shown(op, history)}`;
    verdict.violations.push(
      [
        `${name}: no order of ${history.length} operations explains what was answered`,
        `  the longest that was found (${longest.length} operations) ends with`,
        ...longest.slice(-SHOWN_MAX).map(line),
        '  none of these can follow',
        ...stuck.map(line),
      ].join('\n'),
    );
  } catch (error) {
    if (!(error instanceof UndecidedError)) throw error;
    verdict.undecided.push(`${name}: ${error.message}`);
  }
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
