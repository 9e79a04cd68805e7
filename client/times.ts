import { laterTime, type Timespec } from '../common/clock.js';
import type { Time } from '../proto/gen/meta.js';

/** ctime never goes back, whoever set it. */
export function later(one: Timespec | undefined, other: Time | undefined): Time | undefined {
  if (!one || !other) return one ?? other;
  return laterTime(one, other);
}
