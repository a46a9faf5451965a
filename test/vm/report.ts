/**
 * What the runner inside the virtual machine tells the test outside, one JSON object a line, through a virtio port.
 * Promise: a report that makes no sense is an error, never ignored.
 */

export type Report =
  /** Sent first: everything that is going to run. */
  | { readonly event: 'plan'; readonly names: readonly string[] }
  | { readonly event: 'end'; readonly name: string; readonly ok: boolean; readonly ms: number; readonly output: string }
  /** Sent last, by the shell that ran the runner. */
  | { readonly event: 'exit'; readonly code: number };

export function parseReport(line: string): Report {
  const report: unknown = JSON.parse(line);
  if (!isReport(report)) throw new Error(`not a report: ${line}`);
  return report;
}

function isReport(value: unknown): value is Report {
  if (typeof value !== 'object' || value === null) return false;
  const fields = value as Record<string, unknown>;
  switch (fields['event']) {
    case 'plan':
      return Array.isArray(fields['names']) && fields['names'].every((name) => typeof name === 'string');
    case 'end':
      return (
        typeof fields['name'] === 'string' &&
        typeof fields['ok'] === 'boolean' &&
        typeof fields['ms'] === 'number' &&
        typeof fields['output'] === 'string'
      );
    case 'exit':
      return typeof fields['code'] === 'number';
    default:
      return false;
  }
}
