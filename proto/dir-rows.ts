import { endianness } from 'node:os';
import { HoldfastError } from './errors.js';
import { type Attr, type DirEntry, type Lease, LeaseMode, type Time } from './gen/meta.js';

/**
 * A page of a directory as rows of fixed length (PackedEntries.rows): what a mount needs of thousands of entries at once is
 * written and read without a message, an integer of variable length or a 64-bit integer object for each. Little-endian:
 *
 *   u32 layout version, u32 number of rows
 *   for each row: ten doubles, then 18 u32 (columns below)
 *   the names, one behind the other
 *
 * A big-endian machine neither asks for such pages nor makes them.
 */
const LAYOUT_VERSION = 1;
const HEADER_BYTES = 8;
const WORD_BYTES = 4;
const NUMBER_BYTES = 8;

/** Whether this machine can read and make packed pages. */
export const CAN_PACK = endianness() === 'LE';

// Columns of a row: integers of up to 53 bits, as doubles.
const INO = 0;
const COOKIE = 1;
/** Number of the lease on the inode. */
const LEASE_SEQ = 2;
const SIZE = 3;
const ALLOCATED = 4;
const CHANGE = 5;
const MTIME_SEC = 6;
const ATIME_SEC = 7;
const CTIME_SEC = 8;
const BIRTH_SEC = 9;
// Words behind them, counted from the begin of the row.
const TYPE = 20;
/** Where the name ends; it begins where that of the row before does. */
const NAME_END = 21;
const LEASE_MODE = 22;
const FLAGS = 23;
const GENERATION = 24;
const MODE = 25;
const NLINK = 26;
const UID = 27;
const GID = 28;
const RDEV = 29;
const CHUNK_SIZE = 30;
const TRUNCATE_SEQ = 31;
const MTIME_NSEC = 32;
const ATIME_NSEC = 33;
const CTIME_NSEC = 34;
const BIRTH_NSEC = 35;
const XATTR_KINDS = 36;
const INODE_FLAGS = 37;
const ROW_WORDS = 38;
const ROW_BYTES = ROW_WORDS * WORD_BYTES;
const ROW_NUMBERS = ROW_BYTES / NUMBER_BYTES;
/** The header in numbers and in words. */
const FIRST_NUMBER = HEADER_BYTES / NUMBER_BYTES;
const FIRST_WORD = HEADER_BYTES / WORD_BYTES;

const HAS_ATTR = 1;
const HAS_XATTRS = 2;
const HAS_BIRTH = 4;

const NAMES_AT_LEAST_BYTES = 4096;
const TYPICAL_NAME_BYTES = 24;
const NO_TRUNCATES: readonly never[] = Object.freeze([]);

/** What a row holds of an inode. */
export type RowAttr = Omit<Attr, 'ino' | 'truncates' | 'project' | 'hasXattrs'>;

/** Makes a page of rows. */
export class DirRowsWriter {
  #numbers: Float64Array;
  #words: Uint32Array;
  #names: Buffer;
  #namesEnd = 0;
  #count = 0;

  /** @param rows how many there will probably be */
  constructor(rows: number) {
    const bytes = new ArrayBuffer(HEADER_BYTES + Math.max(1, rows) * ROW_BYTES);
    this.#numbers = new Float64Array(bytes);
    this.#words = new Uint32Array(bytes);
    this.#names = Buffer.allocUnsafe(Math.max(NAMES_AT_LEAST_BYTES, rows * TYPICAL_NAME_BYTES));
  }

  get count(): number {
    return this.#count;
  }

  ino(row: number): number {
    return this.#numbers[FIRST_NUMBER + row * ROW_NUMBERS + INO] as number;
  }

  /** A further entry, without attributes. @param source holds the name, from `start` to its end */
  add(ino: number, type: number, cookie: number, source: Buffer, start: number): void {
    const row = this.#count++;
    if (HEADER_BYTES + this.#count * ROW_BYTES > this.#numbers.byteLength) this.#grow();
    const number = FIRST_NUMBER + row * ROW_NUMBERS;
    this.#numbers[number + INO] = ino;
    this.#numbers[number + COOKIE] = cookie;
    const length = source.length - start;
    if (this.#namesEnd + length > this.#names.length) {
      const names = Buffer.allocUnsafe(2 * this.#names.length + length);
      this.#names.copy(names, 0, 0, this.#namesEnd);
      this.#names = names;
    }
    source.copy(this.#names, this.#namesEnd, start);
    this.#namesEnd += length;
    const word = FIRST_WORD + row * ROW_WORDS;
    this.#words[word + TYPE] = type;
    this.#words[word + NAME_END] = this.#namesEnd;
  }

  /** Attributes of an entry. */
  setAttr(row: number, attr: RowAttr, hasXattrs: boolean): void {
    const numbers = this.#numbers;
    const words = this.#words;
    const number = FIRST_NUMBER + row * ROW_NUMBERS;
    const word = FIRST_WORD + row * ROW_WORDS;
    const { atime, mtime, ctime, birth } = attr;
    numbers[number + SIZE] = attr.size;
    numbers[number + ALLOCATED] = attr.allocated;
    numbers[number + CHANGE] = attr.change;
    numbers[number + MTIME_SEC] = mtime?.sec ?? 0;
    numbers[number + ATIME_SEC] = atime?.sec ?? 0;
    numbers[number + CTIME_SEC] = ctime?.sec ?? 0;
    numbers[number + BIRTH_SEC] = birth?.sec ?? 0;
    words[word + FLAGS] = HAS_ATTR | (hasXattrs ? HAS_XATTRS : 0) | (birth ? HAS_BIRTH : 0);
    words[word + GENERATION] = attr.generation;
    words[word + MODE] = attr.mode;
    words[word + NLINK] = attr.nlink;
    words[word + UID] = attr.uid;
    words[word + GID] = attr.gid;
    words[word + RDEV] = attr.rdev;
    words[word + CHUNK_SIZE] = attr.chunkSize;
    words[word + TRUNCATE_SEQ] = attr.truncateSeq;
    words[word + MTIME_NSEC] = mtime?.nsec ?? 0;
    words[word + ATIME_NSEC] = atime?.nsec ?? 0;
    words[word + CTIME_NSEC] = ctime?.nsec ?? 0;
    words[word + BIRTH_NSEC] = birth?.nsec ?? 0;
    words[word + XATTR_KINDS] = attr.xattrKinds ?? 0;
    words[word + INODE_FLAGS] = attr.flags ?? 0;
  }

  /** The page. Nothing is to be added any more. */
  finish(): Buffer {
    this.#words[0] = LAYOUT_VERSION;
    this.#words[1] = this.#count;
    const rowsEnd = HEADER_BYTES + this.#count * ROW_BYTES;
    const page = Buffer.from(new ArrayBuffer(rowsEnd + this.#namesEnd));
    page.set(Buffer.from(this.#numbers.buffer, 0, rowsEnd));
    this.#names.copy(page, rowsEnd, 0, this.#namesEnd);
    return page;
  }

  #grow(): void {
    const bytes = new ArrayBuffer(HEADER_BYTES + 2 * this.#count * ROW_BYTES);
    const numbers = new Float64Array(bytes);
    numbers.set(this.#numbers);
    this.#numbers = numbers;
    this.#words = new Uint32Array(bytes);
  }
}

/** A page of rows that has arrived, or that leases are added to. */
export class DirRows {
  readonly #numbers: Float64Array;
  readonly #words: Uint32Array;
  readonly #names: Buffer;
  readonly count: number;

  /**
   * @param page changed in place by what is set; read as it is, or copied where it does not lie as numbers must
   * @throws HoldfastError PROTOCOL when it is no such page
   */
  constructor(page: Buffer) {
    const aligned = page.byteOffset % NUMBER_BYTES === 0 ? page : Buffer.from(new Uint8Array(page).buffer);
    const { buffer, byteOffset, length } = aligned;
    if (length < HEADER_BYTES) throw new HoldfastError('PROTOCOL', `a directory page of ${length} bytes`);
    const [version, count] = [aligned.readUInt32LE(0), aligned.readUInt32LE(WORD_BYTES)];
    const rowsEnd = HEADER_BYTES + count * ROW_BYTES;
    if (version !== LAYOUT_VERSION || rowsEnd > length)
      throw new HoldfastError(
        'PROTOCOL',
        `a directory page of layout ${version}, ${count} rows, ${length} bytes`,
      );
    this.#numbers = new Float64Array(buffer, byteOffset, rowsEnd / NUMBER_BYTES);
    this.#words = new Uint32Array(buffer, byteOffset, rowsEnd / WORD_BYTES);
    this.#names = aligned.subarray(rowsEnd);
    this.count = count;
  }

  ino(row: number): number {
    return this.#numbers[FIRST_NUMBER + row * ROW_NUMBERS + INO] as number;
  }

  hasAttr(row: number): boolean {
    return ((this.#words[FIRST_WORD + row * ROW_WORDS + FLAGS] as number) & HAS_ATTR) !== 0;
  }

  /** The ctime of an entry with attributes, s since 1970. */
  changedAt(row: number): number {
    const nsec = this.#words[FIRST_WORD + row * ROW_WORDS + CTIME_NSEC] as number;
    return (this.#numbers[FIRST_NUMBER + row * ROW_NUMBERS + CTIME_SEC] as number) + nsec / 1e9;
  }

  hideAttr(row: number): void {
    this.#words[FIRST_WORD + row * ROW_WORDS + FLAGS] = 0;
  }

  setLease(row: number, { mode, seq }: Pick<Lease, 'mode' | 'seq'>): void {
    this.#words[FIRST_WORD + row * ROW_WORDS + LEASE_MODE] = mode;
    this.#numbers[FIRST_NUMBER + row * ROW_NUMBERS + LEASE_SEQ] = seq;
  }

  /** The leases that come with the page. */
  leases(): Lease[] {
    const leases: Lease[] = [];
    const numbers = this.#numbers;
    for (let row = 0; row < this.count; row++) {
      const mode = this.#words[FIRST_WORD + row * ROW_WORDS + LEASE_MODE] as LeaseMode;
      if (mode === LeaseMode.LEASE_NONE) continue;
      const at = FIRST_NUMBER + row * ROW_NUMBERS;
      leases.push({ ino: numbers[at + INO] as number, mode, seq: numbers[at + LEASE_SEQ] as number });
    }
    return leases;
  }

  /**
   * @param others attributes that rows do not hold
   * @throws HoldfastError PROTOCOL
   */
  entries(others: readonly Attr[]): DirEntry[] {
    const entries: DirEntry[] = [];
    let nameAt = 0;
    for (let row = 0; row < this.count; row++) {
      const number = FIRST_NUMBER + row * ROW_NUMBERS;
      const word = FIRST_WORD + row * ROW_WORDS;
      const nameEnd = this.#words[word + NAME_END] as number;
      if (nameEnd < nameAt || nameEnd > this.#names.length)
        throw new HoldfastError(
          'PROTOCOL',
          `a name from ${nameAt} to ${nameEnd} of ${this.#names.length} bytes`,
        );
      entries.push({
        name: this.#names.subarray(nameAt, nameEnd),
        ino: this.#numbers[number + INO] as number,
        type: this.#words[word + TYPE] as number,
        cookie: this.#numbers[number + COOKIE] as number,
        attr: this.hasAttr(row) ? this.#attr(number, word) : undefined,
      });
      nameAt = nameEnd;
    }
    if (others.length > 0) {
      const byIno = new Map(others.map((attr) => [attr.ino, attr]));
      for (const entry of entries) if (entry.attr) entry.attr = byIno.get(entry.ino) ?? entry.attr;
    }
    return entries;
  }

  /** Written out in the order of the message, so that attributes from everywhere have one shape. */
  #attr(number: number, word: number): Attr {
    const numbers = this.#numbers;
    const words = this.#words;
    const flags = words[word + FLAGS] as number;
    const mtime = timeOf(numbers, number + MTIME_SEC, words, word + MTIME_NSEC);
    const atime = timeLike(mtime, numbers, number + ATIME_SEC, words, word + ATIME_NSEC);
    const ctime = timeLike(mtime, numbers, number + CTIME_SEC, words, word + CTIME_NSEC);
    return {
      ino: numbers[number + INO] as number,
      generation: words[word + GENERATION] as number,
      mode: words[word + MODE] as number,
      nlink: words[word + NLINK] as number,
      uid: words[word + UID] as number,
      gid: words[word + GID] as number,
      rdev: words[word + RDEV] as number,
      size: numbers[number + SIZE] as number,
      allocated: numbers[number + ALLOCATED] as number,
      atime,
      mtime,
      ctime,
      chunkSize: words[word + CHUNK_SIZE] as number,
      truncateSeq: words[word + TRUNCATE_SEQ] as number,
      truncates: NO_TRUNCATES as never[],
      change: numbers[number + CHANGE] as number,
      project: undefined,
      xattrKinds: words[word + XATTR_KINDS] as number,
      hasXattrs: (flags & HAS_XATTRS) !== 0,
      birth:
        flags & HAS_BIRTH
          ? timeLike(mtime, numbers, number + BIRTH_SEC, words, word + BIRTH_NSEC)
          : undefined,
      flags: words[word + INODE_FLAGS] || undefined,
    } satisfies Record<keyof Attr, unknown>;
  }
}

function timeOf(numbers: Float64Array, sec: number, words: Uint32Array, nsec: number): Time {
  return { sec: numbers[sec] as number, nsec: words[nsec] as number };
}

/** Most files have few distinct times: an equal one is shared. */
function timeLike(like: Time, numbers: Float64Array, sec: number, words: Uint32Array, nsec: number): Time {
  if (numbers[sec] === like.sec && words[nsec] === like.nsec) return like;
  return timeOf(numbers, sec, words, nsec);
}
