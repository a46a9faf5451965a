/** Device numbers as stat(2) gives them (`st_rdev`), in the layout of the C library's gnu_dev_major and _minor. */

export interface DeviceNumber {
  readonly major: number;
  readonly minor: number;
}

export function deviceNumber(rdev: bigint): DeviceNumber {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n);
  return { major: Number(major), minor: Number(minor) };
}
