/**
 * Milliseconds to wait behind the `failures`-th failure in a row, 1 for the first: `minMs`, twice as long behind each further
 * one, at most `maxMs`. Whoever may fail together with others adds chance to it.
 */
export function backOffMs(failures: number, minMs: number, maxMs: number): number {
  return Math.min(maxMs, minMs * 2 ** (failures - 1));
}
