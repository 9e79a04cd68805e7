import { assert } from '../../common/assert.js';
import { type Pg, ReplicaState } from '../../proto/gen/cluster.js';

/** A chunkserver as placement sees it. */
export interface PlacementServer {
  id: number;
  /** Failure domain; an empty one means a domain of its own. */
  domain: string;
}

interface Candidate {
  id: number;
  domain: Domain;
  load: number;
  primaries: number;
  /** How many PGs it shares with each other server. */
  pairs: Map<number, number>;
}

interface Domain {
  members: Candidate[];
  load: number;
}

/**
 * Places the PGs of a new cluster. The first replica of each is its primary.
 *
 * Guarantees: the replicas of a PG lie on distinct servers, and in distinct failure domains as far as there are enough
 * of them; primaries are as even as the replica sets allow (which is within one when the replicas are); replicas of
 * servers in equally large domains differ by at most one. Among equals, servers that share the fewest PGs so far
 * meet, so that the load of a lost server spreads over all others. The result depends on nothing but the input's set.
 *
 * @param replicas copies of each chunk; fewer servers give fewer replicas
 */
export function placePgs(servers: readonly PlacementServer[], pgCount: number, replicas: number): Pg[] {
  assert(servers.length > 0, 'placement needs a server');
  assert(pgCount > 0 && replicas > 0, 'placement needs PGs and replicas');
  assert(new Set(servers.map((server) => server.id)).size === servers.length, 'server ids are distinct');
  const domains = groupByDomain(servers);
  const copies = Math.min(replicas, servers.length);
  const sets: Candidate[][] = [];
  for (let pg = 0; pg < pgCount; pg++) sets.push(chooseReplicas(domains, copies));
  const primaries = choosePrimaries(sets);
  return sets.map((set, id) => {
    const primary = primaries[id] as Candidate;
    const ordered = [primary, ...set.filter((member) => member !== primary)];
    return {
      id,
      epoch: 1,
      interval: 1,
      replicas: ordered.map((member) => ({ server: member.id, state: ReplicaState.REPLICA_IN_SYNC })),
    };
  });
}

function groupByDomain(servers: readonly PlacementServer[]): Domain[] {
  const domains = new Map<string, Domain>();
  for (const { id, domain: name } of [...servers].sort((a, b) => a.id - b.id)) {
    const key = name === '' ? `\0${id}` : name;
    const domain = domains.get(key) ?? { members: [], load: 0 };
    domain.members.push({ id, domain, load: 0, primaries: 0, pairs: new Map() });
    domains.set(key, domain);
  }
  return [...domains.values()];
}

/** One PG's servers: slot by slot the least used domain, therein the least loaded server. */
function chooseReplicas(domains: readonly Domain[], copies: number): Candidate[] {
  const chosen: Candidate[] = [];
  while (chosen.length < copies) {
    let best: { rank: number[]; member: Candidate } | undefined;
    for (const domain of domains) {
      const used = chosen.filter((member) => member.domain === domain).length;
      const member = leastLoaded(domain, chosen);
      if (!member) continue;
      const rank = [used, domain.load / domain.members.length, pairsWith(member, chosen), member.id];
      if (!best || compareRanks(rank, best.rank) < 0) best = { rank, member };
    }
    assert(best, 'there are at least as many servers as copies');
    chosen.push(best.member);
    best.member.load++;
    best.member.domain.load++;
  }
  for (const a of chosen) {
    for (const b of chosen) if (a !== b) a.pairs.set(b.id, (a.pairs.get(b.id) ?? 0) + 1);
  }
  return chosen;
}

function leastLoaded(domain: Domain, chosen: readonly Candidate[]): Candidate | undefined {
  let best: { rank: number[]; member: Candidate } | undefined;
  for (const member of domain.members) {
    if (chosen.includes(member)) continue;
    const rank = [member.load, pairsWith(member, chosen), member.id];
    if (!best || compareRanks(rank, best.rank) < 0) best = { rank, member };
  }
  return best?.member;
}

function pairsWith(member: Candidate, chosen: readonly Candidate[]): number {
  return chosen.reduce((sum, other) => sum + (member.pairs.get(other.id) ?? 0), 0);
}

function compareRanks(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < a.length; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) return difference;
  }
  return 0;
}

/**
 * A primary for each set, as evenly as possible: greedy, then improved along augmenting paths. A path leads from a server
 * with too many primaries over PGs that it leads to another member, and so on, to a server with at least two fewer;
 * when none is left the assignment is the most even one (balanced bipartite matching).
 */
function choosePrimaries(sets: readonly Candidate[][]): Candidate[] {
  const primaries = sets.map((set) => {
    const least = set.reduce((best, member) => (member.primaries < best.primaries ? member : best));
    least.primaries++;
    return least;
  });
  const all = [...new Set(sets.flat())];
  for (let improved = true; improved; ) {
    improved = all.some((from) => shiftPrimary(from, sets, primaries));
  }
  return primaries;
}

/**
 * The most even primaries for PGs whose first replicas lead now; as few as possible change.
 * @param sets servers of each PG
 */
export function levelPrimaries(sets: readonly (readonly number[])[]): number[] {
  const candidates = new Map<number, Candidate>();
  const domain: Domain = { members: [], load: 0 };
  const candidate = (id: number): Candidate => {
    const known = candidates.get(id) ?? { id, domain, load: 0, primaries: 0, pairs: new Map() };
    candidates.set(id, known);
    return known;
  };
  const members = sets.map((set) => set.map(candidate));
  const primaries = members.map((set) => set[0] as Candidate);
  for (const primary of primaries) primary.primaries++;
  const all = [...candidates.values()];
  for (let improved = true; improved; ) improved = all.some((from) => shiftPrimary(from, members, primaries));
  return primaries.map(({ id }) => id);
}

/** Moves one primary away from `from` along a path; false when there is no server to relieve it. */
function shiftPrimary(from: Candidate, sets: readonly Candidate[][], primaries: Candidate[]): boolean {
  const reachedBy = new Map<Candidate, { pg: number; previous: Candidate }>();
  const queue = [from];
  for (let next = queue.shift(); next; next = queue.shift()) {
    if (next.primaries <= from.primaries - 2) {
      from.primaries--;
      next.primaries++;
      for (let at = next; at !== from; ) {
        const step = reachedBy.get(at) as { pg: number; previous: Candidate };
        primaries[step.pg] = at;
        at = step.previous;
      }
      return true;
    }
    for (const [pg, set] of sets.entries()) {
      if (primaries[pg] !== next) continue;
      for (const member of set) {
        if (member === from || reachedBy.has(member)) continue;
        reachedBy.set(member, { pg, previous: next });
        queue.push(member);
      }
    }
  }
  return false;
}
