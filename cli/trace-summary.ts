import { type Span, STAGES, type Stage } from '../common/trace.js';

/** Time of many spans, microseconds. */
export interface Timing {
  count: number;
  errors: number;
  totalUs: number;
  p50Us: number;
  p99Us: number;
}

/** One kind of request, and what it waited for: parts of `totalUs` by the innermost stage at each moment. */
export interface OperationSummary extends Timing {
  operation: string;
  stages: { stage: Stage; us: number; share: number }[];
}

/** All spans of one name, whether a program waited for them or not. */
export interface WorkSummary extends Timing {
  stage: Stage;
  name: string;
}

export interface TraceSummary {
  spans: number;
  /** Spans that a process could not write down. */
  dropped: number;
  operations: OperationSummary[];
  work: WorkSummary[];
}

const RANK = new Map<Stage, number>(STAGES.map((stage, rank) => [stage, rank]));
const rankOf = (stage: Stage): number => RANK.get(stage) ?? 0;

/** Reads the lines of a trace file. A line that a crash has cut short is left out. */
export function* parseSpans(text: string): Generator<Span | { dropped: number }> {
  for (const line of text.split('\n')) {
    if (line === '') continue;
    try {
      yield JSON.parse(line) as Span | { dropped: number };
    } catch {
      // The last line of a process that was killed.
    }
  }
}

/** Gathers spans of all processes; their order does not matter. */
export class TraceSummarizer {
  readonly #byTrace = new Map<number, Span[]>();
  readonly #roots: Span[] = [];
  readonly #work = new Map<string, { stage: Stage; name: string; spans: Span[] }>();
  #spans = 0;
  #dropped = 0;

  add(line: Span | { dropped: number }): void {
    if ('dropped' in line) {
      this.#dropped += line.dropped;
      return;
    }
    this.#spans++;
    if (line.stage === 'fuse') this.#roots.push(line);
    else this.#note(line);
    if (line.trace === 0) return;
    const others = this.#byTrace.get(line.trace);
    if (others) others.push(line);
    else this.#byTrace.set(line.trace, [line]);
  }

  #note(span: Span): void {
    const key = `${span.stage}\0${span.name}`;
    const known = this.#work.get(key);
    if (known) known.spans.push(span);
    else this.#work.set(key, { stage: span.stage, name: span.name, spans: [span] });
  }

  summary(): TraceSummary {
    const operations = new Map<string, Span[]>();
    for (const root of this.#roots) operations.set(root.name, [...(operations.get(root.name) ?? []), root]);
    const work = [...this.#work.values()].map(({ stage, name, spans }) => ({
      stage,
      name,
      ...timing(spans),
    }));
    return {
      spans: this.#spans,
      dropped: this.#dropped,
      operations: [...operations]
        .map(([operation, roots]) => this.#operation(operation, roots))
        .sort((a, b) => b.totalUs - a.totalUs),
      work: work.sort((a, b) => rankOf(a.stage) - rankOf(b.stage) || b.totalUs - a.totalUs),
    };
  }

  #operation(operation: string, roots: readonly Span[]): OperationSummary {
    const us = new Map<Stage, number>();
    for (const root of roots) {
      for (const [stage, part] of innermost(root, this.#byTrace.get(root.trace) ?? [root]))
        us.set(stage, (us.get(stage) ?? 0) + part);
    }
    const times = timing(roots);
    const stages = [...us].map(([stage, part]) => ({ stage, us: part, share: part / (times.totalUs || 1) }));
    stages.sort((a, b) => rankOf(a.stage) - rankOf(b.stage));
    return { operation, ...times, stages };
  }
}

/**
 * Splits the time of a request among the stages: each moment goes to the innermost one that is at work then.
 * @param spans of the same trace, the root among them
 */
export function innermost(root: Span, spans: readonly Span[]): Map<Stage, number> {
  const end = root.at + root.us;
  const edges: { at: number; rank: number; step: number }[] = [];
  for (const span of spans) {
    const from = Math.max(root.at, span.at);
    const to = Math.min(end, span.at + span.us);
    if (to <= from || (span.stage === 'fuse' && span !== root)) continue;
    edges.push(
      { at: from, rank: rankOf(span.stage), step: 1 },
      { at: to, rank: rankOf(span.stage), step: -1 },
    );
  }
  edges.sort((a, b) => a.at - b.at);
  const open = STAGES.map(() => 0);
  const parts = new Map<Stage, number>();
  let before = root.at;
  for (const { at, rank, step } of edges) {
    const inner = open.findLastIndex((count) => count > 0);
    const stage = STAGES[inner];
    if (stage && at > before) parts.set(stage, (parts.get(stage) ?? 0) + at - before);
    open[rank] = (open[rank] ?? 0) + step;
    before = at;
  }
  return parts;
}

function timing(spans: readonly Span[]): Timing {
  const times = spans.map((span) => span.us).sort((a, b) => a - b);
  const at = (part: number): number =>
    times[Math.min(times.length - 1, Math.floor(times.length * part))] ?? 0;
  return {
    count: spans.length,
    errors: spans.filter((span) => span.error !== undefined).length,
    totalUs: times.reduce((sum, us) => sum + us, 0),
    p50Us: at(0.5),
    p99Us: at(0.99),
  };
}
