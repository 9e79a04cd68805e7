import { LeaseCore } from '../../../metaserver/leases/lease-core.js';
import { RaftLog } from '../../../metaserver/raft/log.js';
import type { MetaReplica } from '../../../metaserver/service/ports.js';
import { ClientEnvelope, Command, LeaseMode, LockType, ServerEnvelope } from '../../../proto/gen/meta.js';
import { type RaftMessage, RaftMessageType } from '../../../proto/gen/raft.js';
import { asBuffer } from '../../../proto/message-stream.js';
import { SESSION_TIMES, type SessionTimes } from '../../../proto/types.js';
import type { Cluster } from '../cluster.js';
import type { SimProcess } from '../process.js';
import { cut, hosts, isolateOften, type Mutation, repeatedly } from './mutation.js';
import { messageTap, raftTap, sendMessage } from './wire.js';

const CLIENT_PATH = '/holdfast.MetaService/Connect';
/** Beyond what a session asks in one run, and within what it may have unanswered. */
const FRESH_SEQ = 500;
/** How often a bug strikes that would be found at once if it always did. */
const NOW_AND_THEN = 0.05;
const LEADS_ON_MS = 2_500;
/** With longer leases the next leader waits for the clients of a lost one, and nothing can change meanwhile. */
const BRIEF_LEASES: SessionTimes = { timeoutMs: 3_000, leaseMs: 200, leaseOverMs: 250 };
/** Within what a client believes its leases, and long enough for an election and for others to wait. */
const SILENCE_MS = 5_000;
const LEADER_DOWN_MS = 300;

function encoded(command: Command): Buffer {
  return asBuffer(Command.encode(command).finish());
}

/** Answers an append in the follower's name, as if all of it were on its disk. */
function forgeAppendResponse(message: RaftMessage): RaftMessage {
  const { from: leader, to, term, index, entries, context } = message;
  return {
    ...message,
    type: RaftMessageType.RAFT_APPEND_RESPONSE,
    from: to,
    to: leader,
    term,
    index: entries.at(-1)?.index ?? index,
    logTerm: 0,
    entries: [],
    commit: 0,
    reject: false,
    context,
  };
}

/** A leader that does not ask whether it still is one, and hears late that it is not. */
function leadsOn(port: MetaReplica, { clock }: SimProcess): MetaReplica {
  return {
    ...port,
    canReadNow: () => true,
    onLeadership: (listener) => {
      let over: (() => void) | undefined;
      port.onLeadership((leads) => {
        over?.();
        if (leads) {
          listener(true);
          return;
        }
        over = () => {
          over = undefined;
          listener(false);
        };
        const last = over;
        clock.after(LEADS_ON_MS, () => {
          if (over === last) last();
        });
      });
    },
  };
}

/** A client sees nobody, and the next leader has not heard from it. */
function silenceAtElections(cluster: Cluster): void {
  repeatedly(cluster, SILENCE_MS, () => {
    const { clients, world } = cluster;
    const silent = clients[world.prng.int(clients.length)]?.name as string;
    for (const name of hosts(cluster)) if (name !== silent) cut(cluster, silent, name, SILENCE_MS);
    const leader = cluster.leader();
    leader?.kill();
    world.time.after(LEADER_DOWN_MS, () => leader?.start());
  });
}

/** Bugs in consensus, state machine and sessions. */
export const METASERVER_MUTATIONS: readonly Mutation[] = [
  {
    name: 'meta-skips-fsync',
    text: 'metaservers answer before their log is on disk',
    seeds: 20,
    prepare: ({ metas }) => {
      for (const meta of metas) meta.mood.lies = true;
    },
  },
  {
    name: 'votes-twice',
    favourite: 'kill of all metaservers',
    text: 'a metaserver votes for whoever asks, also a second time in a term',
    first: 31,
    seeds: 80,
    tap: () =>
      raftTap((message) => {
        const refusal = message.type === RaftMessageType.RAFT_VOTE_RESPONSE && message.reject;
        return [refusal ? { ...message, reject: false } : message];
      }),
  },
  {
    name: 'counts-what-it-lacks',
    text: 'a follower confirms entries that it never got',
    seeds: 40,
    tap: (world) => {
      /** Answers in the name of a follower, sent with its next words to the leader. */
      const forged = new Map<string, RaftMessage[]>();
      return raftTap((message) => {
        const waiting = forged.get(`${message.from}>${message.to}`)?.splice(0) ?? [];
        const strikes = message.type === RaftMessageType.RAFT_APPEND && message.entries.length > 0;
        if (!strikes || world.prng.float() >= NOW_AND_THEN) return [...waiting, message];
        const key = `${message.to}>${message.from}`;
        const answers = forged.get(key) ?? [];
        forged.set(key, answers);
        answers.push(forgeAppendResponse(message));
        return waiting;
      });
    },
  },
  {
    name: 'applies-before-majority',
    text: 'a leader takes entries for written by a majority as soon as it has sent them',
    seeds: 40,
    tap: () => {
      const forged = new Map<string, RaftMessage[]>();
      return raftTap((message) => {
        const waiting = forged.get(`${message.from}>${message.to}`)?.splice(0) ?? [];
        if (message.type === RaftMessageType.RAFT_APPEND && message.entries.length > 0) {
          const key = `${message.to}>${message.from}`;
          const answers = forged.get(key) ?? [];
          forged.set(key, answers);
          answers.push(forgeAppendResponse(message));
        }
        return [...waiting, message];
      });
    },
  },
  {
    name: 'reads-after-lease',
    text: 'a leader goes on answering reads when its lease has run out',
    seeds: 20,
    aloneMs: 15_000,
    sessionTimes: BRIEF_LEASES,
    prepare: (cluster) => isolateOften(cluster, () => cluster.leader()),
    hooks: () => ({ wrapReplica: leadsOn }),
  },
  {
    name: 'leads-in-anothers-term',
    text: 'a leader that was deposed goes on under the new term',
    first: 6,
    seeds: 40,
    favourite: 'pause of the leader',
    tap: () => {
      let highest = 0;
      return raftTap((message) => {
        highest = Math.max(highest, message.term);
        const leads = [RaftMessageType.RAFT_APPEND, RaftMessageType.RAFT_HEARTBEAT].includes(message.type);
        return [leads ? { ...message, term: highest } : message];
      });
    },
  },
  {
    name: 'forgets-sessions',
    text: 'a repeated change is made a second time',
    first: 41,
    seeds: 60,
    apply: () => {
      const first = new Map<string, number>();
      return (_server, index, data) => {
        const command = Command.decode(data);
        if (command.body?.$case !== 'mutation') return data;
        const { value } = command.body;
        const key = `${value.session}/${value.seq}`;
        const before = first.get(key) ?? index;
        first.set(key, Math.min(before, index));
        if (before >= index) return data;
        const again = { ...value, seq: value.seq + FRESH_SEQ };
        return encoded({ ...command, body: { $case: 'mutation', value: again } });
      };
    },
  },
  {
    name: 'wiped-server-votes',
    text: 'a metaserver that lost its disk comes back as the member that it was, and votes',
    seeds: 20,
    hooks: () => ({ formatAs: (uuid, former) => former ?? uuid }),
  },
  {
    name: 'skips-seals',
    text: 'a metaserver does not see that its state has changed on its disk',
    seeds: 40,
    favourite: 'flipped bit of a metaserver',
    hooks: () => ({ believesAll: true }),
  },
  {
    name: 'lock-granted-twice',
    text: 'a lock for writing is granted like one for reading',
    seeds: 20,
    tap: () =>
      messageTap(CLIENT_PATH, true, ClientEnvelope, (envelope) => {
        const { body } = envelope;
        const lock = body?.$case === 'lock' ? body.value.lock : undefined;
        if (lock?.type === LockType.LOCK_WRITE) lock.type = LockType.LOCK_READ;
        return [envelope];
      }),
  },
  {
    name: 'recall-not-awaited',
    text: 'a lease counts as given back while its holder still believes it',
    seeds: 20,
    tap: () =>
      messageTap(CLIENT_PATH, false, ServerEnvelope, (envelope, from) => {
        const { body } = envelope;
        if (body?.$case !== 'recall') return [envelope];
        const answer = { id: 0, deadlineMs: 0, body: { $case: 'leaseReturn' as const, value: body.value } };
        sendMessage(from.peer, ClientEnvelope, answer);
        return [];
      }),
  },
  {
    name: 'forgets-announced-leases',
    text: 'a new leader keeps only the last of the messages in which a client announces its leases',
    seeds: 20,
    favourite: 'handover',
    tap: () =>
      messageTap(CLIENT_PATH, true, ClientEnvelope, (envelope) => {
        const { body } = envelope;
        if (body?.$case === 'announce' && !body.value.last) body.value.leases = [];
        return [envelope];
      }),
  },
  {
    name: 'shares-what-was-made',
    text: 'what a client makes by itself, and changes as its own, is leased to it like to anybody',
    seeds: 20,
    plant: () => {
      const { prototype } = LeaseCore;
      const { grantMade } = prototype;
      prototype.grantMade = function (session, ino, now) {
        return this.grant(session, ino, LeaseMode.LEASE_SHARED, now);
      };
      return () => {
        prototype.grantMade = grantMade;
      };
    },
  },
  {
    name: 'lease-given-early',
    text: 'a lease is given to others before its silent holder stops believing it',
    seeds: 20,
    aloneMs: 15_000,
    sessionTimes: { ...SESSION_TIMES, leaseOverMs: 0 },
    prepare: silenceAtElections,
  },
  {
    name: 'keeps-suffix',
    text: 'a follower keeps entries that contradict its leader instead of replacing them',
    first: 4,
    seeds: 20,
    aloneMs: 8_000,
    // A client alone with a lost leader makes it take entries that nobody else has.
    sessionTimes: BRIEF_LEASES,
    prepare: (cluster) => isolateOften(cluster, () => cluster.leader()),
    plant: () => {
      const { prototype } = RaftLog;
      const { firstNew } = prototype;
      prototype.firstNew = function (entries) {
        const last = this.lastIndex();
        return entries.find(({ index }) => index > last)?.index;
      };
      return () => {
        prototype.firstNew = firstNew;
      };
    },
  },
  {
    name: 'own-clock',
    text: 'a state machine takes the time from its own server, not from the log',
    seeds: 3,
    apply: () => (server, _index, data) => {
      const command = Command.decode(data);
      const sec = (command.time?.sec ?? 0) + server;
      return encoded({ ...command, time: { sec, nsec: 0 } });
    },
  },
  {
    name: 'forgets-opens',
    text: 'a client does not tell a new leader which files it holds open',
    first: 450,
    seeds: 80,
    tap: () =>
      messageTap(CLIENT_PATH, true, ClientEnvelope, (envelope) => {
        const { body } = envelope;
        if (body?.$case !== 'hello') return [envelope];
        body.value.openInodes = [];
        return [envelope];
      }),
  },
];
