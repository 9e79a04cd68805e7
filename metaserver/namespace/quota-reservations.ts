import type { QuotaKind } from '../../proto/gen/meta.js';
import type { KvReader, KvTransaction } from '../store/kv.js';
import { allotmentKey, parseAllotmentKey, tableRange } from './keys.js';
import { type Allotment, decodeAllotment, encodeAllotment, type Quota } from './quota-records.js';

const NOTHING: Readonly<Allotment> = { bytes: 0, inodes: 0 };

interface Held {
  /** Sum of all sessions'. */
  readonly sum: Allotment;
  readonly sessions: Map<number, Allotment>;
}

/**
 * What sessions have set aside of quotas. It counts against the limits until a session's mutation takes its place, the
 * session gives it back, or ends.
 */
export class QuotaReservations {
  readonly #held = new Map<Quota, Held>();
  /** Records that differ from the store's. */
  readonly #dirty = new Map<string, { key: Buffer; allotment: Allotment | undefined }>();

  reload(kv: KvReader, find: (kind: QuotaKind, id: number) => Quota | undefined): void {
    this.#held.clear();
    this.#dirty.clear();
    const { start, end } = tableRange('A');
    for (const { key, value } of kv.range(start, end)) {
      const { session, kind, id } = parseAllotmentKey(key);
      const quota = find(kind, id);
      if (quota) this.#change(quota, session, decodeAllotment(value));
    }
    this.#dirty.clear();
  }

  /** Of all sessions. */
  of(quota: Quota): Readonly<Allotment> {
    return this.#held.get(quota)?.sum ?? NOTHING;
  }

  heldByOthers(quota: Quota, session: number): boolean {
    const sessions = this.#held.get(quota)?.sessions;
    return sessions !== undefined && sessions.size > (sessions.has(session) ? 1 : 0);
  }

  /** Sessions that have something reserved. */
  holders(quota: Quota): number[] {
    return [...(this.#held.get(quota)?.sessions.keys() ?? [])];
  }

  add(quota: Quota, session: number, { bytes, inodes }: Allotment): void {
    this.#change(quota, session, { bytes, inodes });
  }

  /** Ends a reservation, as far as there is one. @returns what was taken away */
  take(quota: Quota, session: number, amount: Allotment): Allotment {
    const held = this.#held.get(quota)?.sessions.get(session) ?? NOTHING;
    const bytes = Math.min(held.bytes, amount.bytes);
    const inodes = Math.min(held.inodes, amount.inodes);
    if (bytes > 0 || inodes > 0) this.#change(quota, session, { bytes: -bytes, inodes: -inodes });
    return { bytes, inodes };
  }

  /** The session is over. */
  dropSession(session: number): void {
    for (const [quota, { sessions }] of [...this.#held]) {
      const held = sessions.get(session);
      if (held) this.take(quota, session, { ...held });
    }
  }

  /** The quota has ended. */
  forget(quota: Quota): void {
    for (const [session, held] of [...(this.#held.get(quota)?.sessions ?? [])])
      this.take(quota, session, { ...held });
  }

  flush(txn: KvTransaction): void {
    for (const { key, allotment } of this.#dirty.values()) {
      if (allotment) txn.put(key, encodeAllotment(allotment));
      else if (txn.get(key)) txn.delete(key);
    }
    this.#dirty.clear();
  }

  #change(quota: Quota, session: number, { bytes, inodes }: Allotment): void {
    let held = this.#held.get(quota);
    if (!held) {
      held = { sum: { bytes: 0, inodes: 0 }, sessions: new Map() };
      this.#held.set(quota, held);
    }
    const own = held.sessions.get(session) ?? { bytes: 0, inodes: 0 };
    own.bytes += bytes;
    own.inodes += inodes;
    held.sum.bytes += bytes;
    held.sum.inodes += inodes;
    const empty = own.bytes === 0 && own.inodes === 0;
    if (empty) held.sessions.delete(session);
    else held.sessions.set(session, own);
    if (held.sessions.size === 0) this.#held.delete(quota);
    const key = allotmentKey(session, quota.kind, quota.id);
    this.#dirty.set(`${session}/${quota.kind}/${quota.id}`, { key, allotment: empty ? undefined : own });
  }
}
