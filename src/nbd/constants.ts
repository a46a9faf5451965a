/**
 * The numbers of the NBD protocol, in the radix in which its specification (doc/proto.md of the NBD project) writes them.
 * Only what this program speaks; names are those of the specification without their `NBD_` prefix.
 */

export const magic = {
  /** "NBDMAGIC" */
  server: 0x4e42444d41474943n,
  /** "IHAVEOPT" */
  option: 0x49484156454f5054n,
  optionReply: 0x3e889045565a9n,
  request: 0x25609513,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
} as const;

/** Handshake flags (server) and client flags: the same bits. */
export const handshakeFlag = {
  fixedNewstyle: 1 << 0,
  noZeroes: 1 << 1,
} as const;

export const transmissionFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
} as const;

export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;

export const optionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: 2 ** 31 + 1,
  errInvalid: 2 ** 31 + 3,
  errTooBig: 2 ** 31 + 9,
} as const;

export const info = {
  export: 0,
  name: 1,
  description: 2,
  blockSize: 3,
} as const;

export const command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const commandFlag = {
  fua: 1 << 0,
  noHole: 1 << 1,
  df: 1 << 2,
  reqOne: 1 << 3,
  fastZero: 1 << 4,
} as const;

export const replyFlag = {
  done: 1 << 0,
} as const;

export const replyType = {
  none: 0,
  offsetData: 1,
  blockStatus: 5,
  error: 2 ** 15 + 1,
} as const;

/** The metadata context "base:allocation" and the bits of its extents. */
export const allocationContext = {
  namespace: 'base:',
  name: 'base:allocation',
  id: 1,
  hole: 1 << 0,
  zero: 1 << 1,
} as const;

/** "Size constraints": what the specification takes for granted where nothing was agreed. */
export const minimumBlockBytes = 1;
export const preferredBlockBytes = 2 ** 12;
export const payloadBytesMax = 2 ** 25;

/** "No string sent by either party may be longer than 4096 bytes." */
export const stringBytesMax = 4096;
