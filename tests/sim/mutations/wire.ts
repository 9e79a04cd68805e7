import { crc32c } from '../../../common/crc32c.js';
import {
  FRAME_HEADER_BYTES,
  type FrameFields,
  type FrameHeader,
  FrameType,
  readHeader,
  writeHeader,
} from '../../../proto/frame-header.js';
import { RaftEnvelope, type RaftMessage } from '../../../proto/gen/raft.js';
import { asBuffer, MessageParser, type MessageType } from '../../../proto/message-stream.js';
import type { Endpoint, Tap } from '../network.js';

const MESSAGE_HEADER_BYTES = 8;
const RAFT_PATH = '/holdfast.RaftService/Channel';

/** Messages as they lie on a stream. */
function framed(payloads: readonly Buffer[]): Buffer {
  return Buffer.concat(
    payloads.flatMap((payload) => {
      const header = Buffer.alloc(MESSAGE_HEADER_BYTES);
      header.writeUInt32LE(payload.length, 0);
      header.writeUInt32LE(crc32c(payload), 4);
      return [header, payload];
    }),
  );
}

/** Changes the messages of one direction of a stream; a message that becomes none is lost. */
export function messageTap<T>(
  path: string,
  fromClient: boolean,
  type: MessageType<T>,
  change: (message: T, from: Endpoint) => T[],
): Tap {
  return (from, bytes) => {
    if (from.dialled.path !== path || from.isClient !== fromClient) return undefined;
    const payloads: Buffer[] = [];
    const parser = new MessageParser((payload) => {
      for (const message of change(type.decode(payload), from)) {
        payloads.push(asBuffer(type.encode(message).finish()));
      }
    });
    parser.push(bytes);
    return payloads.length > 0 ? [framed(payloads)] : [];
  };
}

/** Sends a message in the name of the one at this end. */
export function sendMessage<T>(end: Endpoint, type: MessageType<T>, message: T): void {
  end.network.transmit(end, framed([asBuffer(type.encode(message).finish())]), '');
}

/** Changes what metaservers say to each other. */
export function raftTap(change: (message: RaftMessage, from: Endpoint) => RaftMessage[]): Tap {
  return messageTap(RAFT_PATH, true, RaftEnvelope, (envelope, from) => {
    const { body } = envelope;
    if (body?.$case !== 'message') return [envelope];
    return change(body.value, from).map((value) => ({ body: { $case: 'message', value } }));
  });
}

export interface SimFrame {
  header: FrameHeader;
  payload: Buffer;
}

function frameBytes({ header, payload }: SimFrame): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES);
  const type = header.isReply ? header.type | FrameType.REPLY : header.type;
  writeHeader(bytes, { ...header, type }, payload.length, header.payloadCrc);
  return Buffer.concat([bytes, payload]);
}

/** Changes the frames of the data plane; a frame that becomes undefined is lost. */
export function frameTap(change: (frame: SimFrame, from: Endpoint) => SimFrame | undefined): Tap {
  return (from, bytes) => {
    if (from.dialled.kind !== 'tcp') return undefined;
    const frames: Buffer[] = [];
    for (let at = 0; at < bytes.length; ) {
      const header = readHeader(bytes.subarray(at, at + FRAME_HEADER_BYTES));
      const end = at + FRAME_HEADER_BYTES + header.payloadLength;
      const changed = change({ header, payload: bytes.subarray(at + FRAME_HEADER_BYTES, end) }, from);
      if (changed) frames.push(frameBytes(changed));
      at = end;
    }
    return frames.length > 0 ? [Buffer.concat(frames)] : [];
  };
}

/** Answers a request in the name of the one whom it was sent to. */
export function forgeReply({ header }: SimFrame, from: Endpoint, fields: FrameFields): void {
  const { type, requestId, pg, epoch, ino, chunk, offset } = header;
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES);
  const same = { requestId, pg, epoch, ino, chunk, offset };
  writeHeader(bytes, { ...same, ...fields, type: type | FrameType.REPLY }, 0, 0);
  from.network.transmit(from.peer, bytes, '');
}
