import { unreachable } from '../../common/assert.js';
import type { Mutation, ReadReply, ReadRequest } from '../../proto/gen/meta.js';

/** A name in a directory. */
export interface Place {
  parent: number;
  name: Buffer;
}

/** What a mutation changes, as far as the request tells. */
export interface Footprint {
  /** Inodes that the request names. */
  inos: number[];
  /** Names whose inodes, where there are any, change too. */
  places: Place[];
  /** The inode at the only place is no more than looked at, and if there is one nothing changes. */
  existingOk: boolean;
}

/** Of mutations that are applied together. Undefined: they change nothing that anybody could believe. */
export function footprintOf(ops: readonly NonNullable<Mutation['op']>[]): Footprint | undefined {
  const [first] = ops;
  if (ops.length === 1 && first) return footprintOfOne(first);
  const inos = new Set<number>();
  const places = new Map<string, Place>();
  for (const op of ops) {
    const footprint = footprintOfOne(op);
    for (const ino of footprint?.inos ?? []) inos.add(ino);
    for (const place of footprint?.places ?? []) places.set(nameKey(place), place);
  }
  return inos.size === 0 ? undefined : { inos: [...inos], places: [...places.values()], existingOk: false };
}

function footprintOfOne(op: NonNullable<Mutation['op']>): Footprint | undefined {
  switch (op.$case) {
    case 'makeNode': {
      const { parent, name, existingOk, unnamed } = op.value;
      if (unnamed) return undefined;
      return { inos: [parent], places: [{ parent, name }], existingOk };
    }
    case 'link': {
      const { ino, parent, name } = op.value;
      return { inos: ino === parent ? [ino] : [ino, parent], places: [{ parent, name }], existingOk: false };
    }
    case 'unlink':
    case 'rmdir': {
      const { parent, name } = op.value;
      return { inos: [parent], places: [{ parent, name }], existingOk: false };
    }
    case 'rename': {
      const { parent, name, newParent, newName } = op.value;
      const places = [{ parent, name }];
      if (parent !== newParent || !name.equals(newName)) places.push({ parent: newParent, name: newName });
      return { inos: parent === newParent ? [parent] : [parent, newParent], places, existingOk: false };
    }
    case 'setAttr':
    case 'commitWrite':
    case 'setFlags':
    case 'setXattr':
    case 'removeXattr':
      return { inos: [op.value.ino], places: [], existingOk: false };
    case 'closeSession':
    case 'reserveInodes':
    case 'reserveQuota':
    case 'setAtimes':
      return undefined;
    default:
      return unreachable(op);
  }
}

/** A key for NameOrder. */
export function nameKey({ parent, name }: Place): string {
  return `${parent}/${name.toString('latin1')}`;
}

/** The inode that a read asks about; 0: none in particular. */
export function subjectOf(op: NonNullable<ReadRequest['op']>): number {
  switch (op.$case) {
    case 'lookup':
      return op.value.parent;
    case 'statFs':
      return 0;
    default:
      return op.value.ino;
  }
}

/** Inodes beside the subject that an answer tells about. */
export function toldBy({ result }: ReadReply, subject: number): number[] {
  if (result?.$case === 'attr') return result.value.ino === subject ? [] : [result.value.ino];
  if (result?.$case !== 'dir') return [];
  const told: number[] = [];
  for (const { attr } of result.value.entries) if (attr) told.push(attr.ino);
  return told;
}
