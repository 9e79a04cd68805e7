import type { Clock } from '../../common/clock.js';
import { HoldfastError } from '../../proto/errors.js';
import type { CheckFinding, CheckReply, CheckRequest, CheckSummary } from '../../proto/gen/admin.js';
import type { ClusterMap } from '../../proto/gen/cluster.js';
import type { RepairRecords } from '../../proto/gen/meta.js';
import type { Leadership } from '../service/leadership.js';
import type { MetaState } from '../service/ports.js';
import type { Proposer } from '../service/proposer.js';
import { DataCheck } from './data-check.js';
import type { RecordRepair } from './findings.js';
import { checkNamespace } from './namespace-check.js';
import type { PgTasks } from './pg-tasks.js';

type Body = NonNullable<CheckReply['body']>;

/** What a check looks at, and through whom it repairs. */
export interface CheckSources {
  state: MetaState;
  proposer: Proposer;
  leadership: Leadership;
  tasks: PgTasks;
  map(): ClusterMap | undefined;
  /** Somebody may write to the inode without having said yet how far. */
  inUse(ino: number): boolean;
  clock: Clock;
}

export interface CheckRunOptions extends CheckSources {
  request: CheckRequest;
  emit(body: Body): void;
  /** Resolves when who asked has taken most of what was sent. */
  taken(): Promise<void>;
  /** Who asked has gone: the work is of no use any more. */
  cancelled(): boolean;
}

/** One check of the whole cluster, from the leader. */
export class CheckRun {
  readonly #options: CheckRunOptions;
  readonly #summary: CheckSummary = {
    inodes: 0,
    names: 0,
    chunks: 0,
    bytes: 0,
    found: 0,
    repaired: 0,
    pgs: 0,
    pgsSkipped: 0,
  };

  constructor(options: CheckRunOptions) {
    this.#options = options;
  }

  /** @throws HoldfastError NOT_LEADER when the leadership is lost meanwhile, UNAVAILABLE, EINTR when it was cancelled */
  async run(): Promise<void> {
    const { request, emit } = this.#options;
    if (!request.skipNamespace) await this.#namespace();
    if (!request.skipData) await this.#data();
    emit({ $case: 'summary', value: this.#summary });
  }

  /** Lets the server do what waits. @throws HoldfastError when the check is over */
  readonly #pause = async (): Promise<void> => {
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#goesOn();
  };

  #goesOn(): void {
    const { leadership, cancelled } = this.#options;
    if (!leadership.ready) throw leadership.notLeader();
    if (cancelled()) throw new HoldfastError('EINTR');
  }

  async #data(): Promise<void> {
    const { state, tasks, map, inUse, clock, request } = this.#options;
    const check = new DataCheck({
      ...{ state, tasks, map, inUse, clock },
      contents: !request.skipContents,
      repair: request.repair,
      reach: !request.skipNamespace,
      goesOn: () => this.#goesOn(),
      progress: this.#progress,
      finding: (finding) => this.#finding(finding),
      summary: this.#summary,
    });
    await check.run();
  }

  readonly #progress = (phase: string, done: number, total: number): void => {
    const value = { phase, done, total };
    this.#options.emit({ $case: 'progress', value });
  };

  async #namespace(): Promise<void> {
    const { state, request } = this.#options;
    const summary = this.#summary;
    const view = await state.view();
    try {
      const report = await checkNamespace({ view, pace: { pause: this.#pause }, progress: this.#progress });
      summary.inodes = report.inodes;
      summary.names = report.names;
      summary.found += report.count;
      for (const { kind, text, ino, repair } of report.findings) {
        const repaired = request.repair && repair !== undefined && (await this.#repair(repair));
        await this.#finding({ kind, text, ino, repairable: repair !== undefined, repaired });
      }
      if (report.totals) {
        const { text, repair } = report.totals;
        const repaired = request.repair && (await this.#propose(repair));
        await this.#finding({ kind: 'totals', text, ino: 0, repairable: true, repaired });
      }
    } finally {
      view.close();
    }
  }

  async #finding(finding: Omit<CheckFinding, 'pg'> & { pg?: number }): Promise<void> {
    if (finding.repaired) this.#summary.repaired++;
    this.#options.emit({ $case: 'finding', value: { pg: undefined, ...finding } });
    await this.#options.taken();
    this.#goesOn();
  }

  #repair({ expected, changed }: RecordRepair): Promise<boolean> {
    const unchanged = { inodesDelta: 0, orphansDelta: 0, allocatedDelta: 0 };
    return this.#propose({ expected, changed, ...unchanged, nextIno: 0, nextCookie: 0, nextSession: 0 });
  }

  /** @returns false when what was to be repaired has changed since it was looked at */
  async #propose(value: RepairRecords): Promise<boolean> {
    this.#goesOn();
    const result = await this.#options.proposer.propose({ $case: 'repairRecords', value });
    return result.error === 0;
  }
}
