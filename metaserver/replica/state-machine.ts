/** One command of the log, as the state machine sees it. */
export interface Command {
  /** Place in the Raft log; rises by gaps, since not every entry is a command. */
  index: number;
  data: Buffer;
}

/**
 * What the replicated log drives. It is handed every committed command once, in order, and answers each; the same
 * commands must give the same state and results on every server.
 */
export interface StateMachine<Result> {
  /**
   * Applies the commands in one atomic transaction that also stores the last command's index, and answers each of them.
   * A refused command is a result, not a throw: a throw stops the server, for its state could differ from the others'.
   */
  apply(commands: readonly Command[]): Result[];
  /** Index of the last command applied, as this process sees it; 0 when there was none. */
  appliedIndex(): number;
  /** Resolves with an applied index that is durable on disk; the log may be cut behind it. */
  flushed(): Promise<number>;
  /**
   * Writes a consistent copy into the new file `path` and resolves with the applied index inside that copy, which is
   * at least the one at the moment of the call. Commands may be applied meanwhile.
   */
  backup(path: string): Promise<number>;
  /**
   * Replaces the whole state by the copy in the file `path`, atomically (a crash leaves the old or the new one) and
   * durably; the file is used up. Afterwards `appliedIndex()` is the copy's. Nothing else is called meanwhile.
   */
  restore(path: string): Promise<void>;
  /** Set while the disk does not keep up: no further commands are applied until it resolves. */
  behind?(): Promise<void> | undefined;
}
