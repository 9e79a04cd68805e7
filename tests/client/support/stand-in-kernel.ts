import type { BindingInfo, Notifier } from '../../../client/fuse/binding.js';

/** A kernel that has dropped whatever it is told to drop, at once. */
const OBEYS: Notifier = {
  invalidateInode: async () => {},
  invalidateEntry: async () => {},
  expireEntry: async () => {},
  deleteEntry: async () => {},
  forgetNames: () => true,
};

/** What a mount is told of the kernel above it. @param otherwise what that does in another way than to obey at once */
export function boundTo(otherwise: Partial<Notifier> = {}): BindingInfo {
  const notify = { ...OBEYS, ...otherwise };
  return { kind: 'kernel', maxWrite: 1, callerIdentity: true, nanoseconds: true, notify };
}
