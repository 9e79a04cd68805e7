import type { KvReader } from '../store/kv.js';

/** Records read between two turns of the event loop. */
export const SCAN_SLICE_RECORDS = 128;

/** What a check is run with: it must not hold up the server that it runs in. */
export interface Pace {
  /** Called between two slices. @throws to end the check */
  pause(): Promise<void>;
}

/** Calls `visit` for each record of [start, end) in order, in slices. The buffers are valid during the call only. */
export async function scan(
  view: KvReader,
  range: { start: Buffer; end: Buffer },
  pace: Pace,
  visit: (key: Buffer, value: Buffer) => void,
): Promise<void> {
  let { start } = range;
  for (;;) {
    let read = 0;
    let last: Buffer | undefined;
    for (const { key, value } of view.range(start, range.end, { limit: SCAN_SLICE_RECORDS })) {
      read++;
      last = key;
      visit(key, value);
    }
    if (read < SCAN_SLICE_RECORDS || !last) return;
    // The least key above: the same with a zero byte behind.
    start = Buffer.concat([last, Buffer.alloc(1)]);
    await pace.pause();
  }
}
