import type { Clock } from '../../common/clock.js';
import { Command, type CommandResult } from '../../proto/gen/meta.js';
import type { MetaReplica } from './ports.js';

export type CommandBody = NonNullable<Command['body']>;

/** Stamps commands with the leader's time, the only clock of the state machine, and puts them into the log. */
export class Proposer {
  readonly #replica: MetaReplica;
  readonly #clock: Clock;

  constructor(replica: MetaReplica, clock: Clock) {
    this.#replica = replica;
    this.#clock = clock;
  }

  /** @throws HoldfastError as MetaReplica.propose; the command's own failure is in the result's `error` */
  propose(body: CommandBody): Promise<CommandResult> {
    const bytes = Command.encode({ time: this.#clock.wall(), body }).finish();
    return this.#replica.propose(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  }
}
