import { HoldfastError } from '../../proto/errors.js';
import type { FrameConnection } from '../../proto/frames.js';

/** Sessions whose newest connection is remembered; the one that dialled longest ago is forgotten. */
const SESSIONS_MAX = 65_536;

interface Newest {
  serial: number;
  connection: FrameConnection;
}

/**
 * Listens to the newest connection of each session alone. A client that gives a connection up repeats on the next one what was
 * not answered; what the network still holds of the old one may arrive long afterwards, when the repeated write was answered
 * and others, who got the file's lease then, have written behind it.
 */
export class ClientConnections {
  readonly #newest = new Map<number, Newest>();

  /** @throws HoldfastError CONNECTION_LOST a later connection of the session was here already */
  accept(connection: FrameConnection): void {
    const { role, id, serial } = connection.peer ?? {};
    if (role !== 'client' || id === undefined || serial === undefined) return;
    const known = this.#newest.get(id);
    if (known && known.serial > serial) {
      connection.close('the client has dialled anew');
      throw new HoldfastError('CONNECTION_LOST', 'the client has dialled anew');
    }
    this.#newest.delete(id);
    this.#newest.set(id, { serial, connection });
    known?.connection.close('the client has dialled anew');
    for (const oldest of this.#newest.keys()) {
      if (this.#newest.size <= SESSIONS_MAX) break;
      this.#newest.delete(oldest);
    }
  }
}
