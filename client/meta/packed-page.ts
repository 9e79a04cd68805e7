import { DirRows } from '../../proto/dir-rows.js';
import type { DirPage, Lease } from '../../proto/gen/meta.js';

/**
 * Turns a page that came as rows into one of entries; another one stays as it is.
 * @returns the leases on what the entries stand for
 * @throws HoldfastError PROTOCOL
 */
export function unpack(page: DirPage): Lease[] {
  const { packed } = page;
  if (!packed) return [];
  const rows = new DirRows(packed.rows);
  page.entries = rows.entries(packed.others);
  page.packed = undefined;
  return rows.leases();
}
