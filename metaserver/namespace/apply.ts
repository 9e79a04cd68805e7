import { unreachable } from '../../common/assert.js';
import { HoldfastError } from '../../proto/errors.js';
import { Command, type CommandResult, type Mutation, type MutationReply } from '../../proto/gen/meta.js';
import type { Batch } from './batch.js';
import type { ClusterState } from './cluster-state.js';
import { commitWrite, setAttr } from './files.js';
import { reclaimDone } from './reclaim.js';
import { rename } from './rename.js';
import type { SessionTable } from './sessions.js';
import { link, makeNode, okReply, rmdir, unlink } from './tree.js';
import { removeXattr, setXattr } from './xattr.js';

/** What commands work on, beside the batch. */
export interface ApplyContext {
  batch: Batch;
  sessions: SessionTable;
  cluster: ClusterState;
}

type CommandBody = NonNullable<Command['body']>;
type MutationOp = NonNullable<Mutation['op']>;

/** Applies one entry of the log. A refusal is a result; only a bug or a failing store throws. */
export function applyEntry(context: ApplyContext, data: Buffer): CommandResult {
  if (data.length === 0) return success();
  let command: Command;
  try {
    command = Command.decode(data);
  } catch {
    return refusal(new HoldfastError('PROTOCOL', 'undecodable command'));
  }
  context.batch.time = command.time ?? { sec: 0, nsec: 0 };
  return command.body ? refusing(() => applyBody(context, command.body as CommandBody)) : success();
}

function applyBody(context: ApplyContext, body: CommandBody): CommandResult {
  const { batch, sessions, cluster } = context;
  switch (body.$case) {
    case 'mutation':
      return applyMutation(context, body.value);
    case 'openSession':
      cluster.require();
      return success({ session: sessions.open(batch.txn, batch.counters, body.value) });
    case 'expireSession':
      sessions.close(batch.txn, body.value.session);
      return success();
    case 'reclaimDone':
      reclaimDone(batch, body.value);
      return success();
    case 'sessionFenced':
    case 'noop':
      return success();
    case 'initCluster':
      return success({ mapChanged: cluster.initialise(batch, body.value) });
    case 'putChunkServer':
    case 'serverDown':
    case 'replicaDrop':
    case 'replicaInSync':
    case 'createPgs':
      return success({ mapChanged: cluster.change(batch, body) });
    default:
      return unreachable(body);
  }
}

function applyMutation(context: ApplyContext, mutation: Mutation): CommandResult {
  const { batch, sessions } = context;
  const { op } = mutation;
  if (!op) throw new HoldfastError('PROTOCOL', 'mutation without an operation');
  return sessions.once(batch.txn, mutation, () =>
    refusing(() => {
      if (op.$case !== 'closeSession') return success({ mutation: mutate(batch, op) });
      sessions.close(batch.txn, mutation.session);
      return success({ mutation: okReply() });
    }),
  );
}

function mutate(batch: Batch, op: Exclude<MutationOp, { $case: 'closeSession' }>): MutationReply {
  switch (op.$case) {
    case 'makeNode':
      return makeNode(batch, op.value);
    case 'link':
      return link(batch, op.value);
    case 'unlink':
      return unlink(batch, op.value);
    case 'rmdir':
      return rmdir(batch, op.value);
    case 'rename':
      return rename(batch, op.value);
    case 'setAttr':
      return setAttr(batch, op.value);
    case 'commitWrite':
      return commitWrite(batch, op.value);
    case 'setXattr':
      return setXattr(batch, op.value);
    case 'removeXattr':
      return removeXattr(batch, op.value);
    default:
      return unreachable(op);
  }
}

function refusing(run: () => CommandResult): CommandResult {
  try {
    return run();
  } catch (error) {
    if (error instanceof HoldfastError) return refusal(error);
    throw error;
  }
}

function success(result: Partial<CommandResult> = {}): CommandResult {
  return { error: 0, errorText: '', mutation: undefined, session: 0, mapChanged: false, ...result };
}

/** The text is what the error says beyond its code. */
function refusal(error: HoldfastError): CommandResult {
  return { error: error.code, errorText: error.detail, mutation: undefined, session: 0, mapChanged: false };
}
