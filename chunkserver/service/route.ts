import { HoldfastError } from '../../proto/errors.js';
import { FrameType } from '../../proto/frame-header.js';
import type { Frame, FrameReply } from '../../proto/frames.js';
import { clientCall, incomingCall, isClientType } from './calls.js';
import type { PeerLink } from './links.js';
import type { PgHost } from './pg-host.js';

/**
 * Hands a frame to the groups.
 * @param from the server at the other end of `link`; of no meaning for requests of clients
 * @throws HoldfastError what the request is answered with
 */
export function routeFrame(
  host: PgHost,
  frame: Frame,
  link: PeerLink,
  from: number,
  now: number,
): Promise<FrameReply> {
  const { type, pg } = frame.header;
  if (type === FrameType.PING) return Promise.resolve({ fields: host.room() });
  if (type === FrameType.REPLICATE_SYNC) {
    return host.sync().then(() => ({ fields: host.room() }));
  }
  return new Promise((resolve, reject) => {
    const answer = (error: HoldfastError | undefined, reply: FrameReply): void => {
      if (error) reject(error);
      else resolve(reply);
    };
    if (isClientType(type)) {
      host.request(pg, clientCall(frame, now, answer));
      return;
    }
    // What a replaced connection still brings is void: its sender may have started anew.
    const sides = ['in', 'out'] as const;
    const side = sides.find((each) => host.isCurrent(from, each, link));
    if (side === undefined) {
      throw new HoldfastError('UNAVAILABLE', 'not a link of this server');
    }
    if (type === FrameType.CHECK || type === FrameType.REPAIR) resolve(host.audit.serve(frame, from));
    else host.call(pg, incomingCall(frame, from, side, answer));
  });
}
