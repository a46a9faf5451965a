/** `nbd-server --list-devices`: every network block device of this host, whose it is, and whether it is served. */
import { listDevices, type Listed } from '../kernel-device/other-users.js';
import { isNameInUse } from './run-files.js';

/** One line a device, in columns, below a heading. */
export function deviceTable(devices: readonly Listed[] = listDevices(isNameInUse)): string {
  const rows = devices.map(({ index, sizeBytes, volume, state, thread, identifier }) => [
    `/dev/nbd${index}`,
    String(sizeBytes),
    volume ?? '-',
    state,
    thread === undefined ? '-' : String(thread),
    identifier === '' ? '-' : identifier,
  ]);
  const table = [['DEVICE', 'BYTES', 'NAME', 'STATE', 'THREAD', 'IDENTIFIER'], ...rows];
  const widths = table[0]?.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0))) ?? [];
  const lines = table.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}
