import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { basename } from 'node:path';
import { Command, Option } from 'commander';
import type { BindingChoice } from '../client/fuse/choose.js';
import { BUSY_POLL_US, BUSY_POLL_US_MAX } from '../client/fuse/kernel/busy-poll.js';
import { canonicalMountPoint, MountError } from '../client/fuse/mount-point.js';
import type { RunningMount } from '../client/main.js';
import type { LogLevel } from '../common/logger.js';
import { backgroundLog, logEnvironment, ownLog, removePassing } from './background-log.js';
import {
  addClusterOptions,
  BINDINGS,
  type ClusterSelection,
  parseChoice,
  parseInteger,
  selectCluster,
} from './cluster-options.js';
import { ENDING_SIGNAL, EndingMount } from './ending-mount.js';
import {
  MOUNT_OPTION_NAMES,
  type MountOptions,
  NO_MOUNT_OPTIONS,
  parseMountOptions,
} from './mount-options.js';
import { registerMount, unregisterMount } from './mount-registry.js';
import { CliError, EXIT_FAILED, oneLine, printJson, printLine } from './output.js';
import { processFlags } from './process-flags.js';
import { logLevelOption, processDeps, serveUntilStopped, startError } from './serve.js';
import { startTracing, type Tracing, traceOption } from './tracing.js';

interface MountFlags extends ClusterSelection {
  foreground?: boolean;
  binding: BindingChoice;
  readOnly?: boolean;
  options: MountOptions;
  busyPoll: number;
  trace?: string;
  logLevel: LogLevel;
  json?: boolean;
}

/** What the mount process says on its fourth descriptor once it is up, or why it is not. */
interface ReadyReport {
  ready: boolean;
  binding?: string;
  limits?: string[];
  error?: string;
  exitCode?: number;
  /** `error` says all: the log has nothing to add. */
  badInput?: boolean;
}

/** Descriptor on which a mount in the background reports to the command that started it. */
const READY_FD = 3;

/** `holdfast mount DIR`: a mount in the background, or with --foreground in this process. */
export function mountCommand(): Command {
  const command = new Command('mount')
    .description('mount a directory; returns when it can be used, the mount goes on in the background')
    .argument('<dir>', 'an empty directory')
    .option('-f, --foreground', 'stay in the foreground')
    .option(
      '--binding <name>',
      BINDINGS.join(', '),
      parseChoice('--binding', BINDINGS),
      'auto' as BindingChoice,
    )
    .option('--read-only', 'refuse every change')
    .addOption(
      new Option(
        '-o, --options <list>',
        `options as of mount(8), separated by commas: ${MOUNT_OPTION_NAMES.join(', ')}`,
      )
        .argParser(parseMountOptions)
        .default(NO_MOUNT_OPTIONS, 'defaults'),
    )
    .option(
      '--busy-poll <us>',
      'stay awake for so long behind an answer, for the next request; 0: sleep at once',
      parseInteger('--busy-poll', 0, BUSY_POLL_US_MAX),
      BUSY_POLL_US,
    )
    .addOption(traceOption())
    .addOption(logLevelOption())
    .option('--json', 'print one JSON object');
  return addClusterOptions(command).action(async (dir: string, flags: MountFlags) => {
    const mountPoint = await canonicalMountPoint(dir);
    if (flags.foreground) await mountHere(mountPoint, flags);
    else await mountInBackground(mountPoint, flags);
  });
}

async function mountHere(mountPoint: string, flags: MountFlags): Promise<void> {
  const { addresses, file } = await selectCluster(flags);
  const { runMount } = await import('../client/main.js');
  const deps = processDeps({ part: 'mount', mountPoint }, flags.logLevel);
  const reporting = process.env.HOLDFAST_READY_FD === String(READY_FD);
  const log = ownLog();
  let tracing: Tracing | undefined;
  let ending: EndingMount | undefined;
  let failed = true;
  try {
    tracing = await startTracing(flags.trace, traceName(mountPoint), deps);
    const mount = await runMount(
      {
        mountPoint,
        metaservers: addresses,
        binding: flags.binding,
        fsName: 'holdfast',
        readOnly: (flags.readOnly ?? false) || flags.options.readOnly,
        noAtime: flags.options.noAtime,
        kernelOptions: flags.options.kernel,
        busyPollUs: flags.busyPoll,
        ...(file && { clusterId: file.clusterId }),
      },
      { ...deps, tracer: tracing.tracer },
    );
    const local = { mountPoint, pid: process.pid, clusterId: mount.clusterId, log: log?.path };
    const mounted = new EndingMount(local, mount, deps);
    ending = mounted;
    process.on(ENDING_SIGNAL, () => mounted.watch());
    registerMount(local);
    if (reporting) await reportReady(mount);
    else {
      for (const limit of mount.limits) deps.log.info({ limit }, 'binding limit');
      deps.log.info({ mountPoint, binding: mount.info.kind }, 'mounted');
    }
    process.on('SIGUSR2', () => deps.log.info({ statistics: mount.statistics() }, 'statistics'));
    const ended = mount.ended.then(() => undefined);
    process.exitCode = await serveUntilStopped({ close: () => mount.unmount(), ended }, deps);
    failed = process.exitCode !== 0;
  } catch (error) {
    const failure = startError('mount', error);
    const { message, exitCode } = failure;
    const badInput = error instanceof MountError || error instanceof CliError;
    if (reporting) await report({ ready: false, error: message, exitCode, badInput }).catch(() => undefined);
    throw failure;
  } finally {
    const gaveUp = ending?.ended() ?? false;
    if (!gaveUp) unregisterMount(mountPoint);
    await tracing?.close();
    if (!failed && !gaveUp) removePassing(log);
  }
}

/** The mount of `holdfast up` is the only one of its name; others have their process number. */
function traceName(mountPoint: string): string {
  if (process.env.HOLDFAST_SUPERVISED === '1') return 'mount';
  return `mount-${basename(mountPoint)}-${process.pid}`;
}

async function report(value: ReadyReport): Promise<void> {
  const { writeSync } = await import('node:fs');
  writeSync(READY_FD, `${JSON.stringify(value)}\n`);
  closeSync(READY_FD);
}

/** @throws CliError when who asked for the mount has gone: there is none then */
async function reportReady(mount: RunningMount): Promise<void> {
  try {
    await report({ ready: true, binding: mount.info.kind, limits: mount.limits });
  } catch {
    await mount.unmount();
    throw new CliError('the command that asked for this mount has ended: unmounted', EXIT_FAILED);
  }
}

async function mountInBackground(mountPoint: string, flags: MountFlags): Promise<void> {
  await selectCluster(flags);
  const log = backgroundLog(mountPoint, flags);
  const output = openSync(log.path, 'a');
  const args = [...process.argv.slice(1), '--foreground'];
  const child = spawn(process.execPath, [...process.execArgv, ...processFlags('mount'), ...args], {
    stdio: ['ignore', output, output, 'pipe'],
    detached: true,
    env: { ...process.env, ...logEnvironment(log), HOLDFAST_READY_FD: String(READY_FD) },
  });
  closeSync(output);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => {
      // It unmounts when it finds nobody to report to.
      process.stderr.write(`holdfast: interrupted; ${mountPoint} is not mounted\n`);
      process.exit(EXIT_FAILED);
    });
  const channel = child.stdio[READY_FD] as NodeJS.ReadableStream;
  let text = '';
  for await (const chunk of channel) text += String(chunk);
  child.unref();
  const answer = parseReport(text);
  if (!answer.ready) {
    if (answer.badInput) removePassing(log);
    const reason = answer.error ?? 'the mount process ended early';
    throw new CliError(answer.badInput ? reason : `${reason}; see ${log.path}`, answer.exitCode);
  }
  if (flags.json) {
    printJson({
      mounted: mountPoint,
      binding: answer.binding,
      limits: answer.limits ?? [],
      pid: child.pid,
      log: log.path,
    });
    return;
  }
  for (const limit of answer.limits ?? []) printLine(`note: ${limit}`);
  printLine(`ready: ${mountPoint}`);
}

function parseReport(text: string): ReadyReport {
  try {
    return JSON.parse(text) as ReadyReport;
  } catch (error) {
    return { ready: false, error: text === '' ? undefined : oneLine(error) };
  }
}
