import { Counts } from '../../common/counts.js';
import { HoldfastError } from '../../proto/errors.js';
import type { Fence } from '../../proto/gen/cluster.js';

/**
 * Which client sessions this server still serves. A session that expired is refused from the moment the fence comes;
 * the metaservers are told once nothing is left that it had begun, for only then may others have what it held.
 */
export class SessionFence {
  readonly #report: (version: number) => void;
  #version = 0;
  #upto = 0;
  #live: ReadonlySet<number> = new Set();
  /** Requests under way that may change data, by session. */
  readonly #begun = new Counts();
  /** Sessions that were shut out while requests of theirs were under way. */
  readonly #draining = new Set<number>();
  #reported = true;

  /** @param report tells the metaservers that the fence of this version is kept */
  constructor(report: (version: number) => void) {
    this.#report = report;
  }

  /** A fence, pushed or with the registration; one that is older than the present one changes nothing. */
  set({ version, upto, live }: Fence): void {
    if (version >= this.#version) {
      this.#version = version;
      this.#upto = upto;
      this.#live = new Set(live);
      for (const session of this.#begun.numbers()) if (this.#shutsOut(session)) this.#draining.add(session);
    }
    this.#reported = false;
    this.#reportIfDrained();
  }

  /** What requests of the session are answered with; undefined: they are served. */
  refusal(session: number): HoldfastError | undefined {
    return this.#shutsOut(session)
      ? new HoldfastError('SESSION_EXPIRED', `session ${session} is shut out`)
      : undefined;
  }

  /** A request begins that may change data; ended() has to follow when it can have no effect any more. */
  begin(session: number): void {
    this.#begun.up(session);
  }

  ended(session: number): void {
    if (this.#begun.down(session) && this.#draining.delete(session)) this.#reportIfDrained();
  }

  #shutsOut(session: number): boolean {
    return session <= this.#upto && !this.#live.has(session);
  }

  #reportIfDrained(): void {
    if (this.#reported || this.#draining.size > 0) return;
    this.#reported = true;
    this.#report(this.#version);
  }
}
