import { type ClientMachine, simCaller } from '../client.js';

/** A cell of a file: its number, and that inverted. */
export const CELL_BYTES = 8;

export interface OpenedFile {
  ino: number;
  handle: number;
}

/** Writes the number through the file system's caches. */
export async function writeCell(
  { fs }: ClientMachine,
  { ino, handle }: OpenedFile,
  offset: number,
  number: number,
): Promise<void> {
  const data = Buffer.alloc(CELL_BYTES);
  data.writeUInt32LE(number, 0);
  data.writeUInt32LE(~number >>> 0, 4);
  await fs.write(simCaller(), ino, { handle, offset, data, fromCache: false, killPriv: false, flags: 0 });
}

/** The number in the cell; 0 where nothing was written. @throws Error when the cell is neither old nor new */
export async function readCell(
  { fs }: ClientMachine,
  { ino, handle }: OpenedFile,
  offset: number,
): Promise<number> {
  const data = Buffer.alloc(CELL_BYTES);
  Buffer.concat(await fs.read(simCaller(), ino, handle, offset, CELL_BYTES)).copy(data);
  const found = data.readUInt32LE(0);
  if (found !== 0 && data.readUInt32LE(4) !== ~found >>> 0) throw new Error(`a cell of inode ${ino} is torn`);
  return found;
}
