/** What goes wrong in a run, and what becomes of it. */
import type { GatewayLine } from './gateway-line.js';
import type { Cut, Host } from './host.js';
import type { Fault } from './plan.js';
import type { World } from './world.js';

export function inflict(world: World, fault: Fault, host: Host, line: GatewayLine): void {
  const { lastsMs, what } = fault;
  const { storage } = host;
  const restart = () => world.after(lastsMs, () => host.start());
  world.count(`fault: ${what}`);
  switch (what) {
    case 'kill':
      host.kill();
      restart();
      return;
    case 'crash':
      host.crash();
      restart();
      return;
    case 'stop':
      host.stop(restart);
      return;
    case 'pause': {
      const { life } = host;
      const pause = () => {
        life?.process.pause();
        world.after(lastsMs, () => life?.process.resume());
      };
      if (life?.disk !== undefined && world.random.chance(0.5)) life.disk.afterNextCheck = pause;
      else pause();
      return;
    }
    case 'pause-to-deadline':
      pauseToDeadline(world, host, lastsMs);
      return;
    case 'cut':
      cut(world, host, line, lastsMs, ['both ways', 'both ways', 'requests', 'answers']);
      if (world.random.chance(0.5)) world.after(world.random.between(0, 3000), () => host.reset());
      return;
    case 'reset':
      host.reset();
      return;
    case 'gateway-kill':
      killGateway(world, fault, host, line);
      return;
    case 'gateway-pause':
      line.pause(lastsMs);
      return;
    case 'hand-over':
      void line.handOver();
      if (world.random.chance(0.25))
        world.after(world.random.between(0, 40), () => killForAMoment(world, line, lastsMs));
      return;
    case 'take-over':
      storage.owner = undefined;
      return;
    case 'sync-error':
      storage.failNextSync = true;
      return;
    case 'write-error':
      storage.failNextWrite = 'disk-error';
      return;
    case 'full':
      storage.failNextWrite = 'no-space';
      return;
    case 'read-error':
      storage.failNextRead = true;
      return;
    case 'hang':
      storage.hangsUntilMs = world.nowMs + lastsMs;
  }
}

function cut(world: World, host: Host, line: GatewayLine, lastsMs: number, ways: readonly Cut[]): void {
  host.cuts.set(line.name, world.random.pick(ways));
  world.after(lastsMs, () => host.cuts.delete(line.name));
}

/** Often it is cut off from a server just before: then its last writes are on their way while its successor uses another. */
function killGateway(world: World, fault: Fault, host: Host, line: GatewayLine): void {
  const isCut = world.random.chance(0.5);
  if (isCut) cut(world, host, line, world.random.between(0, 2500), ['both ways']);
  world.after(isCut ? world.random.between(0, 200) : 0, () => killForAMoment(world, line, fault.lastsMs));
}

function killForAMoment(world: World, line: GatewayLine, lastsMs: number): void {
  line.kill();
  const soonMs = world.random.between(1, 50);
  world.after(world.random.chance(0.5) ? soonMs : lastsMs, () => line.start());
}

/**
 * The server's process stands still until just before the deadline of the first write that comes meanwhile. Then the write passes its check,
 * and takes as long as the gateway allows for it.
 */
function pauseToDeadline(world: World, host: Host, lastsMs: number): void {
  const { life, storage } = host;
  if (life === undefined || life.process.state !== 'running') return;
  const { process } = life;
  let isAwaited = true;
  life.onWriteInPause = (deadlineMs) => {
    if (!isAwaited) return;
    isAwaited = false;
    const beforeMs = world.random.between(0, 1);
    world.after(process.untilMs(deadlineMs) - beforeMs, () => {
      world.count('server resumes just before the deadline of a write');
      storage.writesLateUntilMs = world.nowMs + beforeMs;
      process.resume();
    });
  };
  process.pause();
  world.after(lastsMs, () => {
    if (isAwaited) process.resume();
    isAwaited = false;
  });
}
