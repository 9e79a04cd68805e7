import type { Attr } from '../proto/gen/meta.js';

/**
 * A copy that is to be altered. Written out, in the order of the message: V8 copies so many fields by `...` with a call into
 * its runtime once the attributes come in a few shapes, 12 us against one, and a rename needs four copies.
 */
export function copyOfAttr(attr: Attr): Attr {
  return {
    ino: attr.ino,
    generation: attr.generation,
    mode: attr.mode,
    nlink: attr.nlink,
    uid: attr.uid,
    gid: attr.gid,
    rdev: attr.rdev,
    size: attr.size,
    allocated: attr.allocated,
    atime: attr.atime,
    mtime: attr.mtime,
    ctime: attr.ctime,
    chunkSize: attr.chunkSize,
    truncateSeq: attr.truncateSeq,
    truncates: attr.truncates,
    change: attr.change,
    project: attr.project,
    xattrKinds: attr.xattrKinds,
    hasXattrs: attr.hasXattrs,
    birth: attr.birth,
  } satisfies Record<keyof Attr, unknown>;
}
