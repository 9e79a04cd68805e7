import { assert } from '../../../../common/assert.js';
import { confOfEntry } from '../../../../metaserver/raft/confchange.js';
import type { RaftEntry, Ready } from '../../../../metaserver/raft/types.js';
import type { MemoryLog } from '../memory-log.js';

/** What the checker may see of a server. */
export interface Observed {
  id: number;
  role: string;
  term: number;
  log: MemoryLog;
}

function sameEntry(a: RaftEntry, b: RaftEntry): boolean {
  return a === b || (a.term === b.term && a.index === b.index && a.type === b.type && a.data.equals(b.data));
}

/**
 * Holds the five properties of the Raft paper (figure 3) and the linearizability of reads, seen from outside.
 */
export class Checker {
  /** Committed entries by index; a hole is what nobody could show (compacted before it was seen). */
  readonly #committed: RaftEntry[] = [];
  readonly #leaders = new Map<number, number>();
  /** Last index appended by the leader of each term. */
  readonly #appended = new Map<number, number>();
  readonly #reads = new Map<number, number>();
  /** Entries that any server has told to be committed. */
  maxCommitted = 0;
  elections = 0;
  readsAnswered = 0;

  /** Voted for by a server in a term, whatever disk it had: it votes once. */
  readonly #votes = new Map<string, number>();
  /** Members that any configuration ever let vote. */
  readonly #entitled = new Set<number>();

  /** Members of the first configuration vote. */
  founded(voters: readonly number[]): void {
    for (const id of voters) this.#entitled.add(id);
  }

  /** The member `voter`, on the server at `place`, gives its vote of `term` to `candidate`. */
  voted(place: number, voter: number, term: number, candidate: number): void {
    const before = this.#votes.get(`${place}/${term}`);
    assert(
      before === undefined || before === candidate,
      `the server at ${place} votes for ${before} and for ${candidate} in term ${term}`,
    );
    this.#votes.set(`${place}/${term}`, candidate);
    assert(this.#entitled.has(voter), `member ${voter} votes, which no configuration allowed`);
  }

  /** Checks what a server's Ready tells; `server.log` holds its entries already. */
  observe(server: Observed, ready: Ready): void {
    if (ready.softState?.role === 'leader') this.#electionSafety(server);
    for (const entry of ready.entries) {
      const conf = confOfEntry(entry);
      if (conf) this.founded([...conf.voters, ...conf.votersOutgoing]);
    }
    if (server.role === 'leader') this.#leaderAppendOnly(server, ready.entries);
    if (ready.hardState) this.#stateMachineSafety(server, ready.hardState.commit);
    for (const entry of ready.committed) {
      assert(
        sameEntry(this.#committed[entry.index]!, entry),
        `server ${server.id} applies ${entry.index} wrongly`,
      );
    }
    for (const { context, index, failed } of ready.readStates)
      if (!failed) this.#readAnswered(context, index);
  }

  /** A client asks server for a read: whatever was committed anywhere by now must be seen. */
  readInvoked(context: number): void {
    this.#reads.set(context, this.maxCommitted);
  }

  #readAnswered(context: number, index: number): void {
    const floor = this.#reads.get(context);
    assert(floor !== undefined, `read ${context} is answered once`);
    assert(index >= floor, `read ${context} is stale: ${index}, but ${floor} was committed before`);
    this.#reads.delete(context);
    this.readsAnswered++;
  }

  /** Election safety, and leader completeness at the moment of election. */
  #electionSafety(server: Observed): void {
    const other = this.#leaders.get(server.term);
    assert(
      other === undefined || other === server.id,
      `servers ${other} and ${server.id} lead term ${server.term}`,
    );
    if (other === undefined) this.elections++;
    this.#leaders.set(server.term, server.id);
    for (let i = server.log.firstIndex(); i <= this.maxCommitted; i++) {
      const committed = this.#committed[i]!;
      assert(
        committed.term > server.term || server.log.term(i) === committed.term,
        `leader ${server.id} lacks ${i}`,
      );
    }
  }

  #leaderAppendOnly(server: Observed, entries: readonly RaftEntry[]): void {
    for (const { term, index } of entries) {
      if (term !== server.term) continue;
      const last = this.#appended.get(term);
      assert(
        last === undefined || index === last + 1,
        `leader ${server.id} rewrites ${index} in term ${term}`,
      );
      this.#appended.set(term, index);
    }
  }

  #stateMachineSafety(server: Observed, commit: number): void {
    for (let i = commit; i >= server.log.firstIndex(); i--) {
      const entry = server.log.entry(i);
      assert(entry, `server ${server.id} holds what it commits: ${i}`);
      const known = this.#committed[i];
      if (known === entry) break;
      assert(!known || sameEntry(known, entry), `server ${server.id} commits another entry ${i}`);
      this.#committed[i] = entry;
    }
    this.maxCommitted = Math.max(this.maxCommitted, commit);
  }

  /** Log matching: where two logs agree on index and term, they agree on everything before. */
  logMatching(servers: readonly Observed[]): void {
    for (const a of servers) for (const b of servers) if (a.id < b.id) this.#matchPair(a, b);
  }

  #matchPair(a: Observed, b: Observed): void {
    const first = Math.max(a.log.firstIndex(), b.log.firstIndex());
    let i = Math.min(a.log.lastIndex(), b.log.lastIndex());
    while (i >= first && a.log.term(i) !== b.log.term(i)) i--;
    for (; i >= first; i--) {
      const [one, two] = [a.log.entry(i)!, b.log.entry(i)!];
      assert(sameEntry(one, two), `logs of ${a.id} and ${b.id} agree later, but not at ${i}`);
    }
  }
}
