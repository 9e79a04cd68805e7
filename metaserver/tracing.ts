import type { Disk } from '../common/disk.js';
import type { EndSpan, Tracer } from '../common/trace.js';
import { tracedDisk } from '../common/traced-disk.js';
import {
  type ClientEnvelope,
  type CommandResult,
  MetaServiceDefinition,
  type ServerEnvelope,
} from '../proto/gen/meta.js';
import type { RpcServices, RpcStream } from '../proto/rpc.js';
import type { StateMachine } from './replica/state-machine.js';
import type { MetaReplica } from './service/ports.js';

type ClientRpc = RpcStream<ServerEnvelope, ClientEnvelope>;

/** Where a command of this server's clients has got to. */
interface Proposed {
  trace: number;
  at: number;
}

/** "read lookup", "mutation rename": what is asked for, without whom or what. */
function nameOf({ body }: ClientEnvelope): string {
  if (body?.$case !== 'read' && body?.$case !== 'mutation') return body?.$case ?? '?';
  return `${body.$case} ${body.value.op?.$case ?? '?'}`;
}

/** Wraps the parts of a metaserver, so that what they do for requests is noted. */
export class MetaTracing {
  readonly #tracer: Tracer;
  /** Commands from their proposal to their application: both are handed the same bytes on the leader. */
  readonly #proposed = new WeakMap<Buffer, Proposed>();

  constructor(tracer: Tracer) {
    this.#tracer = tracer;
  }

  /** The services of an RPC server, with the streams of clients traced. */
  services(server: RpcServices): RpcServices {
    const addStream: RpcServices['addStream'] = (service, method, onStream) => {
      const traces = service === MetaServiceDefinition.fullName;
      server.addStream(service, method, (rpc) =>
        onStream(traces ? (this.#stream(rpc as unknown as ClientRpc) as unknown as typeof rpc) : rpc),
      );
    };
    return { ...server, addUnary: server.addUnary.bind(server), addStream };
  }

  /** Requests of a client, from their arrival to the answer. */
  #stream(rpc: ClientRpc): ClientRpc {
    const tracer = this.#tracer;
    const open = new Map<number, EndSpan>();
    const onMessage: typeof rpc.onMessage = (receiver) =>
      rpc.onMessage((envelope) => {
        tracer.run(envelope.trace || tracer.newTrace(), () => {
          if (envelope.id !== 0) open.set(envelope.id, tracer.begin('metaserver', nameOf(envelope)));
          receiver(envelope);
        });
      });
    const send: typeof rpc.send = (message) => {
      open.get(message.id)?.(message.error === 0 ? undefined : `error ${message.error}`);
      open.delete(message.id);
      rpc.send(message);
    };
    const own: Record<string | symbol, unknown> = { onMessage, send };
    return new Proxy(rpc, {
      get(target, property) {
        const value: unknown = own[property] ?? Reflect.get(target, property, target);
        return typeof value === 'function' && !(property in own) ? value.bind(target) : value;
      },
    });
  }

  /** From the proposal of a command to its application: appended, sent, synced by a majority. */
  replica(replica: MetaReplica): MetaReplica {
    const tracer = this.#tracer;
    const propose = (command: Buffer): Promise<CommandResult> => {
      this.#proposed.set(command, { trace: tracer.current, at: tracer.now() });
      return replica.propose(command);
    };
    return { ...replica, propose };
  }

  /** Application, batch by batch; on the leader it also belongs to each of the requests. */
  stateMachine<Result>(machine: StateMachine<Result>): StateMachine<Result> {
    const tracer = this.#tracer;
    const apply: typeof machine.apply = (commands) => {
      const at = tracer.now();
      const results = machine.apply(commands);
      const us = tracer.now() - at;
      const batch = { stage: 'raft apply', at, us } as const;
      tracer.add({ ...batch, trace: 0, name: 'apply batch', count: commands.length });
      for (const { data } of commands) {
        const proposed = this.#proposed.get(data);
        if (!proposed) continue;
        const { trace } = proposed;
        tracer.add({ trace, stage: 'raft commit', name: 'commit', at: proposed.at, us: at - proposed.at });
        tracer.add({ ...batch, trace, name: 'apply' });
      }
      return results;
    };
    return new Proxy(machine, {
      get(target, property) {
        if (property === 'apply') return apply;
        const value: unknown = Reflect.get(target, property, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  /** The disk under the log. */
  disk(disk: Disk): Disk {
    return tracedDisk(disk, this.#tracer, 'raft log');
  }
}
