import assert from 'node:assert/strict';
import { NO_MOUNT_OPTIONS, parseMountOptions } from '../../cli/mount-options.js';

describe('mount -o', () => {
  it('takes options of mount(8), in lists and repeated; the later of two counts', () => {
    const options = parseMountOptions('noexec,rw', parseMountOptions('ro,noatime,nosuid', NO_MOUNT_OPTIONS));
    assert.deepEqual(options, { readOnly: false, noAtime: true, kernel: ['noatime', 'nosuid', 'noexec'] });
  });

  it('refuses what it does not know, by name', () => {
    assert.throws(() => parseMountOptions('ro,bogus', NO_MOUNT_OPTIONS), /-o bogus: unknown/);
  });
});
