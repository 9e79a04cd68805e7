import { HoldfastError } from '../../proto/errors.js';
import type { RepairRecords } from '../../proto/gen/meta.js';
import { COUNTERS_KEY } from '../namespace/keys.js';
import { type Counters, decodeCounters } from '../namespace/records.js';
import type { KvReader } from '../store/kv.js';
import { type Finding, Findings } from './findings.js';
import { InodeCheck, type InodeTotals } from './inode-check.js';
import { checkNames } from './name-check.js';
import { QuotaTally } from './quota-tally.js';
import { checkInodeRecords, checkSessions } from './record-check.js';
import type { Pace } from './scan.js';

export interface NamespaceReport {
  /** In the order in which they are to be repaired. */
  findings: Finding[];
  /** All that was found, listed in `findings` or not. */
  count: number;
  /** Sets the totals right, once everything else is repaired; undefined: they are. */
  totals: { text: string; repair: RepairRecords } | undefined;
  inodes: number;
  names: number;
}

export interface NamespaceCheckOptions {
  /** A state that stands still. */
  view: KvReader;
  pace: Pace;
  progress(phase: string, done: number, total: number): void;
  /** For tests: see InodeCheck. */
  windowInodes?: number;
}

/**
 * Checks all metadata against itself: names, inodes, what hangs on them, sessions and totals. What is found is so at the
 * moment of the view: nothing that happens meanwhile can look like damage.
 * @throws HoldfastError UNAVAILABLE when there is no namespace yet, or the view was closed
 */
export async function checkNamespace(options: NamespaceCheckOptions): Promise<NamespaceReport> {
  const { view, pace, progress, windowInodes } = options;
  const stored = view.get(COUNTERS_KEY);
  if (!stored) throw new HoldfastError('UNAVAILABLE', 'there is no namespace yet');
  const counters = decodeCounters(stored);
  const findings = new Findings();
  progress('names', 0, 0);
  const names = await checkNames(view, pace, findings);
  const quotas = new QuotaTally(view);
  const inodeCheck = new InodeCheck({
    view,
    pace,
    findings,
    names,
    quotas,
    progress: (inodes) => progress('inodes', inodes, counters.inodes),
    windowInodes,
  });
  const totals = await inodeCheck.run();
  progress('records', 0, 0);
  await checkInodeRecords(view, pace, findings);
  const maxSession = await checkSessions(view, pace, findings);
  const wrong = checkCounters(counters, totals, quotas, names.maxCookie, maxSession);
  return {
    findings: findings.all,
    count: findings.count + (wrong ? 1 : 0),
    totals: wrong,
    inodes: totals.inodes,
    names: names.count,
  };
}

function checkCounters(
  counters: Counters,
  totals: InodeTotals,
  quotas: QuotaTally,
  maxCookie: number,
  maxSession: number,
): NamespaceReport['totals'] {
  const wrong: string[] = [];
  const delta = (what: 'inodes' | 'orphans' | 'allocated'): number => {
    if (counters[what] !== totals[what]) wrong.push(`${what} ${counters[what]} for ${totals[what]}`);
    return totals[what] - counters[what];
  };
  const above = (what: 'nextIno' | 'nextCookie' | 'nextSession', highest: number): number => {
    if (counters[what] > highest) return 0;
    wrong.push(`${what} ${counters[what]} although ${highest} is in use`);
    return highest + 1;
  };
  const repair: RepairRecords = {
    expected: [],
    changed: [],
    inodesDelta: delta('inodes'),
    orphansDelta: delta('orphans'),
    allocatedDelta: delta('allocated'),
    nextIno: above('nextIno', totals.maxIno),
    nextCookie: above('nextCookie', maxCookie),
    nextSession: above('nextSession', maxSession),
  };
  const corrections = quotas.corrections();
  if (corrections) {
    wrong.push(...corrections.texts);
    repair.quotas = corrections.repair;
  }
  return wrong.length > 0 ? { text: `totals: ${wrong.join(', ')}`, repair } : undefined;
}
