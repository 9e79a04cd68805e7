/** What servers say of their space; those of one `device` have their stores on one file system. */
export interface DiskReport {
  id: number;
  /** That may still be written here; on a shared file system each says what it would have alone. */
  freeBytes: number;
  /** Empty: not known. */
  device: string;
  /** Free on the whole file system. */
  deviceFreeBytes: number;
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
    const available = Math.min(...sharers.map((each) => each.deviceFreeBytes));
    // What a server counts beyond it are dead bytes of its own, which nobody else has counted.
    const counted = sharers.map((each) => Math.min(each.freeBytes, available));
    const sum = counted.reduce((total, bytes) => total + bytes, 0);
    if (sum <= available) continue;
    sharers.forEach(({ id, freeBytes }, index) => {
      const share = ((counted[index] as number) * available) / sum;
      free.set(id, freeBytes - (counted[index] as number) + share);
    });
  }
  return free;
}
