import { sameVersion } from '../pg/types.js';
import type { ChunkReport } from './chunk-report.js';

export type FindingKind = 'damaged' | 'missing' | 'extra' | 'differs';

/** What one replica has of a chunk; undefined: nothing. */
export type Held = ReadonlyMap<number, ChunkReport | undefined>;

export interface Verdict {
  /** What is wrong, by server. Empty: all replicas agree, and none is damaged. */
  wrong: Map<number, FindingKind>;
  /** Servers whose copy is right. Empty: there is no one right answer. */
  right: number[];
  /** What the right ones have. */
  truth: ChunkReport | undefined;
}

/**
 * Which replicas of a chunk are wrong. All were looked at behind the same operation, so any difference is damage. Those that
 * can be read and agree are right; if they do not agree, a majority of all that were looked at is.
 */
export function judge(held: Held): Verdict {
  const sound = [...held].filter(([, report]) => !report?.damaged);
  const wrong = new Map<number, FindingKind>();
  for (const [server, report] of held) if (report?.damaged) wrong.set(server, 'damaged');
  const groups: { truth: ChunkReport | undefined; servers: number[] }[] = [];
  for (const [server, report] of sound) {
    const group = groups.find(({ truth }) => agree(truth, report));
    if (group) group.servers.push(server);
    else groups.push({ truth: report, servers: [server] });
  }
  groups.sort((a, b) => b.servers.length - a.servers.length);
  const [best] = groups;
  const decided = best && (groups.length === 1 || 2 * best.servers.length > held.size);
  if (!best || !decided) {
    for (const [server] of sound) wrong.set(server, 'differs');
    return { wrong, right: [], truth: undefined };
  }
  for (const { truth, servers } of groups.slice(1)) {
    for (const server of servers) wrong.set(server, kindOf(truth, best.truth));
  }
  return { wrong, right: best.servers, truth: best.truth };
}

function agree(a: ChunkReport | undefined, b: ChunkReport | undefined): boolean {
  if (!a || !b) return a === b;
  return sameVersion(a.version, b.version) && a.end === b.end && a.sum === b.sum;
}

function kindOf(held: ChunkReport | undefined, truth: ChunkReport | undefined): FindingKind {
  if (!held) return 'missing';
  return truth ? 'differs' : 'extra';
}
