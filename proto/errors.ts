/**
 * One table for every error that crosses a process boundary: code - errno - retriable.
 * POSIX errors use Linux's errno as their code; Holdfast's own start at 1000 and map to an errno for the rare case
 * that one reaches the kernel.
 */
export interface ErrorInfo {
  /** Positive Linux errno that a FUSE reply carries. */
  errno: number;
  /** The same request may succeed later, at this server or at another one. */
  retriable: boolean;
  text: string;
}

const POSIX = {
  EPERM: [1, 'operation not permitted'],
  ENOENT: [2, 'no such file or directory'],
  EINTR: [4, 'interrupted'],
  EIO: [5, 'input/output error'],
  ENXIO: [6, 'no such device or address'],
  E2BIG: [7, 'argument list too long'],
  EBADF: [9, 'bad file descriptor'],
  EAGAIN: [11, 'resource temporarily unavailable'],
  ENOMEM: [12, 'out of memory'],
  EACCES: [13, 'permission denied'],
  EBUSY: [16, 'device or resource busy'],
  EEXIST: [17, 'file exists'],
  EXDEV: [18, 'invalid cross-device link'],
  ENODEV: [19, 'no such device'],
  ENOTDIR: [20, 'not a directory'],
  EISDIR: [21, 'is a directory'],
  EINVAL: [22, 'invalid argument'],
  EFBIG: [27, 'file too large'],
  ENOSPC: [28, 'no space left on device'],
  EROFS: [30, 'read-only file system'],
  EMLINK: [31, 'too many links'],
  ERANGE: [34, 'result too large'],
  EDEADLK: [35, 'deadlock would occur'],
  ENAMETOOLONG: [36, 'file name too long'],
  ENOLCK: [37, 'no locks available'],
  ENOSYS: [38, 'function not implemented'],
  ENOTEMPTY: [39, 'directory not empty'],
  ELOOP: [40, 'too many levels of symbolic links'],
  ENODATA: [61, 'no such attribute'],
  ETIMEDOUT: [110, 'timed out'],
  ESTALE: [116, 'stale file handle'],
  EOPNOTSUPP: [95, 'operation not supported'],
  EDQUOT: [122, 'quota exceeded'],
} as const satisfies Record<string, readonly [number, string]>;

const OWN = {
  NOT_LEADER: [1000, 'this metaserver is not the leader', true],
  UNAVAILABLE: [1001, 'the server cannot answer now', true],
  DEADLINE_EXCEEDED: [1002, 'no answer before the deadline', true],
  STALE_EPOCH: [1003, 'the placement group has moved on: fetch the cluster map', true],
  NOT_PRIMARY: [1004, 'this chunkserver is not the primary', true],
  NOT_ENOUGH_REPLICAS: [1005, 'fewer in-sync replicas than min_in_sync', true],
  NEED_TRUNCATE: [1006, 'a truncate must be applied first', true],
  CONNECTION_LOST: [1007, 'the connection broke before the answer', true],
  SESSION_EXPIRED: [1008, 'the session has expired', false],
  PROTOCOL: [1009, 'malformed or oversized message', false],
  VERSION: [1010, 'protocol version not supported', false],
  WRONG_CLUSTER: [1011, 'server belongs to another cluster', false],
  CORRUPT: [1012, 'checksum mismatch', true],
  OVERLOADED: [1013, 'a bounded queue is full', true],
  CUT: [1014, 'the file was truncated since: write what is left', false],
} as const satisfies Record<string, readonly [number, string, boolean]>;

export type ErrorName = keyof typeof POSIX | keyof typeof OWN;

const EIO_NUMBER = 5;
const ESTALE_NUMBER = 116;
const byCode = new Map<number, ErrorInfo & { name: ErrorName }>();
const codeOf = new Map<ErrorName, number>();
for (const [name, [errno, text]] of Object.entries(POSIX)) {
  byCode.set(errno, { name: name as ErrorName, errno, retriable: false, text });
  codeOf.set(name as ErrorName, errno);
}
for (const [name, [code, text, retriable]] of Object.entries(OWN)) {
  const errno = name === 'SESSION_EXPIRED' ? ESTALE_NUMBER : EIO_NUMBER;
  byCode.set(code, { name: name as ErrorName, errno, retriable, text });
  codeOf.set(name as ErrorName, code);
}

/**
 * What programs are told all day long: a name that is not there is an answer, no fault, and nobody looks where it was made. To
 * note the stack would cost more than the rest of a request.
 */
const ANSWERS: ReadonlySet<ErrorName> = new Set([
  'ENOENT',
  'EEXIST',
  'ENODATA',
  'EOPNOTSUPP',
  'ENOTEMPTY',
  'EAGAIN',
]);

/** An error of the table above, with what it was about. Those that are everyday answers have no stack. */
export class HoldfastError extends Error {
  override name = 'HoldfastError';
  readonly errorName: ErrorName;
  /** The number that travels on the wire. */
  readonly code: number;
  readonly errno: number;
  readonly retriable: boolean;
  /** What it was about, beyond the table's text; may be empty. Travels as the error text. */
  readonly detail: string;
  /** host:port of the leader, with NOT_LEADER where it is known. */
  leaderHint?: string;
  /** The message that carried the error, when its body says more. */
  reply?: unknown;

  constructor(errorName: ErrorName, detail?: string) {
    const code = codeOf.get(errorName) as number;
    const info = byCode.get(code) as ErrorInfo;
    const limit = Error.stackTraceLimit;
    if (ANSWERS.has(errorName)) Error.stackTraceLimit = 0;
    super(detail ? `${info.text}: ${detail}` : info.text);
    Error.stackTraceLimit = limit;
    this.errorName = errorName;
    this.detail = detail ?? '';
    this.code = code;
    this.errno = info.errno;
    this.retriable = info.retriable;
  }
}

/** The error for a wire code; an unknown code becomes EIO, with the number in its text. */
export function errorFromCode(code: number, detail?: string): HoldfastError {
  const info = byCode.get(code);
  if (!info) return new HoldfastError('EIO', `unknown error code ${code}${detail ? `: ${detail}` : ''}`);
  return new HoldfastError(info.name, detail);
}

/** The wire code of a name. */
export function errorCode(name: ErrorName): number {
  return codeOf.get(name) as number;
}

/** Any thrown value as a HoldfastError; what is not one becomes EIO. */
export function toHoldfastError(error: unknown): HoldfastError {
  if (error instanceof HoldfastError) return error;
  return new HoldfastError('EIO', error instanceof Error ? error.message : String(error));
}
