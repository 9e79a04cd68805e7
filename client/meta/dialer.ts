import type { Clock } from '../../common/clock.js';
import { type ClientEnvelope, MetaServiceDefinition, type ServerEnvelope } from '../../proto/gen/meta.js';
import { CallStream, type RpcDialer, tcpChannel } from '../../proto/rpc.js';

export type ClientBody = NonNullable<ClientEnvelope['body']>;

/** One stream to one metaserver. */
export interface MetaConnection {
  /** @throws HoldfastError the server's error, CONNECTION_LOST, DEADLINE_EXCEEDED or OVERLOADED */
  call(body: ClientBody, deadlineMs: number): Promise<ServerEnvelope>;
  /** One-way. */
  push(body: ClientBody): void;
  /** Ends it; `onEnd` is called unless it was already. */
  close(reason: string): void;
}

export interface MetaConnectionEvents {
  onPush(push: ServerEnvelope): void;
  /** Called once, after all pending calls were rejected. */
  onEnd(reason: string): void;
}

/** Opens a stream at once; that nobody listens shows as its end. */
export type MetaDialer = (address: string, events: MetaConnectionEvents) => MetaConnection;

/** Makes the message of a call. */
export type Envelop = (id: number, deadlineMs: number, body: ClientBody) => ClientEnvelope;

const plainEnvelope: Envelop = (id, deadlineMs, body) => ({ id, deadlineMs, body });

/** Dials over TCP, or over what is handed in. */
export function streamDialer(
  clock: Clock,
  dial: RpcDialer = tcpChannel,
  envelop: Envelop = plainEnvelope,
): MetaDialer {
  return (address, events) => {
    const channel = dial(address);
    const stream = channel.openStream(MetaServiceDefinition.fullName, MetaServiceDefinition.methods.connect);
    const calls = new CallStream<ClientEnvelope, ServerEnvelope>(stream, clock, events.onPush, (reason) => {
      channel.close();
      events.onEnd(reason);
    });
    return {
      call: (body, deadlineMs) => calls.call((id) => envelop(id, deadlineMs, body), deadlineMs),
      push: (body) => calls.push((id) => ({ id, deadlineMs: 0, body })),
      close: (reason) => calls.close(reason),
    };
  };
}
