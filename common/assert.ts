/** Thrown when an invariant does not hold: a bug, never a condition of the environment. */
export class AssertionError extends Error {
  override name = 'AssertionError';
}

/** Holds an invariant; stays on in production. @throws AssertionError when `condition` is false. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** Marks a branch that the types rule out. @throws AssertionError always. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${JSON.stringify(value)}`);
}
