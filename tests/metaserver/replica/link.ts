import net from 'node:net';

/** A TCP connection's path that can fall silent: what is sent vanishes for the time being, nobody is told. */
export class Link {
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  #silent = false;

  private constructor(server: net.Server) {
    this.#server = server;
  }

  /** Listens on a port of its own and passes everything on to `target`. */
  static async open(target: number): Promise<Link> {
    const server = net.createServer();
    const link = new Link(server);
    server.on('connection', (incoming) => link.#connect(incoming, target));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return link;
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  #connect(incoming: net.Socket, target: number): void {
    const outgoing = net.connect(target, '127.0.0.1');
    for (const [from, to] of [
      [incoming, outgoing],
      [outgoing, incoming],
    ] as const) {
      this.#sockets.add(from);
      from.setNoDelay(true);
      from.on('data', (data) => {
        if (!this.#silent) to.write(data);
      });
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
  }

  silence(): void {
    this.#silent = true;
  }

  /** Works again; connections that lost bytes meanwhile break. */
  heal(): void {
    this.#silent = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  close(): void {
    this.heal();
    this.#server.close();
  }
}
