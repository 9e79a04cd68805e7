import { rmSync } from 'node:fs';
import { createConnection, createServer, type Server } from 'node:net';
import { createInterface } from 'node:readline';
import { controlSocket } from './run-files.js';

/** Commands to a running `up`, one JSON line each, over a Unix socket in its data directory. */
export interface ControlRequest {
  /** add: a further `chunkserver` or `metaserver`, whose name is in the reply; remove: a server is stopped and forgotten. */
  command: 'start' | 'stop' | 'add' | 'remove';
  name: string;
  kill?: boolean;
}

export interface ControlReply {
  ok: boolean;
  error?: string;
  /** Of the server that was meant. */
  name?: string;
}

/**
 * Listens for commands until the returned server is closed.
 * @param handle resolves with the name of the server that was meant
 */
export function listenForControl(
  dataDir: string,
  handle: (request: ControlRequest) => Promise<string>,
): Promise<Server> {
  const path = controlSocket(dataDir);
  rmSync(path, { force: true }); // left by an `up` that was killed; a living one holds the pid file
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    createInterface({ input: socket }).on('line', (line) => {
      void answer(line, handle).then((reply) => socket.end(`${JSON.stringify(reply)}\n`));
    });
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => resolve(server));
  });
}

async function answer(
  line: string,
  handle: (request: ControlRequest) => Promise<string>,
): Promise<ControlReply> {
  try {
    return { ok: true, name: await handle(JSON.parse(line) as ControlRequest) };
  } catch (error) {
    return { ok: false, error: error instanceof Error ? error.message : String(error) };
  }
}

/** Sends one command to the `up` of a data directory. @throws when none is running */
export function sendControl(dataDir: string, request: ControlRequest): Promise<ControlReply> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(controlSocket(dataDir));
    socket.once('error', reject);
    socket.once('connect', () => socket.write(`${JSON.stringify(request)}\n`));
    let text = '';
    socket.on('data', (chunk) => {
      text += String(chunk);
    });
    socket.once('end', () => {
      try {
        resolve(JSON.parse(text) as ControlReply);
      } catch {
        reject(new Error('the running `up` ended before it answered'));
      }
    });
  });
}
