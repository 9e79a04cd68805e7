/**
 * What a call answers: the value itself where nothing has to be waited for, else a promise of it. An error is thrown, or
 * rejects the promise. Most requests of the kernel are answered from what is known here, and the turns of a dozen
 * promises cost as much as the rest of such a request.
 */
export type Answer<T> = T | Promise<T>;

/** Goes on with an answer: at once when it is there. */
export function andThen<A, B>(answer: Answer<A>, next: (value: A) => Answer<B>): Answer<B> {
  return answer instanceof Promise ? answer.then(next) : next(answer);
}

/** Goes on when there is nothing to wait for any more, in the turn in which `blocked` says so: at once when it says so first. */
export function onceFree<T>(blocked: () => Promise<void> | undefined, next: () => T): Answer<T> {
  const wait = blocked();
  return wait ? freed(wait, blocked, next) : next();
}

async function freed<T>(
  first: Promise<void>,
  blocked: () => Promise<void> | undefined,
  next: () => T,
): Promise<T> {
  for (let wait: Promise<void> | undefined = first; wait; wait = blocked()) await wait;
  return next();
}

/** As try and finally: `last` runs behind the call however it ends, and is waited for. */
export function lastly<T>(call: () => Answer<T>, last: () => Answer<void>): Answer<T> {
  let answer: Answer<T>;
  try {
    answer = call();
  } catch (error) {
    return andThen(last(), () => {
      throw error;
    });
  }
  return answer instanceof Promise ? answer.finally(last) : andThen(last(), () => answer);
}

/** As try and catch: `undo` runs behind a call that fails, and is waited for; the error goes on. */
export function undoing<T>(call: () => Answer<T>, undo: () => Answer<void>): Answer<T> {
  const failed = (error: unknown): Answer<never> =>
    andThen(undo(), () => {
      throw error;
    });
  try {
    const answer = call();
    return answer instanceof Promise ? answer.catch(failed) : answer;
  } catch (error) {
    return failed(error);
  }
}
