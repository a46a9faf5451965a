/**
 * What the demo writes: a filesystem with files in it where mkfs.ext4 is installed, seeded random bytes elsewhere.
 * Promise: the image has exactly the size asked for, and most of it is not zero.
 */
import { execFile } from 'node:child_process';
import { createCipheriv } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const mebibyte = 2 ** 20;

const programFolders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin'];

function findProgram(name: string): string | undefined {
  return programFolders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

/** Makes the image at `path`, using `folder` for what goes into the filesystem. Tells what it made. */
export async function makeImage(path: string, folder: string, sizeBytes: number): Promise<'ext4' | 'random data'> {
  const mkfs = findProgram('mkfs.ext4');
  if (mkfs === undefined) {
    await writeFile(path, seededBytes(0, sizeBytes));
    return 'random data';
  }
  const content = join(folder, 'content');
  await mkdir(content);
  const fileBytes = 8 * mebibyte;
  const files = Math.floor((sizeBytes * 0.8) / fileBytes);
  for (let seed = 1; seed <= files; seed++)
    await writeFile(join(content, `file-${seed}`), seededBytes(seed, fileBytes));
  const image = await open(path, 'w');
  await image.truncate(sizeBytes);
  await image.close();
  await run(mkfs, ['-q', '-F', '-d', content, path]);
  return 'ext4';
}

/** fsck of the filesystem in `path` without changing it: its last line, or undefined if e2fsck is not installed. */
export async function checkFilesystem(path: string): Promise<string | undefined> {
  const fsck = findProgram('e2fsck');
  if (fsck === undefined) return undefined;
  const { stdout } = await run(fsck, ['-f', '-n', path]);
  return stdout.trim().split('\n').at(-1);
}

/** The same bytes for the same seed: a cipher's key stream. */
function seededBytes(seed: number, length: number): Buffer {
  const key = Buffer.alloc(16);
  key.writeUInt32BE(seed);
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length));
}
