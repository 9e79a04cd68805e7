/** Values by (pg, ino, sub); enumerable by group and by inode. */
export class Overlay<V> {
  private readonly groups = new Map<number, Map<number, Map<number, V>>>();
  /** Entries in all. */
  size = 0;

  get(pg: number, ino: number, sub: number): V | undefined {
    return this.groups.get(pg)?.get(ino)?.get(sub);
  }

  set(pg: number, ino: number, sub: number, value: V): void {
    let inodes = this.groups.get(pg);
    if (!inodes) {
      inodes = new Map();
      this.groups.set(pg, inodes);
    }
    let subs = inodes.get(ino);
    if (!subs) {
      subs = new Map();
      inodes.set(ino, subs);
    }
    if (!subs.has(sub)) this.size++;
    subs.set(sub, value);
  }

  /** All entries of the group with (ino, sub) in [from, to], ascending. */
  sorted(pg: number, from: OverlayKey, to: OverlayKey): OverlayEntry<V>[] {
    const inodes = this.groups.get(pg);
    if (!inodes) return [];
    const found: OverlayEntry<V>[] = [];
    const collect = (ino: number, subs: Map<number, V>): void => {
      for (const [sub, value] of subs) {
        const entry = { ino, sub, value };
        if (compareKeys(entry, from) >= 0 && compareKeys(entry, to) <= 0) found.push(entry);
      }
    };
    const single = from.ino === to.ino ? inodes.get(from.ino) : undefined;
    if (from.ino === to.ino) {
      if (single) collect(from.ino, single);
    } else {
      for (const [ino, subs] of inodes) if (ino >= from.ino && ino <= to.ino) collect(ino, subs);
    }
    return found.sort(compareKeys);
  }

  *entries(): Iterable<OverlayEntry<V> & { pg: number }> {
    for (const [pg, inodes] of this.groups) {
      for (const [ino, subs] of inodes) for (const [sub, value] of subs) yield { pg, ino, sub, value };
    }
  }
}

export interface OverlayKey {
  ino: number;
  sub: number;
}

export interface OverlayEntry<V> extends OverlayKey {
  value: V;
}

export function compareKeys(a: OverlayKey, b: OverlayKey): number {
  return a.ino - b.ino || a.sub - b.sub;
}
