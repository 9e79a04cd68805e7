import { casesFor } from './support/cases.js';
import { canMount, Mounted } from './support/mounted.js';
import { sh } from './support/shell.js';

describe('the fuse-native binding as a file system', () => {
  let mounted: Mounted;
  before(async function () {
    if (!canMount()) this.skip();
    mounted = await Mounted.start('fuse-native');
  });
  after(() => mounted?.stop());

  for (const [index, each] of casesFor([]).entries()) {
    it(each.name, async () => {
      await mounted.sh(`mkdir case-${index}`);
      await each.run((script) => sh(`${mounted.mountPoint}/case-${index}`, script));
    });
  }
});
