'use strict';
// What must happen before the first `import`: the size of the thread pool is read once, when its first thread starts,
// every thread has to be one that serves a disk, and V8 compiles by the flags that it has then.
const { existsSync } = require('node:fs');
const { join } = require('node:path');
const { setFlagsFromString } = require('node:v8');

const oldestNode = [20, 19];
const threadsMin = 20;
const engineFlags = [
  // Few functions run very often here: compiled at once, they cost a fifth less in a program's first seconds.
  '--always-sparkplug',
  // Nearly all objects die young, however little room they have: without it the heap is 20 MiB larger after a million requests.
  '--semi-space-growth-factor=1',
];

function isTooOld(version) {
  const [major, minor] = version.split('.').map(Number);
  return major < oldestNode[0] || (major === oldestNode[0] && minor < oldestNode[1]);
}

function fail(program, message) {
  process.stderr.write(`${program}: ${message}\n`);
  process.exit(1);
}

/** What the predecessor of an nbd-server has handed to it (src/cli/hand-over.ts): the channel to it, the lock, the kernel's sockets. */
function handed() {
  const sockets = process.env.NBD_SERVER_SUCCESSOR;
  if (sockets === undefined || !process.connected) return { descriptors: [], environment: {} };
  const channel = 3;
  return {
    descriptors: Array.from({ length: 2 + Number(sockets) }, (_, place) => channel + place),
    environment: { NODE_CHANNEL_FD: String(channel) }, // Node takes it out
  };
}

/** Runs dist/src/cli/PROGRAM.js. */
module.exports = async function start(program) {
  if (isTooOld(process.versions.node)) {
    fail(program, `needs Node ${oldestNode.join('.')} or newer, this is ${process.versions.node}`);
  }
  for (const flag of engineFlags) setFlagsFromString(flag);
  process.env.UV_THREADPOOL_SIZE = String(Math.max(threadsMin, Number(process.env.UV_THREADPOOL_SIZE) || 0));
  const root = join(__dirname, '..');
  const main = join(root, 'dist', 'src', 'cli', `${program}.js`);
  if (!existsSync(main)) {
    fail(program, `it is not built yet. In ${root}, run: npm ci && npm run build`);
  }
  try {
    require('../dist/src/linux/io-flusher.cjs').becomeIoFlusher(handed());
    await (await import(main)).main(process.argv.slice(2));
  } catch (error) {
    if (error.code !== 'ERR_MODULE_NOT_FOUND' && error.code !== 'MODULE_NOT_FOUND') throw error;
    fail(program, `a part is missing (${error.message.split('\n')[0]}). In ${root}, run: npm ci && npm run build`);
  }
};
