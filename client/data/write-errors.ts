import { HoldfastError } from '../../proto/errors.js';

/** Which write errors an open file description has reported already. */
export interface ErrorMark {
  seen: number;
}

/**
 * Errors of one file's writes that no call waited for. Every open description reports the newest one once; those that nobody has
 * reported yet are the next description's too, as with errseq_t of Linux: who wrote may have closed the file before it failed.
 */
export class WriteErrors {
  #count = 0;
  /** So many of them are older than what somebody has reported. */
  #told = 0;
  #last: HoldfastError | undefined;

  /** There is one that nobody has reported. */
  get pending(): boolean {
    return this.#told < this.#count;
  }

  add(error: HoldfastError): void {
    this.#count++;
    this.#last = error;
  }

  /** For a new open file description. */
  newMark(): ErrorMark {
    return { seen: this.#told };
  }

  /** The error that this description has not reported yet; it counts as reported now. */
  take(mark: ErrorMark): HoldfastError | undefined {
    if (mark.seen === this.#count) return undefined;
    mark.seen = this.#told = this.#count;
    return this.#last;
  }
}

/** A file that is open is there, unless the session that made it ended before the metaservers had heard of it. */
export function ofOpenFile(error: HoldfastError): HoldfastError {
  return error.errorName === 'ENOENT' ? new HoldfastError('ESTALE', 'the file went with its session') : error;
}
