import { assert } from '../../../common/assert.js';
import { crc32c } from '../../../common/crc32c.js';
import { RaftEnvelope, type RaftMessage, RaftMessageType } from '../../../proto/gen/raft.js';
import { MessageParser } from '../../../proto/message-stream.js';

const CHANNEL = '/holdfast.RaftService/Channel';

interface SeenEntry {
  hash: number;
  previousTerm: number | undefined;
}

/**
 * The five properties of the Raft paper (figure 3), held against what the servers say on the wire and what their state
 * machines are given. It keeps its own record over all restarts: a server that forgets cannot talk its way out.
 */
export class RaftChecker {
  /** Who was voted for: by voter and term. */
  readonly #votes = new Map<string, number>();
  readonly #leaders = new Map<number, number>();
  /** Log matching: an entry is known by index and term, and with it the one before. */
  readonly #entries = new Map<string, SeenEntry>();
  /** Term of the entry at an index in the log of the leader of a term. */
  readonly #terms = new Map<number, Map<number, number>>();
  /** Last entry of a candidate's log, by candidate and term. */
  readonly #candidates = new Map<string, { index: number; term: number }>();
  /** Disks that are gone: what they have promised is forgotten. */
  readonly #lost = new Set<number>();
  readonly #applied = new Map<number, number>();
  #committed = { index: 0, term: 0 };
  elections = 0;
  votes = 0;
  entriesApplied = 0;

  /** Looks at a message that leaves a server. @throws Error a property does not hold */
  sent(path: string, isClient: boolean, bytes: Buffer): void {
    if (path !== CHANNEL || !isClient) return;
    const parser = new MessageParser((payload) => {
      const { body } = RaftEnvelope.decode(payload);
      if (body?.$case === 'message') this.#message(body.value);
    });
    parser.push(bytes);
  }

  /** The member's disk is gone. */
  lost(member: number): void {
    this.#lost.add(member);
  }

  #message(message: RaftMessage): void {
    const { type, from, to, term } = message;
    assert(!this.#lost.has(from), `member ${from} speaks, and votes, although its disk is lost`);
    switch (type) {
      case RaftMessageType.RAFT_VOTE:
        this.#candidates.set(`${from}/${term}`, { index: message.index, term: message.logTerm });
        break;
      case RaftMessageType.RAFT_VOTE_RESPONSE:
        if (!message.reject) this.#voted(from, to, term);
        break;
      case RaftMessageType.RAFT_APPEND:
        this.#leads(from, term);
        this.#appends(message);
        break;
      case RaftMessageType.RAFT_HEARTBEAT:
        this.#leads(from, term);
        break;
      default:
    }
  }

  #voted(voter: number, candidate: number, term: number): void {
    const key = `${voter}/${term}`;
    const before = this.#votes.get(key);
    assert(
      before === undefined || before === candidate,
      `metaserver ${voter} voted for ${before} and for ${candidate} in term ${term}`,
    );
    if (before === undefined) this.votes++;
    this.#votes.set(key, candidate);
  }

  /** Election safety; leader completeness at the first word of a new leader. */
  #leads(server: number, term: number): void {
    const before = this.#leaders.get(term);
    assert(
      before === undefined || before === server,
      `metaservers ${before} and ${server} lead term ${term}`,
    );
    if (before !== undefined) return;
    this.#leaders.set(term, server);
    this.elections++;
    this.#voted(server, server, term);
    const log = this.#candidates.get(`${server}/${term}`);
    const { index, term: committedTerm } = this.#committed;
    if (!log || term <= committedTerm) return;
    const complete = log.term > committedTerm || (log.term === committedTerm && log.index >= index);
    assert(
      complete,
      `metaserver ${server} leads term ${term} with a log up to ${log.index} of term ${log.term}, ` +
        `but ${index} of term ${committedTerm} was committed`,
    );
  }

  /** Log matching, leader append-only, and what is committed. */
  #appends({ term, index, logTerm, entries, commit }: RaftMessage): void {
    let terms = this.#terms.get(term);
    if (!terms) {
      terms = new Map();
      this.#terms.set(term, terms);
    }
    const place = (at: number, entryTerm: number): void => {
      const before = terms.get(at);
      assert(
        before === undefined || before === entryTerm,
        `the leader of term ${term} replaced its entry ${at} of term ${before} by one of ${entryTerm}`,
      );
      terms.set(at, entryTerm);
    };
    let previousTerm: number | undefined = index === 0 || logTerm > 0 ? logTerm : undefined;
    if (index > 0 && logTerm > 0) place(index, logTerm);
    for (const entry of entries) {
      place(entry.index, entry.term);
      const key = `${entry.index}/${entry.term}`;
      const hash = crc32c(entry.data, entry.type);
      const seen = this.#entries.get(key);
      assert(!seen || seen.hash === hash, `two entries ${entry.index} of term ${entry.term} differ`);
      assert(
        seen?.previousTerm === undefined || previousTerm === undefined || seen.previousTerm === previousTerm,
        `logs agree on entry ${entry.index} of term ${entry.term}, but not on the one before`,
      );
      this.#entries.set(key, { hash, previousTerm: previousTerm ?? seen?.previousTerm });
      previousTerm = entry.term;
    }
    const committedTerm = terms.get(commit);
    if (commit > this.#committed.index && committedTerm !== undefined) {
      this.#committed = { index: commit, term: committedTerm };
    }
  }

  /** State machine safety: a state machine is given a command. @throws Error another one was given another command */
  applied(server: number, index: number, data: Buffer): void {
    const hash = crc32c(data);
    const before = this.#applied.get(index);
    assert(before === undefined || before === hash, `metaserver ${server} applies another command ${index}`);
    if (before === undefined) this.entriesApplied++;
    this.#applied.set(index, hash);
  }
}
