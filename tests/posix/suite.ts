import { benchOf, type Features } from './bench.js';
import { aclCases } from './cases/acl.js';
import { attributeCases } from './cases/attributes.js';
import { createCases } from './cases/create.js';
import { dataCases } from './cases/data.js';
import { directoryCases } from './cases/directory.js';
import { flagCases } from './cases/flags.js';
import { linkCases } from './cases/link.js';
import { linuxCases } from './cases/linux.js';
import { pathCases } from './cases/paths.js';
import { removeCases } from './cases/remove.js';
import { renameCases } from './cases/rename.js';
import { stormCases } from './cases/storm.js';
import { xattrCases } from './cases/xattr.js';

/**
 * Registers a POSIX suite on a directory, written from POSIX.1-2017 and Linux's man pages per system call. Run it as root:
 * it works as three users. @param dir may be entered by every user
 */
export function posixSuite(dir: () => string, features: Features): void {
  const bench = benchOf(dir);
  pathCases(bench);
  createCases(bench);
  removeCases(bench);
  renameCases(bench);
  linkCases(bench);
  attributeCases(bench, features);
  dataCases(bench);
  directoryCases(bench);
  linuxCases(bench, features);
  xattrCases(bench, features);
  flagCases(bench, features);
  aclCases(bench, features);
  stormCases(dir);
}
