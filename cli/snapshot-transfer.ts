import { deferred } from '../common/deferred.js';
import {
  AdminServiceDefinition,
  type RestoreReply,
  type RestoreRequest,
  type SaveReply,
  type SaveRequest,
  type SnapshotHeader,
} from '../proto/gen/admin.js';
import type { RpcStream } from '../proto/rpc.js';
import { callLeader } from './leader-stream.js';
import { CliError } from './output.js';
import { readSnapshot, SnapshotWriter } from './snapshot-file.js';

/** Blocks sent and not taken yet: each is a command in the log. */
const BLOCKS_AHEAD_MAX = 4;

export interface SavedSnapshot {
  header: SnapshotHeader;
  records: number;
  bytes: number;
}

/** Saves the metadata of a running cluster into a new file. @throws CliError, HoldfastError; no file is left then */
export async function saveSnapshot(
  addresses: readonly string[],
  path: string,
  progress: (records: number) => void,
): Promise<SavedSnapshot> {
  const writer = await SnapshotWriter.create(path);
  try {
    let header: SnapshotHeader | undefined;
    let records = 0;
    let taken = 0;
    let writing: Promise<void> = Promise.resolve();
    let failure: unknown;
    const take = ({ block }: SaveReply, stream: RpcStream<SaveRequest, SaveReply>): boolean => {
      const { body } = block ?? {};
      if (!block || !body) return false;
      if (body.$case === 'header') header = body.value;
      if (body.$case === 'records') {
        records += body.value.records.length;
        progress(records);
      }
      writing = writing
        .then(() => writer.block(block))
        .then(
          () => stream.send({ taken: ++taken }),
          (error: unknown) => {
            failure ??= error;
            stream.destroy('cannot write the file');
          },
        );
      return body.$case === 'end';
    };
    const call = callLeader(addresses, AdminServiceDefinition.methods.saveSnapshot, { taken: 0 }, take);
    await call.catch((error: unknown) => {
      throw failure ?? error;
    });
    await writing;
    if (failure) throw failure;
    if (!header) throw new CliError('the leader sent no snapshot');
    await writer.finish();
    return { header, records, bytes: writer.bytes };
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

/** Reads all of a snapshot file and verifies it. @throws CliError naming what is wrong */
export async function verifySnapshot(path: string): Promise<{ header: SnapshotHeader; blocks: number }> {
  let header: SnapshotHeader | undefined;
  let blocks = 0;
  let records = 0;
  for await (const { body } of readSnapshot(path)) {
    if (blocks++ === 0) {
      if (body?.$case !== 'header')
        throw new CliError(`${path} is damaged (no header): use another snapshot`);
      header = body.value;
    }
    if (body?.$case === 'records') records += body.value.records.length;
    if (body?.$case === 'end' && body.value.records !== records) {
      throw new CliError(`${path} is damaged (records are missing): use another snapshot`);
    }
  }
  return { header: header as SnapshotHeader, blocks };
}

/**
 * Restores a snapshot into metaservers that wait for one. The file is verified as a whole before anything is sent.
 * @throws CliError naming what is wrong; HoldfastError the refusal
 */
export async function restoreSnapshot(
  addresses: readonly string[],
  path: string,
  progress: (done: number, total: number) => void,
): Promise<SnapshotHeader> {
  const { header, blocks } = await verifySnapshot(path);
  const source = readSnapshot(path);
  const first = await source.next();
  let sent = 1;
  const over = deferred<void>();
  let room = deferred<void>();
  let taken = 0;
  let feeding = false;
  const feed = async (stream: RpcStream<RestoreRequest, RestoreReply>): Promise<void> => {
    for await (const block of source) {
      while (sent - taken >= BLOCKS_AHEAD_MAX && !stream.ended) await room.promise;
      if (stream.ended) return;
      stream.send({ block });
      sent++;
    }
  };
  const take = (reply: RestoreReply, stream: RpcStream<RestoreRequest, RestoreReply>): boolean => {
    taken = reply.taken;
    progress(taken, blocks);
    room.resolve();
    room = deferred();
    if (!feeding) void feed(stream).catch(over.reject);
    feeding = true;
    return reply.done;
  };
  over.promise.catch(() => undefined);
  try {
    const call = callLeader<RestoreRequest, RestoreReply>(
      addresses,
      AdminServiceDefinition.methods.restoreSnapshot,
      { block: first.value },
      take,
    );
    await Promise.race([call, over.promise]);
  } finally {
    room.resolve();
    await source.return(undefined);
  }
  return header;
}
