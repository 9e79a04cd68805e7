import { type Clock, delay, type Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { errorFromCode, HoldfastError, toHoldfastError } from '../../proto/errors.js';
import {
  AdminServiceDefinition,
  type QuotaReply,
  type QuotaRequest,
  type QuotaStatus,
  type ShowQuotas,
} from '../../proto/gen/admin.js';
import { type ChangeQuota, QuotaKind, type QuotaProgress, type QuotaRules } from '../../proto/gen/meta.js';
import type { RpcServices, RpcStream } from '../../proto/rpc.js';
import { ROOT_INO } from '../../proto/types.js';
import { isTree, type Quota, QuotaState } from '../namespace/quota-records.js';
import type { ClientService } from './client-service.js';
import type { LeaderDuty, Leadership } from './leadership.js';
import type { MetaReplica, MetaState } from './ports.js';
import type { CommandBody, Proposer } from './proposer.js';

/** Inodes of one command while a quota is counted: others wait for no longer than that takes. */
export const STEP_INODES = 256;
/** Before a step that failed is tried again. */
export const STEP_RETRY_MS = 200;
/** How often who asked is told how far it is. */
export const PROGRESS_INTERVAL_MS = 250;
/** Names that are looked through for that of a directory; of one in a larger directory no path is shown. */
const PATH_NAMES_MAX = 10_000;
const PATH_DEPTH_MAX = 256;
const PAGE_NAMES = 1000;

const STATE_NAMES: Record<QuotaState, string> = {
  [QuotaState.COUNTING]: 'counting',
  [QuotaState.ACTIVE]: 'active',
  [QuotaState.REMOVING]: 'removing',
  [QuotaState.GONE]: 'gone',
};

export interface QuotaServiceOptions {
  replica: MetaReplica;
  state: MetaState;
  proposer: Proposer;
  leadership: Leadership;
  clients: Pick<ClientService, 'changing' | 'pushQuotaRules'>;
  clock: Clock;
  log: Logger;
}

/**
 * Sets and shows quotas for operators, tells clients of them, and counts what was there before: step by step, so that
 * the file system serves meanwhile. A new leader goes on where the last one stopped.
 */
export class QuotaService implements LeaderDuty {
  readonly #options: QuotaServiceOptions;
  #leads = false;
  /** Counts the leaderships. */
  #term = 0;
  #counting = false;
  #told: QuotaRules | undefined;
  #retry: Timer | undefined;

  constructor(options: QuotaServiceOptions) {
    this.#options = options;
  }

  attach(server: RpcServices): void {
    const { fullName, methods } = AdminServiceDefinition;
    server.addStream(fullName, methods.quota, (rpc) => {
      let begun = false;
      rpc.onMessage((request) => {
        if (begun) return;
        begun = true;
        void this.#answer(rpc, request);
      });
    });
  }

  begin(): void {
    this.#leads = true;
    this.#term++;
    this.#counting = false;
    this.#told = this.#options.state.quotas().rules();
    this.#count();
  }

  end(): void {
    this.#leads = false;
    this.#retry?.cancel();
    this.#retry = undefined;
  }

  /** Commands were applied: clients are told at once when a quota has changed. */
  applied(): void {
    const { state, clients } = this.#options;
    const rules = state.quotas().rules();
    if (rules === this.#told) return;
    this.#told = rules;
    clients.pushQuotaRules();
    this.#count();
  }

  #count(): void {
    if (this.#counting || !this.#leads) return;
    this.#counting = true;
    const term = this.#term;
    void this.#countAll(term).finally(() => {
      if (term === this.#term) this.#counting = false;
    });
  }

  async #countAll(term: number): Promise<void> {
    const { state, clock, log } = this.#options;
    try {
      for (;;) {
        const next = state.quotas().list().find(isUnfinished);
        if (!next || !this.#leads || term !== this.#term) return;
        await this.#step(next);
      }
    } catch (error) {
      log.debug({ error: toHoldfastError(error).errorName }, 'a quota was not counted further');
      if (term !== this.#term || !this.#leads) return;
      this.#retry = clock.after(STEP_RETRY_MS, () => this.#count(), { weak: true });
    }
  }

  async #step({ kind, id }: Readonly<Quota>): Promise<void> {
    const { state, clients } = this.#options;
    const inos = kind === QuotaKind.QUOTA_TREE ? state.quotas().stepInodes(STEP_INODES) : [];
    const value = { kind, id, max: STEP_INODES };
    await clients.changing(inos, () => this.#propose({ $case: 'stepQuota', value }));
  }

  /** @throws HoldfastError the refusal */
  async #propose(body: CommandBody): Promise<QuotaProgress | undefined> {
    const { error, errorText, quota } = await this.#options.proposer.propose(body);
    if (error !== 0) throw errorFromCode(error, errorText);
    return quota;
  }

  async #answer(rpc: RpcStream<QuotaReply, QuotaRequest>, request: QuotaRequest): Promise<void> {
    const send = (reply: Partial<QuotaReply>): void =>
      rpc.send({
        error: 0,
        errorText: '',
        leaderHint: '',
        progress: undefined,
        quotas: [],
        end: false,
        ...reply,
      });
    try {
      const { replica, leadership } = this.#options;
      if (!leadership.ready) throw leadership.notLeader();
      await replica.readBarrier();
      const { body, path } = request;
      if (body?.$case === 'change') await this.#change(body.value, path, send, () => rpc.ended);
      else if (body?.$case === 'show') send({ quotas: await this.#show(body.value, path), end: true });
      else throw new HoldfastError('PROTOCOL', 'an empty request');
    } catch (error) {
      const { code, detail, leaderHint = '' } = toHoldfastError(error);
      send({ error: code, errorText: detail, leaderHint });
    }
    rpc.end();
  }

  async #change(
    change: ChangeQuota,
    path: Buffer,
    send: (reply: Partial<QuotaReply>) => void,
    left: () => boolean,
  ): Promise<void> {
    const { clients, clock, leadership, log, state } = this.#options;
    const value = path.length > 0 ? { ...change, id: await this.#resolve(path) } : change;
    const inos = value.kind === QuotaKind.QUOTA_TREE ? [value.id] : [];
    const { kind } = value;
    const begun = await clients.changing(inos, () => this.#propose({ $case: 'changeQuota', value }));
    const id = begun?.id ?? 0;
    log.info({ ...value, quota: id }, 'quota changed');
    for (;;) {
      const quota = state
        .quotas()
        .list()
        .find((one) => one.kind === kind && one.id === id);
      if (!quota || !isUnfinished(quota)) break;
      if (left()) return;
      if (!leadership.ready) throw leadership.notLeader();
      send({ progress: { done: quota.done, total: isTree(quota) ? 0 : state.usage().inodes } });
      await delay(clock, PROGRESS_INTERVAL_MS);
    }
    send({ quotas: this.#statuses((quota) => quota.kind === kind && quota.id === id), end: true });
  }

  async #show({ kind, id }: ShowQuotas, path: Buffer): Promise<QuotaStatus[]> {
    if (kind === undefined) return this.#statuses(() => true);
    const wanted = path.length > 0 ? await this.#resolve(path) : id;
    return this.#statuses(
      (quota) => quota.kind === kind && (isTree(quota) ? quota.root : quota.id) === wanted,
    );
  }

  #statuses(wanted: (quota: Readonly<Quota>) => boolean): QuotaStatus[] {
    const quotas = this.#options.state.quotas();
    const found = quotas.list().filter((quota) => quota.state !== QuotaState.GONE && wanted(quota));
    return found.map((quota) => {
      const { kind, limitBytes, limitInodes, bytes, inodes, state } = quota;
      const reserved = quotas.reserved(kind, quota.id);
      return {
        kind,
        id: isTree(quota) ? quota.root : quota.id,
        path: isTree(quota) ? this.#pathOf(quota.root) : Buffer.alloc(0),
        limitBytes,
        limitInodes,
        bytes,
        inodes,
        reservedBytes: reserved.bytes,
        reservedInodes: reserved.inodes,
        state: STATE_NAMES[state],
      };
    });
  }

  /** The directory at a path; what mounts have yet to tell of it is waited for. @throws HoldfastError ENOENT, ENOTDIR */
  async #resolve(path: Buffer): Promise<number> {
    const { clients, state } = this.#options;
    let ino = ROOT_INO;
    for (const part of path.toString('latin1').split('/')) {
      if (part === '' || part === '.') continue;
      const value = { parent: ino, name: Buffer.from(part, 'latin1') };
      const { result } = await clients.changing([ino], async () =>
        state.read({ op: { $case: 'lookup', value } }),
      );
      if (result?.$case === 'attr') ino = result.value.ino;
    }
    return ino;
  }

  /** Empty when the way up is too long to look for. */
  #pathOf(root: number): Buffer {
    const names: Buffer[] = [];
    for (let ino = root; ino !== ROOT_INO; ) {
      const parent = this.#parentOf(ino);
      const name = parent === undefined ? undefined : this.#nameOf(parent, ino);
      if (!parent || !name || names.length >= PATH_DEPTH_MAX) return Buffer.alloc(0);
      names.unshift(Buffer.from('/'), name);
      ino = parent;
    }
    return names.length > 0 ? Buffer.concat(names) : Buffer.from('/');
  }

  #parentOf(ino: number): number | undefined {
    try {
      const value = { ino, cookie: 0, maxEntries: 1, plus: false };
      const { result } = this.#options.state.read({ op: { $case: 'readDir', value } });
      return result?.$case === 'dir' ? result.value.parent : undefined;
    } catch (error) {
      if (error instanceof HoldfastError) return undefined; // removed meanwhile
      throw error;
    }
  }

  #nameOf(parent: number, ino: number): Buffer | undefined {
    for (let cookie = 0, seen = 0; seen < PATH_NAMES_MAX; seen += PAGE_NAMES) {
      const value = { ino: parent, cookie, maxEntries: PAGE_NAMES, plus: false };
      const { result } = this.#options.state.read({ op: { $case: 'readDir', value } });
      if (result?.$case !== 'dir') return undefined;
      const entry = result.value.entries.find((one) => one.ino === ino);
      if (entry) return entry.name;
      if (result.value.end) return undefined;
      cookie = result.value.entries.at(-1)?.cookie ?? 0;
    }
    return undefined;
  }
}

function isUnfinished({ state }: Readonly<Quota>): boolean {
  return state === QuotaState.COUNTING || state === QuotaState.REMOVING;
}
