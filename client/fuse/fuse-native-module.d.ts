/** What of the package fuse-native 2.2.6 is used; it brings no types of its own. */
declare module 'fuse-native' {
  /** Answers the C side: result or negative errno, then values, then the buffer that it lent. */
  export type Signal = (result: number, ...values: unknown[]) => void;

  export interface FuseOptions {
    /** false: requests never time out. */
    timeout?: false | number;
    allowOther?: boolean;
    defaultPermissions?: boolean;
    fsname?: string;
    subtype?: string;
    autoCache?: boolean;
    attrTimeout?: string;
    entryTimeout?: string;
  }

  export default class Fuse {
    constructor(mountPoint: string, operations: object, options?: FuseOptions);
    /** Replaced by a function that does nothing: unmounting is done outside of the package. */
    static unmount: (mountPoint: string, done: (error: Error | null) => void) => void;
    mount(done: (error: Error | null) => void): void;
    unmount(done: (error: Error | null) => void): void;
    /** The option string for libfuse: `-oa,b=c`, or empty. */
    protected _fuseOptions(): string;
    protected _op_getxattr(signal: Signal, path: string, name: string, into: Buffer, position: number): void;
    protected _op_listxattr(signal: Signal, path: string, into: Buffer): void;
  }
}
