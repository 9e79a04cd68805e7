import { crc32c } from '../../common/crc32c.js';

const SLOTS_MIN = 1024;
/** Slots that are not taken yet, of each four: probes stay short. */
const FREE_OF_FOUR = 2;
/** Stands for a checksum of 0, which marks a free slot. */
const INSTEAD_OF_ZERO = 1;

/**
 * Which names a directory may have: the checksums of all that it has, in an open-addressing table of 32 bits each. A name
 * whose checksum is missing is not there; of two million names one in 2,000 absent ones is taken for one that may be. What
 * was added stays: a name that is gone may still be there, as far as this tells.
 */
export class NameFilter {
  #slots = new Uint32Array(SLOTS_MIN);
  #taken = 0;

  /** Different checksums. */
  get size(): number {
    return this.#taken;
  }

  add(name: Buffer): void {
    if (this.#taken * 4 >= this.#slots.length * FREE_OF_FOUR) this.#grow();
    this.#put(checksum(name));
  }

  mayHave(name: Buffer): boolean {
    const sum = checksum(name);
    return this.#slots[this.#slotOf(sum)] === sum;
  }

  #put(sum: number): void {
    const slot = this.#slotOf(sum);
    if (this.#slots[slot] === sum) return;
    this.#slots[slot] = sum;
    this.#taken++;
  }

  /** Where the checksum is, or the free slot that it would take. */
  #slotOf(sum: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let slot = sum & mask;
    while (slots[slot] !== 0 && slots[slot] !== sum) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    const before = this.#slots;
    this.#slots = new Uint32Array(2 * before.length);
    this.#taken = 0;
    for (const sum of before) if (sum !== 0) this.#put(sum);
  }
}

function checksum(name: Buffer): number {
  return crc32c(name) || INSTEAD_OF_ZERO;
}
