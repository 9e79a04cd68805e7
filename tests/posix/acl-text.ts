/** One entry of an access control list: who, rwx bits, and the id of a named user or group. */
export type AclEntry = [tag: 'user' | 'group' | 'mask' | 'other', permissions: number, id?: number];

const VERSION = 2;
const NO_ID = 0xffff_ffff;
const TAGS = [
  { tag: 'user', named: false, code: 1 },
  { tag: 'user', named: true, code: 2 },
  { tag: 'group', named: false, code: 4 },
  { tag: 'group', named: true, code: 8 },
  { tag: 'mask', named: false, code: 16 },
  { tag: 'other', named: false, code: 32 },
] as const;

/** The value of the system.posix_acl_* attributes (linux/posix_acl_xattr.h), as Latin-1 text. */
export const aclText = {
  format(entries: readonly AclEntry[]): string {
    const bytes = Buffer.alloc(4 + entries.length * 8);
    bytes.writeUInt32LE(VERSION, 0);
    for (const [index, [tag, permissions, id]] of entries.entries()) {
      const found = TAGS.find((each) => each.tag === tag && each.named === (id !== undefined));
      bytes.writeUInt16LE(found?.code ?? 0, 4 + index * 8);
      bytes.writeUInt16LE(permissions, 6 + index * 8);
      bytes.writeUInt32LE(id ?? NO_ID, 8 + index * 8);
    }
    return bytes.toString('latin1');
  },

  parse(text: string): AclEntry[] {
    const bytes = Buffer.from(text, 'latin1');
    const entries: AclEntry[] = [];
    for (let at = 4; at < bytes.length; at += 8) {
      const found = TAGS.find(({ code }) => code === bytes.readUInt16LE(at));
      if (!found) throw new Error(`unknown tag ${bytes.readUInt16LE(at)}`);
      const id = bytes.readUInt32LE(at + 4);
      const permissions = bytes.readUInt16LE(at + 2);
      entries.push(found.named ? [found.tag, permissions, id] : [found.tag, permissions]);
    }
    return entries;
  },
};
