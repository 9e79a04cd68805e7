import type { StatFsReply } from '../../proto/gen/meta.js';
import type { QuotaTable } from './quota-table.js';

/** What df shows within a tree with limits: these in place of the file system's, where they are tighter. */
export function withinQuota(whole: StatFsReply, room: ReturnType<QuotaTable['room']>): StatFsReply {
  const shown = { ...whole };
  if (room.bytes) {
    const { limit, left } = room.bytes;
    shown.totalBytes = Math.min(whole.totalBytes, limit);
    shown.freeBytes = Math.min(whole.freeBytes, left);
    shown.availBytes = Math.min(whole.availBytes, left);
  }
  if (room.inodes) {
    const { limit, left } = room.inodes;
    shown.inodesFree = Math.min(whole.inodesFree, left);
    shown.inodesUsed = limit - left;
  }
  return shown;
}
