import { rename, rm } from 'node:fs/promises';
import type { HoldfastError } from '../../proto/errors.js';
import type { Kv } from './kv.js';
import { LmdbKv } from './lmdb-kv.js';
import { storeBytes, type VerifyOptions, verifyStoreFile } from './verify.js';

export type FailureListener = (error: HoldfastError) => void;

/** Stores as files: what is done with one as a whole. */
export interface StoreFiles {
  /**
   * Opens the store in the file, making it when there is none. Only one may have it open.
   * @param onFailure told once when a read finds damage (CORRUPT), or the disk refuses a write (EIO)
   * @throws HoldfastError CORRUPT, or VERSION when its format is not known
   */
  open(file: string, onFailure?: FailureListener): Kv;
  /** Bytes of the file; 0 when there is none. */
  bytes(file: string): Promise<number>;
  /** Reads the whole store and compares it with its checksums. @throws HoldfastError CORRUPT when it is damaged */
  verify(file: string, options?: VerifyOptions): Promise<void>;
  /** Puts the store `from` in the place of `to`, in one step; neither may be open. Durable with the directory's next sync. */
  replace(from: string, to: string): Promise<void>;
  /** Removes what lay beside the file of a store while somebody had it open. */
  tidy(file: string): Promise<void>;
}

export const lmdbFiles: StoreFiles = {
  open: (file, onFailure) => LmdbKv.open(file, { onFailure }),
  bytes: storeBytes,
  verify: verifyStoreFile,
  replace: async (from, to) => {
    await rename(from, to);
    await tidy(to);
  },
  tidy,
};

function tidy(file: string): Promise<void> {
  return rm(`${file}-lock`, { force: true });
}
