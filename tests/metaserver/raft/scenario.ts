import { assert } from '../../../common/assert.js';
import type { RaftConfig, RaftMessage } from '../../../metaserver/raft/types.js';
import { RaftMessageType } from '../../../proto/gen/raft.js';
import { confText, entryText, messageText, ScenarioServer } from './scenario-server.js';

const MAX_ROUNDS = 1000;

/**
 * Runs the commands of a scenario file, one a line:
 *
 *   cluster N [key=value ..]    N voters; keys: those of RaftConfig
 *   spare N                     a server that belongs to no configuration yet
 *   show all|effects|roles      what is printed from now on: with messages, without, changes of role only
 *   settle [IDS]                takes Readys and delivers messages until nothing is left (to servers in IDS)
 *   process ID                  takes the Readys of one server; its messages stay on their way
 *   deliver A->B                delivers what is on its way from A to B
 *   drop A->B                   loses what is on its way
 *   cut A->B | cut A-B | heal   from now on messages vanish | none do
 *   advance MS                  time passes, deadlines are met, everything settles
 *   wait MS                     time passes, nothing else happens
 *   break A B | mend A B        A notices that its connection to B broke | stands
 *   hold ID | sync ID           nothing becomes durable | everything is, and from now on
 *   crash ID.. | restart ID..   loses what is not durable
 *   compact ID                  cuts the log behind what is applied
 *   campaign ID | propose ID TEXT.. | read ID CONTEXT | transfer ID TO | lease ID
 *   conf ID voters=.. [learners=..]
 *   status [IDS] | log ID
 */
export class Scenario {
  #nowMs = 0;
  readonly #servers = new Map<number, ScenarioServer>();
  readonly #cut = new Set<string>();
  #network: RaftMessage[] = [];
  #lines: string[] = [];
  #show = 'all';
  #config: Omit<RaftConfig, 'id'> = {
    electionMs: 1000,
    heartbeatMs: 100,
    deferMs: 0,
    patienceMs: 20,
    maxAppendBytes: 1 << 20,
    maxInflightBytes: 1 << 20,
    maxUncommittedBytes: 1 << 20,
  };

  /** Runs one command. @returns what it prints */
  run(line: string): string[] {
    this.#lines = [];
    const [command, ...args] = line.split(/\s+/);
    const run = this.#commands[command!];
    assert(run, `unknown command: ${line}`);
    run(args);
    return this.#lines;
  }

  readonly #commands: Record<string, (args: string[]) => void> = {
    cluster: (args) => this.#cluster(args),
    spare: ([id]) => this.#add(Number(id), []),
    show: ([level]) => {
      this.#show = level!;
    },
    settle: (ids) => this.#settle(ids.length > 0 ? ids.map(Number) : [...this.#servers.keys()]),
    process: ([id]) => void this.#server(id).process(this.#nowMs),
    deliver: ([link]) => this.#deliver((message) => `${message.from}->${message.to}` === link),
    drop: ([link]) => {
      this.#network = this.#network.filter(({ from, to }) => `${from}->${to}` !== link);
    },
    cut: ([link]) => {
      const [a, b] = link!.split(/->?/);
      this.#cut.add(`${a}->${b}`);
      if (!link!.includes('>')) this.#cut.add(`${b}->${a}`);
    },
    heal: () => this.#cut.clear(),
    advance: ([ms]) => this.#advance(Number(ms)),
    wait: ([ms]) => {
      this.#nowMs += Number(ms);
    },
    break: ([id, peer]) => this.#server(id).node.peerUnreachable(Number(peer), this.#nowMs),
    mend: ([id, peer]) => this.#server(id).node.peerReachable(Number(peer), this.#nowMs),
    hold: ([id]) => {
      this.#server(id).diskHeld = true;
    },
    sync: ([id]) => {
      this.#server(id).diskHeld = false;
      this.#server(id).sync(this.#nowMs, true);
    },
    crash: (ids) => {
      for (const id of ids) this.#server(id).crash();
    },
    restart: (ids) => {
      for (const id of ids) this.#server(id).start(this.#nowMs);
    },
    compact: ([id]) => this.#print(`log starts after ${this.#server(id).compact()}`),
    campaign: ([id]) => this.#server(id).node.campaign(this.#nowMs),
    propose: ([id, ...texts]) => {
      const data = texts.map((text) => Buffer.from(text));
      this.#result(this.#server(id).node.propose(data, this.#nowMs));
    },
    read: ([id, context]) => this.#server(id).node.readIndex(Number(context), this.#nowMs),
    lease: ([id]) => this.#print(this.#server(id).node.leaseValid(this.#nowMs) ? 'valid' : 'none'),
    transfer: ([id, to]) => {
      if (!this.#server(id).node.transferLeader(Number(to), this.#nowMs)) this.#print('refused');
    },
    conf: ([id, ...parts]) => {
      const ids = (key: string) => {
        const part = parts.find((p) => p.startsWith(`${key}=`));
        return part
          ? part
              .slice(key.length + 1)
              .split(',')
              .map(Number)
          : [];
      };
      const conf = { voters: ids('voters'), votersOutgoing: [], learners: ids('learners'), roster: [] };
      this.#result(this.#server(id).node.proposeConfChange(conf, this.#nowMs));
    },
    status: (ids) => {
      for (const id of ids.length > 0 ? ids : this.#servers.keys()) this.#status(this.#server(id));
    },
    log: ([id]) => {
      const { log } = this.#server(id);
      const entries = log.entries(log.firstIndex(), log.lastIndex() + 1, Number.MAX_SAFE_INTEGER)!;
      this.#print(entries.map(entryText).join(' '));
    },
  };

  #print(line: string): void {
    this.#lines.push(line);
  }

  #result(result: string | { index: number; term: number }): void {
    this.#print(typeof result === 'string' ? result : `at ${result.term}/${result.index}`);
  }

  #server(id: string | number | undefined): ScenarioServer {
    const server = this.#servers.get(Number(id));
    assert(server, `there is no server ${id}`);
    return server;
  }

  #cluster([count, ...settings]: string[]): void {
    for (const setting of settings) {
      const [key, value] = setting.split('=');
      this.#config = { ...this.#config, [key!]: Number(value) };
    }
    const ids = Array.from({ length: Number(count) }, (_, i) => i + 1);
    for (const id of ids) this.#add(id, ids);
  }

  #add(id: number, voters: number[]): void {
    const conf = { voters, votersOutgoing: [], learners: [], roster: [] };
    const send = (message: RaftMessage) => void this.#network.push(message);
    const server = new ScenarioServer(id, this.#config, conf, send, (kind, text) => {
      if (kind === 'role' || this.#show !== 'roles') this.#print(text);
    });
    this.#servers.set(id, server);
    server.start(this.#nowMs);
  }

  #status({ id, alive, node }: ScenarioServer): void {
    const { role, term, vote, leader, commit, applied, firstIndex, lastIndex, conf, peers } = node.status();
    const logRange = `log ${firstIndex}..${lastIndex} commit=${commit} applied=${applied}`;
    const name = alive ? role : 'crashed';
    this.#print(`${id}: ${name} term=${term} vote=${vote} leader=${leader} ${logRange} ${confText(conf)}`);
    for (const { id: peer, state, match, next, inflightBytes, paused } of peers) {
      const flow = `inflight=${inflightBytes}${paused ? ' paused' : ''}`;
      this.#print(`  ${peer}: ${state} match=${match} next=${next} ${flow}`);
    }
  }

  #deliver(isChosen: (message: RaftMessage) => boolean): boolean {
    const chosen = this.#network.filter(isChosen);
    this.#network = this.#network.filter((message) => !isChosen(message));
    for (const message of chosen) {
      const receiver = this.#servers.get(message.to);
      const isLost = this.#cut.has(`${message.from}->${message.to}`) || !receiver?.alive;
      if (this.#show === 'all') this.#print(`${messageText(message)}${isLost ? ' (lost)' : ''}`);
      if (!isLost) receiver!.node.step(message, this.#nowMs);
      if (message.type !== RaftMessageType.RAFT_SNAPSHOT) continue;
      this.#server(message.from).node.reportSnapshot(message.to, !isLost);
    }
    return chosen.length > 0;
  }

  #settle(ids: number[]): void {
    for (let round = 0; round < MAX_ROUNDS; round++) {
      let isBusy = false;
      for (const id of ids) isBusy = this.#server(id).process(this.#nowMs) || isBusy;
      if (!this.#deliver(({ to }) => ids.includes(to)) && !isBusy) return;
    }
    assert(false, 'the cluster comes to rest');
  }

  #advance(ms: number): void {
    const endMs = this.#nowMs + ms;
    const all = [...this.#servers.keys()];
    this.#settle(all);
    for (;;) {
      const alive = [...this.#servers.values()].filter((server) => server.alive);
      const nextMs = Math.min(...alive.map((server) => server.node.nextDeadlineMs()));
      if (!(nextMs <= endMs)) break;
      this.#nowMs = Math.max(this.#nowMs, nextMs);
      for (const server of alive) server.node.tick(this.#nowMs);
      this.#settle(all);
    }
    this.#nowMs = endMs;
    for (const server of this.#servers.values()) if (server.alive) server.node.tick(endMs);
  }
}
