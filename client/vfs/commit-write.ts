import type { Attr, QuotaAmount, Time } from '../../proto/gen/meta.js';
import { copyOfAttr } from '../attr-copy.js';
import type { CommitApi } from '../data/api.js';
import { attrOf, type MetaApi } from '../meta/api.js';
import { later } from '../times.js';
import type { VfsContext } from './context.js';

/** @param meta asked behind the context's back: what waits in its lane may wait for the data that asks */
export function newCommits(context: () => VfsContext, meta: Pick<MetaApi, 'read'>): CommitApi {
  return {
    commitWrite: (commit, spent, behind) => commitWrite(context(), commit, spent, behind),
    keepsPlace: (ino) => context().lane.keepsPlace(ino),
    dataLanded: (ino) => context().lane.dataLanded(ino),
    attrNow: async (ino) => attrOf(await meta.read({ $case: 'getAttr', value: { ino } })),
  };
}

/** In the lane where the file is leased exclusively, else by request; what comes back is remembered. */
async function commitWrite(
  context: VfsContext,
  commit: Parameters<CommitApi['commitWrite']>[0],
  spent: QuotaAmount[] | undefined,
  behind: boolean | undefined,
): Promise<Attr> {
  const { inodes, lane } = context;
  const { ino } = commit;
  const op = { $case: 'commitWrite' as const, value: { ...commit, killPriv: false } };
  // While a lease is being given back its changes still go ahead of it, in the lane.
  if (!context.owns(ino) && !lane.expects(ino)) {
    return inodes.during([ino], async () => {
      const { result, asOf } = await context.mutate([ino], op, undefined, spent);
      const attr = attrOf(result);
      inodes.learn(attr, inodes.stamp(asOf), true);
      return attr;
    });
  }
  const before = inodes.known(ino);
  // Of what is out of date no more is believed by that.
  const foretold = before && context.owns(ino) && inodes.fresh(ino) ? committed(before, commit) : undefined;
  if (foretold) inodes.setLocal(foretold);
  const attr = attrOf((await lane.push(op, [ino], undefined, spent, behind)).result);
  const known = inodes.known(ino);
  // Not foretold, a commit is not counted in what is known: that its place was ahead of other changes, the lane knows.
  const merged =
    known && (known.change > attr.change || (known.change === attr.change && lane.touches([ino])))
      ? withLaterChanges(attr, known, foretold ?? before, foretold !== undefined)
      : attr;
  if (context.owns(ino)) inodes.setLocal(merged);
  // Given back meanwhile, perhaps not altogether: what was foretold must not be believed any longer.
  else inodes.learn(merged, inodes.stamp(), true);
  return merged;
}

/** What is known of a file, with what a commit says of its times. */
function committed(attr: Attr, { mtime, ctime }: { mtime: Time | undefined; ctime: Time | undefined }): Attr {
  const after = copyOfAttr(attr);
  after.mtime = mtime ?? attr.mtime;
  after.ctime = later(attr.ctime, ctime);
  after.change++;
  return after;
}

/**
 * What a commit answered, below changes of mode, times or names made here since. The answer may tell of some of them, where
 * they went with the same batch, but not of all.
 * @param known with those changes
 * @param before as known when the commit was made, with the times of the commit if they were `foretold`
 */
function withLaterChanges(attr: Attr, known: Attr, before: Attr | undefined, foretold: boolean): Attr {
  const timesSet = known.mtime?.sec !== before?.mtime?.sec || known.mtime?.nsec !== before?.mtime?.nsec;
  const merged = copyOfAttr(known);
  merged.size = attr.size;
  merged.allocated = attr.allocated;
  merged.truncateSeq = attr.truncateSeq;
  merged.truncates = attr.truncates;
  if (!foretold && !timesSet) merged.mtime = attr.mtime;
  merged.ctime = later(known.ctime, attr.ctime);
  return merged;
}
