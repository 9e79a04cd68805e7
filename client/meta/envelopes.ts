import type { Prng } from '../../common/prng.js';
import type { Hello, QuotaAmount } from '../../proto/gen/meta.js';
import { PROTOCOL_VERSION } from '../../proto/types.js';
import type { ClientBody } from './dialer.js';
import type { LockClient } from './locks.js';
import type { OpenFileCounts } from './open-files.js';
import type { PendingChange, PendingRequest } from './request-ledger.js';
import type { SessionOptions } from './session-options.js';

/** The first message on a stream: who this is, and what it holds. */
export function helloOf(
  who: Pick<Hello, 'session' | 'clientUuid' | 'clusterId'>,
  { hostname, mountPoint, place }: SessionOptions,
  opens: OpenFileCounts,
  locks: LockClient,
): ClientBody {
  const value = {
    ...who,
    hostname,
    mountPoint,
    place,
    protocol: PROTOCOL_VERSION,
    openInodes: opens.snapshot(),
    writingInodes: opens.writing(),
    leases: [],
    leasesFollow: who.session !== 0,
    wantsLeases: true,
    locks: locks.announce(),
  };
  return { $case: 'hello', value };
}

/** For the log. */
export function nameOf(change: PendingChange): string {
  return change.kind === 'batch' ? `batch of ${change.changes.length}` : change.op.$case;
}

/** The message of a request, as it is at this attempt. @param ackedBelow every mutation with a smaller number is answered */
export function bodyOf(request: PendingRequest, session: number, ackedBelow: number): ClientBody {
  if (request.kind === 'read') return { $case: 'read', value: { op: request.op } };
  const { seq } = request;
  if (request.kind === 'mutation')
    return {
      $case: 'mutation',
      value: { session, seq, ackedBelow, op: request.op, ...spentOf(request.spent) },
    };
  const mutations = request.changes.map(({ op, time, spent }, at) => ({
    session,
    seq: seq + at,
    ackedBelow,
    op,
    time,
    ...spentOf(spent),
  }));
  return { $case: 'batch', value: { mutations } };
}

function spentOf(amounts: QuotaAmount[] | undefined): { spent?: { amounts: QuotaAmount[] } } {
  return amounts ? { spent: { amounts } } : {};
}

/** 128 bits of chance in the form of a UUID (RFC 9562, version 8). */
export function randomUuid(prng: Prng): string {
  const bytes = Buffer.alloc(16);
  for (let at = 0; at < 16; at += 2) bytes.writeUInt16BE(prng.int(0x10000), at);
  bytes[6] = 0x80 | ((bytes[6] as number) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] as number) & 0x3f);
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
