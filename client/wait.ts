import { HoldfastError } from '../proto/errors.js';

/**
 * Says that a caller's request was interrupted: the part of an Interrupt that is used here. Every request of the kernel has
 * one, and most are never asked, so the kernel's requests are their own (client/fuse/kernel/call.ts).
 */
export interface Interrupt {
  readonly aborted: boolean;
  /** The listener is called once. */
  addEventListener(type: 'abort', listener: () => void, options: { once: true }): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

/**
 * Waits for `promise` unless the caller's request is interrupted first; what was started goes on without it.
 * @throws HoldfastError EINTR when `signal` is or becomes aborted; otherwise what `promise` rejects with
 */
export function interruptible<T>(promise: Promise<T>, signal: Interrupt | undefined): Promise<T> {
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
export function throwIfInterrupted(signal: Interrupt | undefined): void {
  if (signal?.aborted) throw new HoldfastError('EINTR');
}
