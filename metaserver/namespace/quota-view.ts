import type { QuotaKind, QuotaRules } from '../../proto/gen/meta.js';
import type { KvReader } from '../store/kv.js';
import { loadInode } from './batch.js';
import { nextInodes } from './quota-commands.js';
import type { Quota } from './quota-records.js';
import type { QuotaTable } from './quota-table.js';

/** Tightest limits around an inode, and what is left under them. */
export type QuotaRoom = ReturnType<QuotaTable['room']>;

/** What may be asked of the quotas: as of the last command applied. */
export class QuotaView {
  readonly #kv: KvReader;
  readonly #table: QuotaTable;

  constructor(kv: KvReader, table: QuotaTable) {
    this.#kv = kv;
    this.#table = table;
  }

  /** Which quotas there are; another object whenever something of that has changed. */
  rules(): QuotaRules {
    return this.#table.rules();
  }

  list(): Readonly<Quota>[] {
    return [...this.#table.all()];
  }

  /** What sessions have reserved of a quota, and which do. */
  reserved(kind: QuotaKind, id: number): { bytes: number; inodes: number; sessions: number[] } {
    const quota = this.#table.get(kind, id);
    if (!quota) return { bytes: 0, inodes: 0, sessions: [] };
    const { reservations } = this.#table;
    return { ...reservations.of(quota), sessions: reservations.holders(quota) };
  }

  /** Inodes that the next step of a tree may change: see stepQuota(). */
  stepInodes(max: number): number[] {
    return nextInodes(this.#kv, max);
  }

  /** The tightest limits of the trees around an inode. */
  room(ino: number): QuotaRoom {
    const inode = this.#table.size > 0 ? loadInode(this.#kv, ino) : undefined;
    return this.#table.room(inode?.project ?? 0);
  }
}
