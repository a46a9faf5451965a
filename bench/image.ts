/** The image file that all contenders serve in turn, and how it is made the same for each of them. */
import { createCipheriv } from 'node:crypto';
import { open } from 'node:fs/promises';

const mebibyte = 2 ** 20;

/** Incompressible, and on the disk. */
export async function makeImage(path: string, sizeBytes: number): Promise<void> {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16));
  const zeroes = Buffer.alloc(mebibyte);
  const file = await open(path, 'w');
  for (let written = 0; written < sizeBytes; written += mebibyte) await file.write(cipher.update(zeroes));
  await file.sync();
  await file.close();
}

/** Nobody pays for the dirty pages of the one before; all of the image is in the page cache, out of which the kernel may have taken parts. */
export async function settle(path: string): Promise<void> {
  const file = await open(path, 'r+');
  await file.sync();
  const into = Buffer.allocUnsafeSlow(4 * mebibyte);
  while ((await file.read(into, 0, into.length, null)).bytesRead > 0);
  await file.close();
}
