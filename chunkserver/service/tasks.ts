import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { CheckedPage, DiscardRange, PgTask, PgTaskDone } from '../../proto/gen/cluster.js';
import { orderedCall } from './calls.js';
import type { PgHost } from './pg-host.js';

/** Carries out what the metaserver asks of a group's primary; what goes wrong is in the answer. */
export async function runTask(host: PgHost, { task, pg, body }: PgTask, now: number): Promise<PgTaskDone> {
  const answer = (error: number, errorText: string, page?: CheckedPage): PgTaskDone => ({
    task,
    error,
    errorText,
    page,
  });
  try {
    switch (body?.$case) {
      case 'check': {
        const { afterIno, afterChunk, contents, repair } = body.value;
        const after = { ino: afterIno, chunk: afterChunk };
        return answer(0, '', await host.audit.page(pg, { after, contents, repair }));
      }
      case 'discard':
        await discard(host, pg, body.value, now);
        return answer(0, '');
      default:
        throw new HoldfastError('PROTOCOL', 'a task that this server does not know');
    }
  } catch (error) {
    const { code, message } = toHoldfastError(error);
    return answer(code, message);
  }
}

/** @throws HoldfastError EAGAIN when it was written to since the check; else as any request */
function discard(host: PgHost, pg: number, range: DiscardRange, now: number): Promise<void> {
  const { ino, from, chunkSize, versionEpoch, versionSeq } = range;
  if (ino < 1 || chunkSize < 1) throw new HoldfastError('EINVAL', `discard of inode ${ino}`);
  return new Promise((resolve, reject) => {
    const target = { ino, from, truncateSeq: 0, chunkSize };
    const call = orderedCall(from === 0 ? 'delete' : 'discard', target, now, (error) => {
      if (error) reject(error);
      else resolve();
    });
    // Looked at and ordered in one turn: nothing can come between.
    const version = { epoch: versionEpoch, seq: versionSeq };
    if (!host.audit.unchangedSince(pg, ino, Math.floor(from / chunkSize), version)) {
      throw new HoldfastError('EAGAIN', `inode ${ino} was written to since`);
    }
    host.request(pg, call);
  });
}
