import { type Clock, delay } from '../../common/clock.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import type { Logger } from '../../common/logger.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { InitCluster } from '../../proto/gen/meta.js';
import type { MetaReplica, MetaState } from './ports.js';
import type { Proposer } from './proposer.js';

/** Pause before a failed preparation is tried again. */
export const PREPARE_RETRY_MS = 50;

/** A service that works only on the leader. */
export interface LeaderDuty {
  /** This server leads, and has applied everything that any leader before acknowledged. */
  begin(): void;
  /** It does not any more; never called twice, nor without a begin. */
  end(): void;
}

export interface LeadershipOptions {
  replica: MetaReplica;
  state: MetaState;
  proposer: Proposer;
  clock: Clock;
  log: Logger;
  /** Proposed by the first leader of a cluster that has no settings yet. */
  init: InitCluster;
  /** Wait for a snapshot to be restored instead. */
  awaitRestore?: boolean;
}

/**
 * Switches the leader's services on and off. A new leader is `ready` when a read barrier has passed (its state then
 * holds all that was acknowledged) and the cluster has its settings.
 */
export class Leadership {
  readonly #options: LeadershipOptions;
  readonly #duties: LeaderDuty[] = [];
  /** Counts the changes, so that a preparation notices that it is out of date. */
  #change = 0;
  #leads = false;
  #ready = false;
  #waiting: Deferred<void> | undefined;

  constructor(options: LeadershipOptions) {
    this.#options = options;
  }

  /** Duties begin in the order in which they were added and end in the opposite one. Add them before `start`. */
  add(duty: LeaderDuty): void {
    this.#duties.push(duty);
  }

  start(): void {
    this.#options.replica.onLeadership((leads) => this.#changed(leads));
  }

  /** Ends the duties for good. */
  close(): void {
    this.#changed(false);
  }

  get ready(): boolean {
    return this.#ready;
  }

  /** Resolves when this leader is ready. @throws HoldfastError NOT_LEADER, with a hint where the leader is known */
  whenReady(): Promise<void> {
    if (this.#ready) return Promise.resolve();
    if (!this.#leads) return Promise.reject(this.notLeader());
    this.#waiting ??= deferred();
    return this.#waiting.promise;
  }

  notLeader(): HoldfastError {
    const status = this.#options.replica.status();
    const error = new HoldfastError('NOT_LEADER');
    if (status.leaderAddress && status.leader !== status.id) error.leaderHint = status.leaderAddress;
    return error;
  }

  #changed(leads: boolean): void {
    this.#change++;
    const wasReady = this.#ready;
    this.#leads = leads;
    this.#ready = false;
    // A new term of the same leader is a new leadership too: leases and registrations start over.
    if (wasReady) for (const duty of [...this.#duties].reverse()) duty.end();
    if (leads) {
      void this.#prepare(this.#change);
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.promise.catch(() => {}); // whoever waits has its own handler
    waiting?.reject(this.notLeader());
  }

  async #prepare(change: number): Promise<void> {
    const { replica, clock, log } = this.#options;
    while (change === this.#change) {
      try {
        await replica.readBarrier();
        if (change === this.#change) await this.#initialise();
        break;
      } catch (error) {
        const { errorName, message } = toHoldfastError(error);
        log.debug({ error: errorName, detail: message }, 'cannot take up the leadership yet');
        await delay(clock, PREPARE_RETRY_MS);
      }
    }
    if (change !== this.#change) return;
    this.#ready = true;
    log.info({ term: replica.status().term }, 'serving the cluster as its leader');
    for (const duty of this.#duties) duty.begin();
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve();
  }

  async #initialise(): Promise<void> {
    const { state, proposer, init, awaitRestore, log } = this.#options;
    if (state.cluster()) return;
    if (awaitRestore) throw new HoldfastError('UNAVAILABLE', 'waiting for a snapshot to be restored');
    const result = await proposer.propose({ $case: 'initCluster', value: init });
    if (result.error !== 0)
      throw new HoldfastError('UNAVAILABLE', `cluster not initialised: ${result.errorText}`);
    log.info({ cluster: init.clusterId, replicas: init.replicas, pgs: init.pgCount }, 'cluster initialised');
  }
}
