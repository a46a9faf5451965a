/** Everything that can happen to servers and network, for a while, under a load whose whole history is judged. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { runFaultLoop } from '../crash/fault-loop.js';

const seconds = 15;

for (const mode of ['writethrough', 'writeback'] as const) {
  test(`${mode}: servers that are killed and hang, a network that holds back and cuts, under load`, async (t) => {
    const { kills, fenced, rounds, counts, replayedWrites } = await runFaultLoop(t, mode, seconds, (line) =>
      t.diagnostic(line),
    );
    t.diagnostic(
      `${kills} kills, ${fenced} ended by the kernel, in ${rounds} rounds, ${JSON.stringify(counts)}, ${replayedWrites} writes replayed`,
    );
    assert.ok(rounds > 0);
    for (const [kind, count] of Object.entries(counts)) assert.ok(count > 0, kind);
  });
}
