import type {
  CheckFinding,
  CheckProgress,
  CheckReply,
  CheckRequest,
  CheckSummary,
} from '../proto/gen/admin.js';
import { AdminServiceDefinition } from '../proto/gen/admin.js';
import { callLeader } from './leader-stream.js';
import { CliError, oneLine } from './output.js';

/** Findings that are kept for the output; of further ones only the number. */
const FINDINGS_SHOWN_MAX = 10_000;

export interface CheckResult {
  findings: CheckFinding[];
  summary: CheckSummary;
}

/** Has the leader check, with progress on a terminal. @throws CliError when the check could not be made */
export async function runCheck(
  addresses: readonly string[],
  request: CheckRequest,
  onFinding: (finding: CheckFinding) => void,
): Promise<CheckResult> {
  const screen = new ProgressLine();
  const findings: CheckFinding[] = [];
  let summary: CheckSummary | undefined;
  const take = ({ body }: CheckReply): boolean => {
    switch (body?.$case) {
      case 'progress':
        screen.show(body.value);
        break;
      case 'finding':
        screen.clear();
        if (findings.length < FINDINGS_SHOWN_MAX) findings.push(body.value);
        onFinding(body.value);
        break;
      case 'summary':
        summary = body.value;
        break;
    }
    return summary !== undefined;
  };
  try {
    await callLeader(addresses, AdminServiceDefinition.methods.check, request, take);
  } catch (error) {
    screen.clear();
    if (error instanceof CliError) throw error;
    throw new CliError(`the check was not finished: ${oneLine(error)}`);
  }
  screen.clear();
  if (!summary) throw new CliError('the check was not finished: the leader went away; run it again');
  return { findings, summary };
}

/** What a check comes to. Not clean: damage is left, or there may be some where it could not look. */
export function verdictOf({ found, repaired, pgsSkipped }: CheckSummary): { clean: boolean; text: string } {
  const clean = found === repaired && pgsSkipped === 0;
  if (found > 0) return { clean, text: `${found} found, ${repaired} repaired` };
  return { clean, text: clean ? 'sound' : 'sound as far as it was checked' };
}

/** One line for people. */
export function describeFinding({ kind, text, pg, repaired, repairable }: CheckFinding): string {
  const where = pg === undefined ? '' : `PG ${pg}: `;
  const done = repaired ? ' (repaired)' : repairable ? '' : ' (no one right answer: not repaired)';
  return `${kind}: ${where}${text}${done}`;
}

/** One line on standard error that is written over; nothing when that is no terminal. */
class ProgressLine {
  readonly #live = process.stderr.isTTY === true;
  #width = 0;

  show({ phase, done, total }: CheckProgress): void {
    if (!this.#live) return;
    const part =
      total > 0 ? ` ${Math.min(100, Math.floor((done / total) * 100))}% (${done} of ${total})` : '';
    const text = `checking ${phase}${part}`;
    process.stderr.write(`\r${text.padEnd(this.#width)}`);
    this.#width = text.length;
  }

  clear(): void {
    if (this.#width > 0) process.stderr.write(`\r${' '.repeat(this.#width)}\r`);
    this.#width = 0;
  }
}
