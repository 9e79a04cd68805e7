import { mkdirSync, rmSync } from 'node:fs';
import { type PeerPlaces, peerPlaces, type System } from '../system.js';
import {
  addPeerAddress,
  Daemons,
  killBelow,
  missingPrograms,
  removePeerAddress,
  unmount,
  waitMounted,
} from './daemons.js';

/** What is special about one peer; bringing it up, mounting it anew and taking it down is the same for all. */
export interface PeerKind {
  /** For people. */
  name: string;
  /** Of its temporary directory. */
  directory: string;
  /** Programs that it takes, and the Debian packages that have them. */
  programs: string[];
  packages: string;
  /** It refuses 127.x: PEER_ADDRESS is there while it runs. */
  needsAddress?: boolean;
  /** Starts its servers, nothing is mounted yet. */
  start(places: PeerPlaces, daemons: Daemons): Promise<void>;
  /** The command that mounts it and stays in the foreground. */
  mount(places: PeerPlaces): [command: string, ...args: string[]];
  /** Settings that are made on the first mount. */
  mounted?(places: PeerPlaces): Promise<void>;
  /** Ends what no daemon's end ends; the client is unmounted. */
  stop?(places: PeerPlaces): Promise<void>;
}

/** The daemon that mounts. */
const CLIENT = 'mount';

/** A peer as a system that can be measured. */
export function peerSystem(kind: PeerKind): System {
  let running: { places: PeerPlaces; daemons: Daemons } | undefined;

  const remount = async (): Promise<string> => {
    if (!running) throw new Error(`${kind.name} is not up`);
    const { places, daemons } = running;
    await unmount(places.mount);
    await daemons.stop(CLIENT);
    const [command, ...args] = kind.mount(places);
    daemons.start(CLIENT, command, args);
    await waitMounted(places.mount);
    return places.mount;
  };

  return {
    name: kind.name,
    missing: () => missingPrograms(kind.programs, kind.packages),
    async up() {
      const places = peerPlaces(kind.directory);
      running = { places, daemons: new Daemons(places.root) };
      mkdirSync(places.mount);
      if (kind.needsAddress) await addPeerAddress();
      await kind.start(places, running.daemons);
      await remount();
      await kind.mounted?.(places);
      return places.mount;
    },
    remount,
    async down() {
      if (!running) return;
      const { places, daemons } = running;
      running = undefined;
      await unmount(places.mount);
      await daemons.stop(CLIENT);
      await kind.stop?.(places);
      await daemons.stopAll();
      killBelow(places.root);
      rmSync(places.root, { recursive: true, force: true });
      if (kind.needsAddress) await removePeerAddress();
    },
    pids: () => running?.daemons.pids() ?? new Map(),
  };
}
