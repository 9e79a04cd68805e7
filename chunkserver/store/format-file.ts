import path from 'node:path';
import { type Disk, diskErrorCode, readWholeFile, replaceFile } from '../../common/disk.js';
import { HoldfastError } from '../../proto/errors.js';
import { STORE_FORMAT_VERSION, STORE_FORMAT_VERSION_MIN } from './records.js';

const FORMAT_FILE = 'format.json';
const PRODUCT = 'holdfast chunk store';

/** Written when a directory becomes a store, joins a cluster, or is opened by a newer program for the first time. */
export interface Format {
  formatVersion: number;
  uuid: string;
  /** Empty until the disk has joined a cluster. */
  clusterId: string;
}

/**
 * Reads the directory's format, or makes it a new store when it is empty. A store of an older version that is known becomes one
 * of the present version, durably: an older program must not meet what only this one understands.
 * @throws HoldfastError VERSION for a format of another version, EINVAL for a directory that is no store
 */
export async function openFormat(disk: Disk, dir: string, newUuid: () => string): Promise<Format> {
  await disk.mkdir(dir);
  const file = path.join(dir, FORMAT_FILE);
  let content: Buffer;
  try {
    content = await readWholeFile(disk, file);
  } catch (error) {
    if (diskErrorCode(error) !== 'ENOENT') throw error;
    const names = await disk.list(dir);
    if (names.includes('log') || names.includes('index')) {
      throw new HoldfastError('EINVAL', `${dir} holds chunk data but no ${FORMAT_FILE}`);
    }
    const format = { formatVersion: STORE_FORMAT_VERSION, uuid: newUuid(), clusterId: '' };
    await writeFormat(disk, dir, format);
    return format;
  }
  const found = parseFormat(file, content.toString());
  if (found.formatVersion === STORE_FORMAT_VERSION) return found;
  const format = { ...found, formatVersion: STORE_FORMAT_VERSION };
  await writeFormat(disk, dir, format);
  return format;
}

function parseFormat(file: string, text: string): Format {
  let parsed: Partial<Format & { product: string }>;
  try {
    parsed = JSON.parse(text) as Partial<Format & { product: string }>;
  } catch {
    throw new HoldfastError('EINVAL', `${file} is damaged: not JSON`);
  }
  const { product, formatVersion, uuid, clusterId } = parsed;
  if (product !== PRODUCT) throw new HoldfastError('EINVAL', `${file} is not of a ${PRODUCT}`);
  if (!isKnown(formatVersion)) {
    throw new HoldfastError(
      'VERSION',
      `${file}: format version ${formatVersion}; this program knows ${STORE_FORMAT_VERSION}`,
    );
  }
  if (typeof uuid !== 'string' || typeof clusterId !== 'string') {
    throw new HoldfastError('EINVAL', `${file} is damaged: uuid or clusterId is missing`);
  }
  return { formatVersion, uuid, clusterId };
}

function isKnown(version: number | undefined): version is number {
  return version !== undefined && version >= STORE_FORMAT_VERSION_MIN && version <= STORE_FORMAT_VERSION;
}

/** Replaces the format file durably. */
export async function writeFormat(disk: Disk, dir: string, format: Format): Promise<void> {
  const text = `${JSON.stringify({ product: PRODUCT, ...format }, null, 2)}\n`;
  await replaceFile(disk, path.join(dir, FORMAT_FILE), Buffer.from(text));
}
