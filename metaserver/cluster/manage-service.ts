import type { Logger } from '../../common/logger.js';
import { errorFromCode, HoldfastError, toHoldfastError } from '../../proto/errors.js';
import {
  AdminServiceDefinition,
  ChunkServerAction,
  type ManageChunkServerReply,
  type ManageChunkServerRequest,
} from '../../proto/gen/admin.js';
import type { ClusterMap } from '../../proto/gen/cluster.js';
import type { RpcServices, RpcStream } from '../../proto/rpc.js';
import type { Leadership } from '../service/leadership.js';
import type { MetaReplica, MetaState } from '../service/ports.js';
import type { CommandBody, Proposer } from '../service/proposer.js';

export interface ManageServiceOptions {
  replica: MetaReplica;
  state: MetaState;
  proposer: Proposer;
  leadership: Leadership;
  log: Logger;
}

/** AdminService.ManageChunkServer: an operator's orders about one chunkserver, one order and one answer for each stream. */
export class ManageService {
  readonly #options: ManageServiceOptions;

  constructor(options: ManageServiceOptions) {
    this.#options = options;
  }

  attach(server: RpcServices): void {
    const { fullName, methods } = AdminServiceDefinition;
    server.addStream(fullName, methods.manageChunkServer, (rpc) => {
      let begun = false;
      rpc.onMessage((request) => {
        if (begun) return;
        begun = true;
        void this.#answer(rpc, request);
      });
    });
  }

  async #answer(
    rpc: RpcStream<ManageChunkServerReply, ManageChunkServerRequest>,
    request: ManageChunkServerRequest,
  ): Promise<void> {
    try {
      await this.#run(request);
      rpc.send({ error: 0, errorText: '', leaderHint: '' });
    } catch (error) {
      const { code, detail, leaderHint = '' } = toHoldfastError(error);
      rpc.send({ error: code, errorText: detail, leaderHint });
    }
    rpc.end();
  }

  async #run({ server, action }: ManageChunkServerRequest): Promise<void> {
    const { replica, state, proposer, leadership, log } = this.#options;
    if (!leadership.ready) throw leadership.notLeader();
    await replica.readBarrier();
    const { error, errorText } = await proposer.propose(commandOf(state.map(), server, action));
    if (error !== 0) throw errorFromCode(error, errorText);
    log.info({ server, action: ChunkServerAction[action] }, 'order of an operator');
  }
}

/** @throws HoldfastError EINVAL what cannot work, with a text for the operator */
function commandOf(map: ClusterMap, server: number, action: ChunkServerAction): CommandBody {
  switch (action) {
    case ChunkServerAction.CHUNK_SERVER_DRAIN:
      checkDrain(map, server);
      return { $case: 'drainChunkServer', value: { server, draining: true } };
    case ChunkServerAction.CHUNK_SERVER_KEEP:
      return { $case: 'drainChunkServer', value: { server, draining: false } };
    case ChunkServerAction.CHUNK_SERVER_REMOVE:
      return { $case: 'removeChunkServer', value: { server } };
    default:
      throw new HoldfastError('EINVAL', `action ${action}`);
  }
}

/** @throws HoldfastError EINVAL when too few servers would be left for the copies */
function checkDrain({ servers, pgs }: ClusterMap, server: number): void {
  const copies = pgs.reduce(
    (most, { replicas }) => Math.max(most, replicas.filter((one) => !one.leaving).length),
    0,
  );
  const left = servers.filter((other) => other.id !== server && !other.draining).length;
  if (left >= copies) return;
  const text = `draining chunkserver ${server} leaves ${left} servers for ${copies} copies of each chunk: add one first`;
  throw new HoldfastError('EINVAL', text);
}
