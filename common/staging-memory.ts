/** What one system call moves: through memory of this size, which is used again and again. */
export const STAGING_BYTES = 1024 * 1024;
/** Beyond it, so that STAGING_BYTES at any place fit with the whole blocks in which they begin and end. */
const STAGING_EDGE_BYTES = 2 * 4096;
/** Calls under way in this process at once, for each of its uses; more wait for memory. */
const STAGING_SLOTS = 4;
/** Where malloc(3) places memory: the steps in which its right place is looked for .. */
const BUFFER_ALIGNMENT_BYTES = 16;
/** .. and up to where: whole blocks of O_DIRECT. */
export const DIRECT_BLOCK_BYTES = 4096;

/**
 * Memory at an address that the kernel takes for O_DIRECT: on a boundary that depends on the disk, and a Buffer of Node does not
 * tell where it lies.
 */
export class StagingMemory {
  private free: Buffer[] | undefined;
  private readonly waiting: ((slot: Buffer) => void)[] = [];

  /**
   * Waits for a slot, of at least STAGING_BYTES and whole blocks.
   * @param takes tries one block, until the right place is found: false where it lies wrong
   * @returns undefined: there is no right place @throws what `takes` throws
   */
  async take(takes: (block: Buffer) => Promise<boolean>): Promise<Buffer | undefined> {
    if (!this.free) {
      const found = await findSlots(takes);
      this.free ??= found;
    }
    if (!this.free) return undefined;
    return this.free.pop() ?? new Promise((resolve) => this.waiting.push(resolve));
  }

  give(slot: Buffer): void {
    const next = this.waiting.shift();
    if (next) next(slot);
    else this.free?.push(slot);
  }
}

async function findSlots(takes: (block: Buffer) => Promise<boolean>): Promise<Buffer[] | undefined> {
  const bytes = STAGING_BYTES + STAGING_EDGE_BYTES;
  const memory = Buffer.allocUnsafeSlow(STAGING_SLOTS * bytes + DIRECT_BLOCK_BYTES);
  for (let at = 0; at < DIRECT_BLOCK_BYTES; at += BUFFER_ALIGNMENT_BYTES) {
    if (!(await takes(memory.subarray(at, at + DIRECT_BLOCK_BYTES)))) continue;
    return Array.from({ length: STAGING_SLOTS }, (_, i) =>
      memory.subarray(at + i * bytes, at + (i + 1) * bytes),
    );
  }
  return undefined;
}

/** O_DIRECT is not possible here, rather than failed. */
export function isDirectRefusal(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'EINVAL' || code === 'EOPNOTSUPP';
}
