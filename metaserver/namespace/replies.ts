import type { MutationReply } from '../../proto/gen/meta.js';
import { attrOf, type Inode } from './inode-codec.js';

/** The reply of an operation that answers with an inode. */
export function attrReply(inode: Inode, created = false): MutationReply {
  return {
    result: { $case: 'attr', value: attrOf(inode) },
    created,
    unlinkedIno: 0,
    unlinkedNlink: 0,
    parents: [],
    leases: [],
    quota: undefined,
    firstIno: undefined,
    cookie: undefined,
  };
}

/** Adds the place that the new name has in its directory. */
export function placedAt(reply: MutationReply, cookie: number): MutationReply {
  reply.cookie = cookie;
  return reply;
}

/** Adds the directories whose names changed: who made the change need not ask for them again. */
export function withParents(reply: MutationReply, ...directories: Inode[]): MutationReply {
  reply.parents = directories.map(attrOf);
  return reply;
}

/** The reply of an operation that took a name off `unlinked`, or off nothing. */
export function okReply(unlinked?: Inode): MutationReply {
  return {
    result: { $case: 'ok', value: {} },
    created: false,
    unlinkedIno: unlinked?.ino ?? 0,
    unlinkedNlink: unlinked?.nlink ?? 0,
    parents: [],
    leases: [],
    quota: undefined,
    firstIno: undefined,
    cookie: undefined,
  };
}
