/** What servers say of their space; those of one `device` have their stores on one file system. */
export interface DiskReport {
  id: number;
  /** That may still be written here; on a shared file system each says what it would have alone. */
  freeBytes: number;
  /** Empty: not known. */
  device: string;
  /** Free on the whole file system. */
  deviceFreeBytes: number;
  /** Of these promised to later writes to this server: not in its `freeBytes`, but in what all others count. */
  reservedBytes: number;
}

/**
 * The free bytes of each server, such that they can all be had at once: what several servers count that share a file
 * system is divided among them.
 */
export function shareDisks(reports: readonly DiskReport[]): Map<number, number> {
  const free = new Map(reports.map(({ id, freeBytes }) => [id, freeBytes]));
  const devices = new Map<string, DiskReport[]>();
  for (const report of reports) {
    if (report.device === '') continue;
    devices.set(report.device, [...(devices.get(report.device) ?? []), report]);
  }
  for (const sharers of devices.values()) {
    const reserved = sumOf(sharers.map((each) => each.reservedBytes));
    const available = Math.max(0, Math.min(...sharers.map((each) => each.deviceFreeBytes)) - reserved);
    for (const { id, freeBytes, reservedBytes } of sharers)
      free.set(id, Math.max(0, freeBytes - (reserved - reservedBytes)));
    // What a server counts beyond it are dead bytes of its own, which nobody else has counted.
    const counted = sharers.map(({ id }) => Math.min(free.get(id) as number, available));
    const sum = sumOf(counted);
    if (sum <= available) continue;
    sharers.forEach(({ id }, index) => {
      const freeBytes = free.get(id) as number;
      const share = ((counted[index] as number) * available) / sum;
      free.set(id, freeBytes - (counted[index] as number) + share);
    });
  }
  return free;
}

/** What other servers on the same file system have promised to writes to them. */
export function reservedElsewhere(reports: readonly DiskReport[], id: number): number {
  const own = reports.find((each) => each.id === id);
  if (!own || own.device === '') return 0;
  const others = reports.filter((each) => each.device === own.device && each !== own);
  return sumOf(others.map((each) => each.reservedBytes));
}

function sumOf(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
