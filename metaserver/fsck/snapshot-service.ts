import { type Clock, delay } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { errorFromCode, HoldfastError, toHoldfastError } from '../../proto/errors.js';
import {
  AdminServiceDefinition,
  type RestoreReply,
  type RestoreRequest,
  type SaveReply,
  type SaveRequest,
  type SnapshotBlock,
  type SnapshotHeader,
} from '../../proto/gen/admin.js';
import type { RestoreRecords } from '../../proto/gen/meta.js';
import type { RpcServices, RpcStream } from '../../proto/rpc.js';
import { FORMAT_VERSION } from '../namespace/keys.js';
import type { Leadership } from '../service/leadership.js';
import type { MetaReplica, MetaState } from '../service/ports.js';
import type { Proposer } from '../service/proposer.js';
import { snapshotBlocks } from './snapshot-stream.js';

/** Snapshots at one time, saved or restored. */
export const SNAPSHOTS_MAX = 1;
/** Blocks sent and not taken yet. */
export const BLOCKS_AHEAD_MAX = 8;
const TAKEN_POLL_MS = 5;
/** Who saves and takes nothing for so long is given up: the view holds space. */
const TAKEN_TIMEOUT_MS = 60_000;

export interface SnapshotServiceOptions {
  replica: MetaReplica;
  state: MetaState;
  proposer: Proposer;
  leadership: Leadership;
  clock: Clock;
  log: Logger;
  /** Of the data directory. */
  clusterId: string;
}

/** AdminService.SaveSnapshot and RestoreSnapshot. */
export class SnapshotService {
  readonly #options: SnapshotServiceOptions;
  #running = 0;

  constructor(options: SnapshotServiceOptions) {
    this.#options = options;
  }

  attach(server: RpcServices): void {
    const { fullName, methods } = AdminServiceDefinition;
    server.addStream(fullName, methods.saveSnapshot, (rpc) => this.#save(rpc));
    server.addStream(fullName, methods.restoreSnapshot, (rpc) => this.#restore(rpc));
  }

  #save(rpc: RpcStream<SaveReply, SaveRequest>): void {
    const send = (reply: Partial<SaveReply>): void =>
      rpc.send({ block: undefined, error: 0, errorText: '', leaderHint: '', ...reply });
    let taken = 0;
    let begun = false;
    rpc.onMessage((request) => {
      taken = Math.max(taken, request.taken);
      if (begun) return;
      begun = true;
      void this.#alone(() =>
        this.#sendBlocks(
          rpc,
          () => taken,
          (block) => send({ block }),
        ),
      ).then((error) => {
        if (error) send(failure(error));
        rpc.end();
      });
    });
  }

  /** @returns what went wrong */
  async #alone(run: () => Promise<void>): Promise<HoldfastError | undefined> {
    this.#running++;
    try {
      if (this.#running > SNAPSHOTS_MAX)
        throw new HoldfastError('OVERLOADED', 'another snapshot is under way');
      await run();
      return undefined;
    } catch (error) {
      return toHoldfastError(error);
    } finally {
      this.#running--;
    }
  }

  async #sendBlocks(
    rpc: RpcStream<SaveReply, SaveRequest>,
    taken: () => number,
    send: (block: SnapshotBlock) => void,
  ): Promise<void> {
    const { replica, state, leadership, clock, log } = this.#options;
    if (!leadership.ready) throw leadership.notLeader();
    await replica.readBarrier();
    const view = await state.view();
    try {
      let sent = 0;
      for (const block of snapshotBlocks(view, clock.wall().sec)) {
        const until = clock.now() + TAKEN_TIMEOUT_MS;
        while (sent - taken() >= BLOCKS_AHEAD_MAX) {
          if (rpc.ended || clock.now() > until)
            throw new HoldfastError('DEADLINE_EXCEEDED', 'nobody takes the snapshot');
          await delay(clock, TAKEN_POLL_MS);
        }
        send(block);
        sent++;
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
      log.info({ blocks: sent }, 'snapshot saved');
    } finally {
      view.close();
    }
  }

  #restore(rpc: RpcStream<RestoreReply, RestoreRequest>): void {
    const send = (reply: Partial<RestoreReply>): void =>
      rpc.send({ taken: 0, done: false, error: 0, errorText: '', leaderHint: '', ...reply });
    const restore = new Restore(this.#options);
    let taken = 0;
    // One after the other, in the order of their arrival.
    let last: Promise<unknown> = Promise.resolve();
    let failed = false;
    rpc.onMessage(({ block }) => {
      last = last.then(async () => {
        if (failed) return;
        try {
          const done = await restore.take(block);
          send({ taken: ++taken, done });
        } catch (error) {
          failed = true;
          send(failure(toHoldfastError(error)));
          rpc.end();
        }
      });
    });
  }
}

/** One restore: checks the order of blocks and turns them into commands. */
class Restore {
  readonly #options: SnapshotServiceOptions;
  #header: SnapshotHeader | undefined;
  #begun = false;

  constructor(options: SnapshotServiceOptions) {
    this.#options = options;
  }

  /** @returns true at the end. @throws HoldfastError the refusal */
  async take(block: SnapshotBlock | undefined): Promise<boolean> {
    const { body } = block ?? {};
    switch (body?.$case) {
      case 'header':
        this.#check(body.value);
        this.#header = body.value;
        return false;
      case 'records':
        await this.#propose({ records: body.value.records });
        return false;
      case 'end':
        await this.#propose({ end: true, count: body.value.records, counters: body.value.counters });
        this.#options.log.info({ records: body.value.records }, 'snapshot restored');
        return true;
      default:
        throw new HoldfastError('PROTOCOL', 'a block of a kind that this server does not know');
    }
  }

  #check({ format, clusterId }: SnapshotHeader): void {
    const { replica, state, leadership } = this.#options;
    if (replica.status().role !== 'leader') throw leadership.notLeader();
    if (state.cluster()) throw new HoldfastError('EEXIST', 'these metaservers hold a cluster already');
    if (format !== FORMAT_VERSION) {
      throw new HoldfastError('VERSION', `records of format ${format}; this server knows ${FORMAT_VERSION}`);
    }
    if (clusterId !== this.#options.clusterId) {
      const text = `the snapshot is of cluster ${clusterId}, these metaservers are of ${this.#options.clusterId}`;
      throw new HoldfastError('WRONG_CLUSTER', text);
    }
  }

  async #propose(fields: Partial<RestoreRecords>): Promise<void> {
    if (!this.#header) throw new HoldfastError('PROTOCOL', 'a snapshot begins with its header');
    const begin = !this.#begun;
    this.#begun = true;
    const none = { records: [], end: false, count: 0, counters: Buffer.alloc(0) };
    const value = { begin, ...none, ...fields };
    const result = await this.#options.proposer.propose({ $case: 'restoreRecords', value });
    if (result.error !== 0) throw errorFromCode(result.error, result.errorText);
  }
}

function failure({ code, detail, leaderHint = '' }: HoldfastError): {
  error: number;
  errorText: string;
  leaderHint: string;
} {
  return { error: code, errorText: detail, leaderHint };
}
