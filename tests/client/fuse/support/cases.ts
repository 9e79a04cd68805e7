import { FILE_CASES } from './cases-files.js';
import { METADATA_CASES } from './cases-metadata.js';
import { NAMESPACE_CASES } from './cases-namespace.js';

/** What a mount may be unable to do; a case that needs it is left out then. */
export type Feature =
  | 'byte-names'
  | 'caller-identity'
  | 'copy-file-range'
  | 'fallocate'
  | 'hole-seeking'
  | 'locks'
  | 'native-unlink'
  | 'omitted-times'
  | 'precise-times'
  | 'rename-flags'
  | 'stable-directory-offsets'
  | 'tmpfile';

export const ALL_FEATURES: readonly Feature[] = [
  'byte-names',
  'caller-identity',
  'copy-file-range',
  'fallocate',
  'hole-seeking',
  'locks',
  'native-unlink',
  'omitted-times',
  'precise-times',
  'rename-flags',
  'stable-directory-offsets',
  'tmpfile',
];

/** A behaviour that any POSIX directory shows, whatever stands behind it. */
export interface MountCase {
  name: string;
  needs?: readonly Feature[];
  /** @param sh runs a script in an empty directory of its own; all commands must succeed; gives its output */
  run(sh: (script: string) => Promise<string>): Promise<void>;
}

export const MOUNT_CASES: readonly MountCase[] = [...FILE_CASES, ...NAMESPACE_CASES, ...METADATA_CASES];

/** The cases that a mount with these features must pass. */
export function casesFor(features: readonly Feature[]): MountCase[] {
  return MOUNT_CASES.filter((each) => (each.needs ?? []).every((feature) => features.includes(feature)));
}
