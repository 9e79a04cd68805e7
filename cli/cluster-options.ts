import { dirname, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { type ClusterFile, clusterFilePath, metaAddresses, readClusterFile } from './cluster-file.js';
import { CliError } from './output.js';

/** The three ways to say which cluster is meant. */
export interface ClusterSelection {
  data?: string;
  cluster?: string;
  meta?: string;
}

/** What --binding takes. */
export const BINDINGS = ['auto', 'kernel', 'fuse-native'] as const;

/** What copying to one returned server may take, MB/s: 512 MiB in well under 10 s, and most of a disk left to others. */
export const DEFAULT_RECOVERY_MBPS = 120;
const RECOVERY_MBPS_MAX = 100_000;

/** The option --recovery-mbps, without a default. */
export function recoveryOption(): Option {
  return new Option(
    '--recovery-mbps <n>',
    `bandwidth for copying to a server that returned or was added, MB/s (default: ${DEFAULT_RECOVERY_MBPS})`,
  ).argParser(parseInteger('--recovery-mbps', 1, RECOVERY_MBPS_MAX));
}

export const DEFAULT_DATA_DIR = './.holdfast';

/** Adds --data, --cluster and --meta. */
export function addClusterOptions(command: Command): Command {
  return command
    .option('--data <dir>', `data directory of a cluster on this machine (default: ${DEFAULT_DATA_DIR})`)
    .option('--cluster <file>', 'cluster file, as `holdfast up` writes it')
    .option('--meta <host:port,..>', 'metaserver addresses, separated by commas');
}

export interface SelectedCluster {
  /** host:port of the metaservers. */
  addresses: string[];
  /** Absent when only --meta was given. */
  file?: ClusterFile;
}

/** @throws CliError when nothing usable was named */
export async function selectCluster(selection: ClusterSelection): Promise<SelectedCluster> {
  const given = [selection.data, selection.cluster, selection.meta].filter((one) => one !== undefined);
  if (given.length > 1) throw new CliError('give one of --data, --cluster and --meta, not several');
  if (selection.meta !== undefined) return { addresses: parseAddresses(selection.meta, '--meta') };
  const path = resolve(selection.cluster ?? clusterFilePath(selection.data ?? DEFAULT_DATA_DIR));
  const file = await readClusterFile(path);
  if (!file)
    throw new CliError(
      `no cluster file ${path}: start one with 'holdfast up', or name it with --data, --cluster or --meta`,
    );
  return { addresses: metaAddresses(file), file };
}

/** The data directory that was named, by itself or by the cluster file in it; undefined: the cluster may be anywhere. */
export function dataDirOf({ data, cluster, meta }: ClusterSelection): string | undefined {
  if (meta !== undefined) return undefined;
  if (cluster === undefined) return resolve(data ?? DEFAULT_DATA_DIR);
  const directory = dirname(resolve(cluster));
  // A cluster file under another name is a copy, and lies anywhere.
  return resolve(cluster) === clusterFilePath(directory) ? directory : undefined;
}

/** "a:1,b:2" as a list. @throws CliError naming the flag and the bad part */
export function parseAddresses(text: string, flag: string): string[] {
  const addresses = text.split(',').map((one) => one.trim());
  for (const address of addresses) parseAddress(address, flag);
  return addresses;
}

/** @throws CliError naming the flag and the bad value */
export function parseAddress(text: string, flag: string): { host: string; port: number } {
  const match = /^(.+):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (!match || port < 1 || port > 65535) throw new CliError(`${flag}: '${text}' is not host:port`);
  return { host: match[1] as string, port };
}

/** A whole number in a range. @throws CliError naming the flag, the value and the range */
export function parseInteger(flag: string, min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max) {
      throw new CliError(`${flag}: '${text}' is not a whole number from ${min} to ${max}`);
    }
    return value;
  };
}

/** One of a few words. @throws CliError naming the flag and what it takes */
export function parseChoice<T extends string>(flag: string, choices: readonly T[]): (text: string) => T {
  return (text) => {
    const found = choices.find((choice) => choice === text);
    if (found === undefined) throw new CliError(`${flag}: '${text}' is not one of ${choices.join(', ')}`);
    return found;
  };
}
