import { readFileSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import type { Disk } from '../common/disk.js';
import { LogCorruptError } from '../common/segment-log.js';
import { HoldfastError } from '../proto/errors.js';
import { ReplicaDamagedError, readFormat } from './replica/format.js';

/** Damaged data is kept here, as evidence: the last one only. */
export const DAMAGED_DIR = 'damaged';
const NOTE_FILE = 'damage.json';
/** What stays in the data directory. */
const STAYS: ReadonlySet<string> = new Set(['lock', 'lost+found', NOTE_FILE, DAMAGED_DIR]);

export interface DamageNote {
  reason: string;
  /** ISO 8601. */
  time: string;
}

/** Whether an error says that what lies on the disk is not what was written there. */
export function isDamage(error: unknown): boolean {
  if (error instanceof LogCorruptError || error instanceof ReplicaDamagedError) return true;
  return error instanceof HoldfastError && error.errorName === 'CORRUPT';
}

/** Notes, before anything else happens, that the directory's data must not be served: also a crash does not forget it. */
export function noteDamage(dir: string, note: DamageNote): void {
  writeFileSync(path.join(dir, NOTE_FILE), `${JSON.stringify(note)}\n`, { flush: true });
}

/** The damage that was noted and is not yet set aside. */
export function notedDamage(dir: string): DamageNote | undefined {
  return readNote(path.join(dir, NOTE_FILE));
}

/** The damage whose data is kept. */
export function keptDamage(dir: string): DamageNote | undefined {
  return readNote(path.join(dir, DAMAGED_DIR, NOTE_FILE));
}

/**
 * Whether the data that was set aside was to found a cluster and had nothing in its log: it promised nothing to anybody. A first
 * start that was cut short, by a full disk for instance, leaves half a store.
 */
export async function keptIsUnused(disk: Disk, dir: string): Promise<boolean> {
  const format = await readFormat(disk, path.join(dir, DAMAGED_DIR)).catch(() => undefined);
  return format?.mayFound === true && !format.begun && format.conf === null;
}

function readNote(file: string): DamageNote | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const { reason, time } = JSON.parse(text) as DamageNote;
    return { reason: String(reason), time: String(time) };
  } catch {
    return { reason: 'unknown (the note was cut off)', time: '' };
  }
}

/**
 * Moves the damaged data into DAMAGED_DIR, in place of what was kept there before. Begun by noteDamage(); after a crash at any
 * moment it can be repeated: the note goes last, with the evidence.
 */
export async function setAside(disk: Disk, dir: string): Promise<string> {
  const kept = path.join(dir, DAMAGED_DIR);
  const names = (await readdir(dir)).filter((name) => !STAYS.has(name) && !name.startsWith('lock.'));
  // Nothing left to move: a crash came between the last move and the note's.
  if (names.length > 0 && (await isComplete(kept))) await rm(kept, { recursive: true });
  await mkdir(kept, { recursive: true, mode: 0o700 });
  for (const name of names) await rename(path.join(dir, name), path.join(kept, name));
  await disk.syncDir(kept);
  await rename(path.join(dir, NOTE_FILE), path.join(kept, NOTE_FILE));
  await disk.syncDir(kept);
  await disk.syncDir(dir);
  return kept;
}

/** Evidence of an earlier damage has its note; without one it is that of the present damage, half moved. */
async function isComplete(kept: string): Promise<boolean> {
  const names = await readdir(kept).catch((): string[] => []);
  return names.includes(NOTE_FILE);
}
