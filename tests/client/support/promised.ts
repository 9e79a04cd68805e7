import type { Answer } from '../../../client/answer.js';

/** The same object, with a promise for every answer of a call. */
export type Promised<T> = {
  [Name in keyof T]: T[Name] extends (...args: infer Args) => Answer<infer Result>
    ? (...args: Args) => Promise<Result>
    : T[Name];
};

/** What a call throws rejects its promise. */
export function promised<T extends object>(target: T): Promised<T> {
  return new Proxy(target, {
    get(_target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]): Promise<unknown> => Reflect.apply(value, target, args);
    },
  }) as Promised<T>;
}
