import { randomBytes } from 'node:crypto';

/** A source of chance that is handed in: seeded in tests and simulation, seeded from the system in servers. */
export interface Prng {
  /** A number in [0, 1). */
  float(): number;
  /** An integer in [0, below). */
  int(below: number): number;
}

/**
 * sfc32 (PractRand, Chris Doty-Humphrey): small, fast, passes BigCrush; not for secrets.
 * @param seed any integer; equal seeds give equal sequences
 */
export function createPrng(seed: number): Prng {
  let a = 0x9e3779b9 | 0;
  let b = Math.trunc(seed / 0x1_0000_0000) | 0;
  let c = seed | 0;
  let counter = 1;
  const next = (): number => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return t >>> 0;
  };
  for (let i = 0; i < 12; i++) next();
  return {
    float: () => next() / 0x1_0000_0000,
    int: (below) => Math.floor((next() / 0x1_0000_0000) * below),
  };
}

/** A generator seeded by the operating system. */
export function systemPrng(): Prng {
  return createPrng(randomBytes(6).readUIntLE(0, 6));
}
