import type { RecordState } from '../../proto/gen/meta.js';

/** Findings that carry a repair; of further ones only the number is kept. Bounds the memory of a check. */
export const FINDINGS_MAX = 100_000;

/** Records that the check saw, and what they ought to be: applied only while the first still holds. */
export interface RecordRepair {
  expected: RecordState[];
  changed: RecordState[];
}

/** Something that is not as it must be. */
export interface Finding {
  /** Stable name for programs, such as "link-count". */
  kind: string;
  /** One line for people. */
  text: string;
  /** 0: of no inode. */
  ino: number;
  /** Undefined: there is no one right answer. */
  repair: RecordRepair | undefined;
}

/** Collects what a check finds, bounded. */
export class Findings {
  readonly all: Finding[] = [];
  /** Found, listed or not. */
  count = 0;

  add(finding: Finding): void {
    this.count++;
    if (this.all.length < FINDINGS_MAX) this.all.push(finding);
  }
}

/** One record, as it is and as it ought to be; undefined: there is none. */
export function change(key: Buffer, before: Buffer | undefined, after: Buffer | undefined): RecordRepair {
  const record = (value: Buffer | undefined): RecordState => ({
    key: Buffer.from(key),
    value: value && Buffer.from(value),
  });
  return { expected: [record(before)], changed: [record(after)] };
}

/** Both together or none. */
export function together(...repairs: RecordRepair[]): RecordRepair {
  return {
    expected: repairs.flatMap((repair) => repair.expected),
    changed: repairs.flatMap((repair) => repair.changed),
  };
}

/** A name for people: what is not plain text is escaped. */
export function shown(name: Buffer): string {
  return JSON.stringify(name.toString('latin1').length === 0 ? '' : name.toString('utf8'));
}
