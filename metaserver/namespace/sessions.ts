import { errorFromCode, HoldfastError } from '../../proto/errors.js';
import { CommandResult, type Mutation, type OpenSession } from '../../proto/gen/meta.js';
import type { KvReader, KvTransaction } from '../store/kv.js';
import {
  FENCES_RANGE,
  fenceKey,
  readU64,
  resultKey,
  SESSIONS_RANGE,
  sessionKey,
  uuidKey,
  writeU64,
} from './keys.js';
import { type Counters, decodeSession, encodeSession, type Session } from './records.js';

/** Mutations whose results one session may leave unacknowledged; further ones are refused until it acknowledges. */
export const MAX_UNACKED_MUTATIONS = 4096;
/** Clients at a time. */
export const MAX_SESSIONS = 65_536;
export const SESSION_TEXT_MAX_BYTES = 4096;
/** The uuid is part of a key. */
export const CLIENT_UUID_MAX_BYTES = 128;

/**
 * The clients' sessions, and exactly once: the result of a mutation is kept until the client says that it has it, and a
 * repeat gets the kept one. Everything here is replicated state; it is in memory too, as a whole.
 *
 * Invariant: results are stored for a subset of [forgottenBelow, maxSeq], which spans at most MAX_UNACKED_MUTATIONS.
 */
export class SessionTable {
  private readonly sessions = new Map<number, Session>();
  private readonly dirty = new Set<Session>();
  private readonly toFence = new Set<number>();

  constructor(kv: KvReader) {
    for (const { key, value } of kv.range(SESSIONS_RANGE.start, SESSIONS_RANGE.end)) {
      const id = readU64(key, 1);
      this.sessions.set(id, decodeSession(id, value));
    }
    for (const { key } of kv.range(FENCES_RANGE.start, FENCES_RANGE.end)) this.toFence.add(readU64(key, 1));
  }

  get(id: number): Session | undefined {
    return this.sessions.get(id);
  }

  all(): Session[] {
    return [...this.sessions.values()];
  }

  /** The session of a client: a known uuid gets its old one. @throws HoldfastError PROTOCOL, OVERLOADED */
  open(txn: KvTransaction, counters: Counters, op: OpenSession): number {
    checkText('client uuid', op.clientUuid, CLIENT_UUID_MAX_BYTES);
    checkText('host name', op.hostname, SESSION_TEXT_MAX_BYTES);
    checkText('mount point', op.mountPoint, SESSION_TEXT_MAX_BYTES);
    checkText('place', op.place ?? '', SESSION_TEXT_MAX_BYTES);
    if (op.clientUuid === '') throw new HoldfastError('PROTOCOL', 'client uuid is empty');
    const known = txn.get(uuidKey(op.clientUuid));
    if (known) return readU64(known, 0);
    if (this.sessions.size >= MAX_SESSIONS) throw new HoldfastError('OVERLOADED', 'too many sessions');
    const id = counters.nextSession++;
    const { clientUuid, hostname, mountPoint, place = '' } = op;
    const wantsLeases = op.wantsLeases ?? false;
    const session = {
      id,
      clientUuid,
      hostname,
      mountPoint,
      place,
      wantsLeases,
      forgottenBelow: 1,
      maxSeq: 0,
    };
    this.sessions.set(id, session);
    this.dirty.add(session);
    const value = Buffer.alloc(8);
    writeU64(value, 0, id);
    txn.put(uuidKey(clientUuid), value);
    return id;
  }

  /** Sessions that expired, and may still reach a chunkserver. */
  fencing(): number[] {
    return [...this.toFence];
  }

  /** Ends a session that may not know of it: it is remembered until every chunkserver shuts it out. */
  expire(txn: KvTransaction, id: number): void {
    if (!this.sessions.has(id)) return;
    this.close(txn, id);
    txn.put(fenceKey(id), Buffer.alloc(0));
    this.toFence.add(id);
  }

  /** Every chunkserver shuts it out. */
  fenced(txn: KvTransaction, id: number): void {
    if (this.toFence.delete(id)) txn.delete(fenceKey(id));
  }

  /** Removes a session and its results, if it is there. */
  close(txn: KvTransaction, id: number): void {
    const session = this.sessions.get(id);
    if (!session) return;
    forget(txn, session, session.maxSeq + 1);
    txn.delete(uuidKey(session.clientUuid));
    txn.delete(sessionKey(id));
    this.sessions.delete(id);
    this.dirty.delete(session);
  }

  /**
   * Runs a mutation unless it ran before, in which case its first result is returned.
   * A retriable refusal is not kept: the same number may be tried again.
   */
  once(txn: KvTransaction, mutation: Mutation, run: () => CommandResult): CommandResult {
    const session = this.sessions.get(mutation.session);
    if (!session) throw new HoldfastError('SESSION_EXPIRED');
    const { seq, ackedBelow } = mutation;
    if (seq < 1 || ackedBelow > seq)
      throw new HoldfastError('PROTOCOL', `mutation ${seq}, ${ackedBelow} acknowledged`);
    if (seq < session.forgottenBelow) {
      throw new HoldfastError('PROTOCOL', `mutation ${seq} was acknowledged before`);
    }
    if (ackedBelow > session.forgottenBelow) {
      forget(txn, session, ackedBelow);
      this.dirty.add(session);
    }
    const key = resultKey(session.id, seq);
    const kept = seq <= session.maxSeq ? txn.get(key) : undefined;
    if (kept) return { ...CommandResult.decode(kept), repeated: true };
    if (seq - session.forgottenBelow >= MAX_UNACKED_MUTATIONS) {
      throw new HoldfastError('OVERLOADED', 'too many results are not acknowledged');
    }
    const result = run();
    // CloseSession has removed the session: nothing is left to keep a result for.
    if (!this.sessions.has(session.id) || isRetriable(result)) return result;
    txn.put(key, Buffer.from(CommandResult.encode(result).finish()));
    session.maxSeq = Math.max(session.maxSeq, seq);
    this.dirty.add(session);
    return result;
  }

  /** Writes the sessions that have changed. */
  flush(txn: KvTransaction): void {
    for (const session of this.dirty) txn.put(sessionKey(session.id), encodeSession(session));
    this.dirty.clear();
  }
}

function forget(txn: KvTransaction, session: Session, below: number): void {
  const end = Math.min(below, session.maxSeq + 1);
  for (let seq = session.forgottenBelow; seq < end; seq++) txn.delete(resultKey(session.id, seq));
  session.forgottenBelow = Math.max(session.forgottenBelow, below);
}

function checkText(what: string, text: string, maxBytes: number): void {
  if (Buffer.byteLength(text) > maxBytes)
    throw new HoldfastError('PROTOCOL', `${what} exceeds ${maxBytes} bytes`);
}

function isRetriable(result: CommandResult): boolean {
  return result.error !== 0 && errorFromCode(result.error).retriable;
}
