import { delay } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import { AdminServiceDefinition, type CheckReply, type CheckRequest } from '../../proto/gen/admin.js';
import type { RpcServices, RpcStream } from '../../proto/rpc.js';
import type { MetaReplica } from '../service/ports.js';
import { CheckRun, type CheckSources } from './check-run.js';

/** Checks at one time: each reads everything. */
export const CHECKS_MAX = 1;
/** Answers that may wait for who asked; the check goes on when it has taken some. */
const ANSWERS_WAITING_MAX = 1024;
const TAKEN_POLL_MS = 20;

export interface CheckServiceOptions extends CheckSources {
  replica: MetaReplica;
  log: Logger;
}

/** AdminService.Check: the first message begins a check, the end of the stream ends it. */
export class CheckService {
  readonly #options: CheckServiceOptions;
  #running = 0;

  constructor(options: CheckServiceOptions) {
    this.#options = options;
  }

  attach(server: RpcServices): void {
    const { fullName, methods } = AdminServiceDefinition;
    server.addStream(fullName, methods.check, (rpc) => {
      let begun = false;
      rpc.onMessage((request) => {
        if (begun) return;
        begun = true;
        void this.#run(rpc, request);
      });
    });
  }

  async #run(rpc: RpcStream<CheckReply, CheckRequest>, request: CheckRequest): Promise<void> {
    const { replica, leadership, clock, log } = this.#options;
    const send = (reply: Partial<CheckReply>): void =>
      rpc.send({ body: undefined, error: 0, errorText: '', leaderHint: '', ...reply });
    this.#running++;
    try {
      if (this.#running > CHECKS_MAX) throw new HoldfastError('OVERLOADED', 'another check is running');
      if (!leadership.ready) throw leadership.notLeader();
      await replica.readBarrier();
      log.info({ ...request }, 'check begins');
      const emit = (body: CheckReply['body']): void => send({ body });
      const cancelled = (): boolean => rpc.ended;
      const taken = async (): Promise<void> => {
        while (rpc.queued > ANSWERS_WAITING_MAX && !rpc.ended) await delay(clock, TAKEN_POLL_MS);
      };
      await new CheckRun({ ...this.#options, request, emit, taken, cancelled }).run();
    } catch (error) {
      const { code, detail, leaderHint = '' } = toHoldfastError(error);
      send({ error: code, errorText: detail, leaderHint });
    } finally {
      this.#running--;
      rpc.end();
    }
  }
}
