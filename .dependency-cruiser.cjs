/**
 * The layers (ARCHITECTURE.md): a file imports only from layers below its own, or from its own folder.
 * scripts/check-layers.mjs runs this, and fails if a source file was not read.
 */

/** folder → what it may import besides itself and (outside the pure layers) Node's own modules. */
const layers = {
  base: [],
  nbd: ['base'],
  'http-disk': ['base'],
  linux: ['base'],
  sockets: [],
  disk: ['base', 'linux'],
  'disk-server': ['base', 'linux', 'sockets', 'http-disk', 'disk'],
  gateway: ['base', 'http-disk'],
  // The HTTP client implements the gateway's Backend.
  'http-client': ['base', 'linux', 'http-disk', 'gateway/backend.ts'],
  'nbd-server': ['base', 'linux', 'sockets', 'nbd'],
  // Keeps the gateway's ledger in a file: of that layer it sees this one interface.
  'kernel-device': ['base', 'linux', 'nbd', 'nbd-server', 'gateway/ledger.ts'],
  observability: ['base', 'nbd', 'http-disk', 'linux', 'disk', 'disk-server', 'gateway', 'http-client', 'nbd-server'],
};

/** No I/O, no clock: Node's modules stay outside. Reading them is what tells a simulated run from a real one. */
const pureLayers = ['base', 'nbd', 'http-disk', 'gateway'];

const folder = (name) => (name.endsWith('.ts') ? `^src/${name.replace('.', '[.]')}$` : `^src/${name}/`);

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    ...Object.entries(layers).map(([layer, below]) => ({
      name: `layer-${layer}`,
      severity: 'error',
      comment: `src/${layer}/ sees only itself${below.map((name) => `, ${name}`).join('')}`,
      from: { path: folder(layer) },
      to: { path: '^(src|test|bench|demo)/', pathNot: [folder(layer), ...below.map(folder)] },
    })),
    {
      name: 'known-layer',
      severity: 'error',
      comment: 'a new folder in src/ needs a place in the table above',
      from: {},
      to: { path: '^src/', pathNot: [...Object.keys(layers), 'cli'].map(folder) },
    },
    {
      name: 'cli-is-the-top',
      severity: 'error',
      comment: 'src/cli/ is wiring: it sees everything in src/, and only tests and programs see it',
      from: { path: '^src/cli/' },
      to: { path: '^(test|bench|demo)/' },
    },
    {
      name: 'pure',
      severity: 'error',
      comment: `${pureLayers.join(', ')} do no I/O: no module of Node's`,
      from: { path: pureLayers.map(folder) },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'pure-from-packages',
      severity: 'error',
      comment: 'the pure layers, the disks and the cores use no package',
      from: { path: '^src/(?!cli/|linux/)' },
      to: { dependencyTypes: ['npm', 'npm-dev', 'npm-optional', 'npm-peer', 'npm-no-pkg', 'npm-unknown'] },
    },
    {
      name: 'ffi-only-in-linux',
      severity: 'error',
      comment: 'one place that calls the C library',
      from: { path: '^(src|test|bench|demo)/', pathNot: folder('linux') },
      to: { path: 'node_modules/koffi' },
    },
    {
      name: 'no-cycle',
      severity: 'error',
      comment: 'a cycle is two files that are really one',
      from: {},
      to: { circular: true },
    },
    {
      name: 'resolvable',
      severity: 'error',
      comment: 'a module that cannot be found could be anything',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    // Types count: a layer that knows another's types depends on it.
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^dist/' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'] },
  },
};
