import { HoldfastError } from '../proto/errors.js';

/**
 * Waits for `promise` unless the caller's request is interrupted first; what was started goes on without it.
 * @throws HoldfastError EINTR when `signal` is or becomes aborted; otherwise what `promise` rejects with
 */
export function interruptible<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(new HoldfastError('EINTR'));
    if (signal.aborted) {
      promise.catch(() => {}); // its outcome is nobody's any more
      onAbort();
      return;
    }
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(
      (value) => {
        signal.removeEventListener('abort', onAbort);
        resolve(value);
      },
      (error: unknown) => {
        signal.removeEventListener('abort', onAbort);
        reject(error as Error);
      },
    );
  });
}

/** @throws HoldfastError EINTR when the caller's request was interrupted */
export function throwIfInterrupted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new HoldfastError('EINTR');
}
