import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { crc32c } from '../common/crc32c.js';
import { SnapshotBlock } from '../proto/gen/admin.js';
import { CliError } from './output.js';

/**
 * A snapshot in a file: 8 bytes magic with the file's version, then blocks, each u32 length, u32 CRC-32C of the payload, and
 * the payload (a SnapshotBlock). Little-endian. The last block is the end; nothing may follow it.
 */
const MAGIC = Buffer.from('HFSNAP\x00\x01', 'latin1');
const MAGIC_NAME_BYTES = 7;
const HEAD_BYTES = 8;
/** No block is larger: checked before memory is taken. */
const BLOCK_BYTES_MAX = 8 * 1024 * 1024;

/** Writes a new file under a temporary name; it gets its own when everything is on disk. */
export class SnapshotWriter {
  readonly #path: string;
  readonly #file: FileHandle;
  bytes = 0;

  /** @throws CliError when the file exists or cannot be made */
  static async create(path: string): Promise<SnapshotWriter> {
    const existing = await open(path, 'r').catch(() => undefined);
    if (existing) {
      await existing.close();
      throw new CliError(`${path} exists: name another file, or remove it`);
    }
    try {
      const writer = new SnapshotWriter(path, await open(`${path}.part`, 'w', 0o600));
      await writer.#write(MAGIC);
      return writer;
    } catch (error) {
      throw new CliError(`cannot write ${path}: ${(error as Error).message}`);
    }
  }

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  async block(block: SnapshotBlock): Promise<void> {
    const payload = Buffer.from(SnapshotBlock.encode(block).finish());
    const head = Buffer.alloc(HEAD_BYTES);
    head.writeUInt32LE(payload.length, 0);
    head.writeUInt32LE(crc32c(payload), 4);
    await this.#write(head);
    await this.#write(payload);
  }

  async #write(bytes: Buffer): Promise<void> {
    await this.#file.writeFile(bytes);
    this.bytes += bytes.length;
  }

  async finish(): Promise<void> {
    await this.#file.sync();
    await this.#file.close();
    await rename(`${this.#path}.part`, this.#path);
    const directory = await open(dirname(this.#path), 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  }

  async abort(): Promise<void> {
    await this.#file.close().catch(() => undefined);
    await rm(`${this.#path}.part`, { force: true });
  }
}

/**
 * The blocks of a snapshot file, verified one by one.
 * @throws CliError when it is missing, damaged, cut off, or of another version
 */
export async function* readSnapshot(path: string): AsyncGenerator<SnapshotBlock> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    throw new CliError(`cannot read ${path}: ${(error as Error).message}`);
  }
  try {
    await checkMagic(path, file);
    for (let ended = false; !ended; ) {
      const block = await readBlock(path, file);
      ended = block.body?.$case === 'end';
      yield block;
    }
    if ((await readBytes(file, 1)).length > 0) throw damaged(path, 'something follows its end');
  } finally {
    await file.close();
  }
}

async function checkMagic(path: string, file: FileHandle): Promise<void> {
  const magic = await readBytes(file, MAGIC.length);
  if (magic.equals(MAGIC)) return;
  if (
    !magic.subarray(0, MAGIC_NAME_BYTES).equals(MAGIC.subarray(0, MAGIC_NAME_BYTES)) ||
    magic.length < MAGIC.length
  )
    throw new CliError(`${path} is no snapshot of holdfast`);
  const version = magic[MAGIC_NAME_BYTES];
  throw new CliError(
    `${path} is a snapshot of version ${version}, this holdfast knows ${MAGIC[MAGIC_NAME_BYTES]}: use the version that wrote it`,
  );
}

async function readBlock(path: string, file: FileHandle): Promise<SnapshotBlock> {
  const head = await readBytes(file, HEAD_BYTES);
  if (head.length < HEAD_BYTES) throw damaged(path, 'its end is missing');
  const length = head.readUInt32LE(0);
  if (length > BLOCK_BYTES_MAX) throw damaged(path, 'a block has an impossible length');
  const payload = await readBytes(file, length);
  if (payload.length < length) throw damaged(path, 'its end is missing');
  if (crc32c(payload) !== head.readUInt32LE(4)) throw damaged(path, 'a checksum is wrong');
  try {
    return SnapshotBlock.decode(payload);
  } catch {
    throw damaged(path, 'a block cannot be read');
  }
}

async function readBytes(file: FileHandle, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, null);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytes.subarray(0, done);
}

function damaged(path: string, what: string): CliError {
  return new CliError(`${path} is damaged (${what}): use another snapshot`);
}
