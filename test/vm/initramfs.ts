/**
 * The small root that the virtual machine's kernel starts with: an archive in the "newc" format of cpio
 * (Linux, Documentation/driver-api/early-userspace/buffer-format.rst). Pure.
 */

export interface ArchiveEntry {
  /** Without a leading slash. */
  readonly path: string;
  /** File type and permissions, as in `st_mode`. */
  readonly mode: number;
  readonly content: Buffer;
}

export function directory(path: string): ArchiveEntry {
  return { path, mode: 0o040755, content: Buffer.alloc(0) };
}

export function executable(path: string, content: Buffer): ArchiveEntry {
  return { path, mode: 0o100755, content };
}

export function symbolicLink(path: string, target: string): ArchiveEntry {
  return { path, mode: 0o120777, content: Buffer.from(target) };
}

/** The whole archive, its trailer included. A folder must come before what lies in it. */
export function archive(entries: readonly ArchiveEntry[]): Buffer {
  const trailer: ArchiveEntry = { path: 'TRAILER!!!', mode: 0, content: Buffer.alloc(0) };
  return Buffer.concat([...entries, trailer].flatMap((entry, index) => encode(entry, index + 1)));
}

/** entry = magic · 13 fields of 8 hexadecimal digits · name, NUL, padded to 4 · content, padded to 4 */
function encode(entry: ArchiveEntry, inode: number): Buffer[] {
  const name = Buffer.from(`${entry.path}\0`);
  const modificationTime = 0;
  const fields = [
    inode,
    entry.mode,
    0, // user
    0, // group
    1, // links
    modificationTime,
    entry.content.length,
    0, // device, major
    0, // device, minor
    0, // device that it stands for, major
    0, // device that it stands for, minor
    name.length,
    0, // checksum, unused
  ];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
  return [header, name, padding(header.length + name.length), entry.content, padding(entry.content.length)];
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
