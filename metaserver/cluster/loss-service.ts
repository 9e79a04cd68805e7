import type { Logger } from '../../common/logger.js';
import { errorFromCode, toHoldfastError } from '../../proto/errors.js';
import { type AcceptLossRequest, AdminServiceDefinition } from '../../proto/gen/admin.js';
import type { PgChoice } from '../../proto/gen/meta.js';
import type { RpcServices } from '../../proto/rpc.js';
import type { Leadership } from '../service/leadership.js';
import type { MetaReplica, MetaState } from '../service/ports.js';
import type { Proposer } from '../service/proposer.js';
import { chooseSurvivors } from './pg-loss.js';

export interface LossServiceOptions {
  replica: MetaReplica;
  state: MetaState;
  proposer: Proposer;
  leadership: Leadership;
  log: Logger;
}

/** AdminService.AcceptLoss: an operator gives up what only disks hold that are gone for ever. One order a stream. */
export class LossService {
  readonly #options: LossServiceOptions;

  constructor(options: LossServiceOptions) {
    this.#options = options;
  }

  attach(server: RpcServices): void {
    const { fullName, methods } = AdminServiceDefinition;
    server.addStream(fullName, methods.acceptLoss, (rpc) => {
      let begun = false;
      rpc.onMessage((request) => {
        if (begun) return;
        begun = true;
        this.#run(request).then(
          (choices) => {
            rpc.send({ error: 0, errorText: '', leaderHint: '', choices });
            rpc.end();
          },
          (cause: unknown) => {
            const { code, detail, leaderHint = '' } = toHoldfastError(cause);
            rpc.send({ error: code, errorText: detail, leaderHint, choices: [] });
            rpc.end();
          },
        );
      });
    });
  }

  async #run({ pgs, server }: AcceptLossRequest): Promise<PgChoice[]> {
    const { replica, state, proposer, leadership, log } = this.#options;
    if (!leadership.ready) throw leadership.notLeader();
    await replica.readBarrier();
    const choices = chooseSurvivors(state.map(), pgs, server);
    const { error, errorText } = await proposer.propose({ $case: 'acceptLoss', value: { choices } });
    if (error !== 0) throw errorFromCode(error, errorText);
    log.warn({ choices }, 'loss of data accepted by an operator');
    return choices;
  }
}
