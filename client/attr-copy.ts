import type { Attr, MakeNode } from '../proto/gen/meta.js';

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
    flags: attr.flags,
  } satisfies Record<keyof Attr, unknown>;
}

/** The same of an inode's making, with what is not said of it. */
export function copyOfMaking(node: Pick<MakeNode, 'parent' | 'name' | 'mode'> & Partial<MakeNode>): MakeNode {
  return {
    parent: node.parent,
    name: node.name,
    mode: node.mode,
    uid: node.uid ?? 0,
    gid: node.gid ?? 0,
    rdev: node.rdev ?? 0,
    target: node.target ?? EMPTY,
    existingOk: node.existingOk ?? false,
    open: node.open ?? false,
    unnamed: node.unnamed,
    askedMode: node.askedMode,
    written: node.written,
    set: node.set,
    ino: node.ino,
  } satisfies Record<keyof MakeNode, unknown>;
}

const EMPTY = Buffer.alloc(0);
