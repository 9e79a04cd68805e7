import { unreachable } from '../../common/assert.js';
import { HoldfastError } from '../../proto/errors.js';
import {
  Command,
  type CommandResult,
  type Mutation,
  type MutationBatch,
  type MutationReply,
} from '../../proto/gen/meta.js';
import type { Batch } from './batch.js';
import type { ClusterState } from './cluster-state.js';
import { checkTime, commitWrite, setAtimes, setAttr } from './files.js';
import { setFlags } from './flags.js';
import { changeQuota, reserveQuota, spend, stepQuota } from './quota-commands.js';
import { reclaimDone } from './reclaim.js';
import { rename } from './rename.js';
import { repairRecords } from './repair.js';
import { okReply } from './replies.js';
import { dropReserved, reserveInodes } from './reserved.js';
import { restoreRecords } from './restore.js';
import type { SessionTable } from './sessions.js';
import { link, makeNode, rmdir, unlink } from './tree.js';
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
  const { body } = command;
  const result = body ? refusing(() => applyBody(context, body)) : success();
  context.batch.chargeQuotas();
  return result;
}

function applyBody(context: ApplyContext, body: CommandBody): CommandResult {
  const { batch, sessions, cluster } = context;
  switch (body.$case) {
    case 'mutation':
      return applyMutation(context, body.value);
    case 'batch':
      return applyBatch(context, body.value);
    case 'openSession':
      cluster.require();
      return success({ session: sessions.open(batch.txn, batch.counters, body.value) });
    case 'expireSession':
      sessions.expire(batch.txn, body.value.session);
      dropReserved(batch.txn, body.value.session);
      batch.quotas.reservations.dropSession(body.value.session);
      return success();
    case 'changeQuota':
      cluster.require();
      return success({ quota: changeQuota(batch, body.value) });
    case 'stepQuota':
      return success({ quota: stepQuota(batch, body.value) });
    case 'reclaimDone':
      reclaimDone(batch, body.value);
      for (const other of body.value.also?.items ?? []) reclaimDone(batch, other);
      return success();
    case 'repairRecords':
      repairRecords(batch, body.value);
      return success();
    case 'restoreRecords':
      return success({ mapChanged: restoreRecords(batch, cluster, body.value) });
    case 'sessionFenced':
      sessions.fenced(batch.txn, body.value.session);
      return success();
    case 'noop':
      return success();
    case 'initCluster':
      return success({ mapChanged: cluster.initialise(batch, body.value) });
    case 'putChunkServer':
    case 'serverDown':
    case 'replicaDrop':
    case 'replicaInSync':
    case 'createPgs':
    case 'drainChunkServer':
    case 'replicaAdd':
    case 'replicaRemove':
    case 'replicaFirst':
    case 'removeChunkServer':
    case 'acceptLoss':
      return success({ mapChanged: cluster.change(batch, body) });
    default:
      return unreachable(body);
  }
}

/** One after the other: a refusal of one does not keep the others from running. */
function applyBatch(context: ApplyContext, { mutations }: MutationBatch): CommandResult {
  const { batch } = context;
  const { time } = batch;
  const results = mutations.map((mutation) => {
    batch.time = time;
    const result = refusing(() => applyMutation(context, mutation));
    batch.chargeQuotas();
    return result;
  });
  return success({ batch: { results } });
}

function applyMutation(context: ApplyContext, mutation: Mutation): CommandResult {
  const { batch, sessions } = context;
  const { op } = mutation;
  if (mutation.time) {
    checkTime(mutation.time);
    batch.time = mutation.time;
  }
  if (!op) throw new HoldfastError('PROTOCOL', 'mutation without an operation');
  return sessions.once(batch.txn, mutation, () =>
    refusing(() => {
      batch.acknowledged = mutation.time !== undefined;
      if (op.$case !== 'closeSession') {
        const reply = spending(batch, mutation, () => mutate(batch, op, mutation.session));
        // Who has made the change already knows what became of the directories.
        if (mutation.time) reply.parents = [];
        return success({ mutation: reply });
      }
      sessions.close(batch.txn, mutation.session);
      dropReserved(batch.txn, mutation.session);
      batch.quotas.reservations.dropSession(mutation.session);
      return success({ mutation: okReply() });
    }),
  );
}

/** A refusal that is final ends the reservations too: the client has taken them off its own count. */
function spending(batch: Batch, { session, spent }: Mutation, run: () => MutationReply): MutationReply {
  if (!spent) return run();
  const undo = spend(batch, session, spent.amounts);
  try {
    return run();
  } catch (error) {
    if (error instanceof HoldfastError && error.retriable) undo();
    throw error;
  }
}

function mutate(
  batch: Batch,
  op: Exclude<MutationOp, { $case: 'closeSession' }>,
  session: number,
): MutationReply {
  switch (op.$case) {
    case 'makeNode':
      return makeNode(batch, op.value, session);
    case 'reserveInodes':
      return reserveInodes(batch, session, op.value);
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
    case 'setAtimes':
      return setAtimes(batch, op.value);
    case 'setFlags':
      return setFlags(batch, op.value);
    case 'reserveQuota':
      return reserveQuota(batch, session, op.value);
    default:
      return unreachable(op);
  }
}

/** Damage is of one server alone: as a result it would make its state another one than that of the rest. */
function refusing(run: () => CommandResult): CommandResult {
  try {
    return run();
  } catch (error) {
    if (error instanceof HoldfastError && error.errorName !== 'CORRUPT') return refusal(error);
    throw error;
  }
}

/** Not joined by `...`: that costs V8 more than most changes do. */
function success(
  result: Partial<Omit<CommandResult, 'error' | 'errorText' | 'repeated'>> = {},
): CommandResult {
  const succeeded = outcome(0, '');
  if (result.mutation) succeeded.mutation = result.mutation;
  if (result.session !== undefined) succeeded.session = result.session;
  if (result.mapChanged) succeeded.mapChanged = true;
  if (result.quota) succeeded.quota = result.quota;
  if (result.batch) succeeded.batch = result.batch;
  return succeeded;
}

/** The text is what the error says beyond its code. */
function refusal(error: HoldfastError): CommandResult {
  return outcome(error.code, error.detail);
}

/** Every field is there, as in a decoded message. */
function outcome(error: number, errorText: string): CommandResult {
  return {
    error,
    errorText,
    mutation: undefined,
    session: 0,
    mapChanged: false,
    repeated: undefined,
    quota: undefined,
    batch: undefined,
  };
}
