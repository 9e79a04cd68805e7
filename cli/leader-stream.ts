import { delay, systemClock } from '../common/clock.js';
import { errorFromCode, HoldfastError, toHoldfastError } from '../proto/errors.js';
import { AdminServiceDefinition } from '../proto/gen/admin.js';
import { type MethodInfo, RpcClient, type RpcStream } from '../proto/rpc.js';
import { CliError } from './output.js';

/** How long the leader is looked for. */
const SEARCH_TIMEOUT_MS = 20_000;
const SEARCH_RETRY_MS = 200;
/** Whether a server lives is asked beside a call: one that is paused keeps its connections. So long its answer may take. */
const PING_TIMEOUT_MS = 3_000;
const PING_INTERVAL_MS = 1_000;
/** In a row, of a server that has begun to answer; before that it is left for another one at the first. */
const PINGS_MISSED_MAX = 4;

/** What every answer of a long call to the leader has. */
export interface LeaderReply {
  error: number;
  errorText: string;
  leaderHint: string;
}

/**
 * A long call to the leader, whichever metaserver that is: sends `request` and hands every answer over, until one is
 * the last. Before the first answer a server that does not lead is left for another one.
 * @param onReply returns true for the last answer; may send more on the stream
 * @param pingTimeoutMs how long a server may be silent before another one is asked
 * @throws CliError when no leader is found; HoldfastError what the leader answered, CONNECTION_LOST when it went away
 */
export async function callLeader<Req, Res extends LeaderReply>(
  addresses: readonly string[],
  method: MethodInfo<Req, Res>,
  request: Req,
  onReply: (reply: Res, stream: RpcStream<Req, Res>) => boolean,
  pingTimeoutMs = PING_TIMEOUT_MS,
): Promise<void> {
  const until = systemClock.now() + SEARCH_TIMEOUT_MS;
  const order = [...addresses];
  for (let turn = 0; ; turn++) {
    const address = order[turn % order.length] as string;
    const outcome = await callOne(address, method, request, onReply, pingTimeoutMs);
    if (!outcome.error) return;
    if (outcome.answered || !worthAnother(outcome.error)) throw outcome.error;
    if (systemClock.now() > until) {
      throw new CliError(
        `no metaserver leads (${addresses.join(', ')}; ${outcome.error.message}): is the cluster running?`,
      );
    }
    const hint = outcome.error.leaderHint;
    // The leader need not be among those that were named.
    if (hint && !order.includes(hint)) order.push(hint);
    if (turn % order.length === order.length - 1) await delay(systemClock, SEARCH_RETRY_MS);
  }
}

function worthAnother({ errorName }: HoldfastError): boolean {
  return errorName === 'NOT_LEADER' || errorName === 'UNAVAILABLE' || errorName === 'CONNECTION_LOST';
}

async function callOne<Req, Res extends LeaderReply>(
  address: string,
  method: MethodInfo<Req, Res>,
  request: Req,
  onReply: (reply: Res, stream: RpcStream<Req, Res>) => boolean,
  pingTimeoutMs: number,
): Promise<{ error: HoldfastError | undefined; answered: boolean }> {
  const client = new RpcClient(address);
  let answered = false;
  let over = false;
  try {
    const error = await new Promise<HoldfastError | undefined>((resolve, reject) => {
      const stream = client.openStream(AdminServiceDefinition.fullName, method);
      stream.onMessage((reply) => {
        if (reply.error !== 0) {
          const failure = errorFromCode(reply.error, reply.errorText || undefined);
          if (reply.leaderHint) failure.leaderHint = reply.leaderHint;
          resolve(failure);
          return;
        }
        answered = true;
        try {
          if (!onReply(reply, stream)) return;
          stream.end();
          resolve(undefined);
        } catch (cause) {
          reject(cause);
        }
      });
      const lost = (reason: string): void =>
        resolve(new HoldfastError('CONNECTION_LOST', `${address}: ${reason}`));
      stream.onEnd(lost);
      stream.send(request);
      const missedMax = (): number => (answered ? PINGS_MISSED_MAX : 0);
      void untilSilent(client, { timeoutMs: pingTimeoutMs, missedMax, isOver: () => over }).then(() => {
        if (over) return;
        lost('it does not answer');
        stream.destroy('it does not answer');
      });
    });
    return { error, answered };
  } finally {
    over = true;
    client.close();
  }
}

/** Asks a server for its state again and again. Resolves when more answers in a row than allowed did not come in time. */
async function untilSilent(
  client: RpcClient,
  { timeoutMs, missedMax, isOver }: { timeoutMs: number; missedMax: () => number; isOver: () => boolean },
): Promise<void> {
  const { fullName, methods } = AdminServiceDefinition;
  for (let missed = 0; !isOver() && missed <= missedMax(); ) {
    const silent = await client.unary(fullName, methods.status, {}, timeoutMs).then(
      () => false,
      (error: unknown) => toHoldfastError(error).errorName === 'DEADLINE_EXCEEDED',
    );
    missed = silent ? missed + 1 : 0;
    if (!silent) await delay(systemClock, PING_INTERVAL_MS);
  }
}
