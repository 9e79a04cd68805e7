import type { Logger } from '../../common/logger.js';
import { toHoldfastError } from '../../proto/errors.js';
import type { ClusterMap } from '../../proto/gen/cluster.js';
import type { CommandBody } from '../service/proposer.js';
import { Rebalancer } from './rebalance.js';

/** How often the leader looks for PGs to move. */
export const MOVE_INTERVAL_MS = 300;

export interface MoverOptions {
  log: Logger;
  /** @throws HoldfastError */
  propose(body: CommandBody): Promise<void>;
  /** Version of the map by which a server acts; Infinity: it certainly serves nothing. */
  actsBy(server: number): number;
}

/** Proposes the leader's moves of PGs, one round after the other. */
export class Mover {
  readonly #options: MoverOptions;
  readonly #rebalancer = new Rebalancer();
  #proposing = false;
  #lookAt = Number.NEGATIVE_INFINITY;

  constructor(options: MoverOptions) {
    this.#options = options;
  }

  /** Another leadership begins: what was seen is forgotten. */
  clear(): void {
    this.#rebalancer.clear();
  }

  tick(map: ClusterMap, now: number): void {
    if (this.#proposing || now < this.#lookAt || map.pgs.length === 0) return;
    this.#lookAt = now + MOVE_INTERVAL_MS;
    const commands = this.#rebalancer.next(map, this.#options.actsBy, now);
    if (commands.length > 0) void this.#propose(commands);
  }

  /** What fails is found again in a later round. */
  async #propose(commands: CommandBody[]): Promise<void> {
    const { log, propose } = this.#options;
    this.#proposing = true;
    try {
      await Promise.all(commands.map((command) => propose(command)));
      log.info({ commands: commands.length, first: commands[0] }, 'PGs moved on');
    } catch (error) {
      log.warn({ error: toHoldfastError(error).message }, 'PGs could not be moved');
    } finally {
      this.#proposing = false;
    }
  }
}
