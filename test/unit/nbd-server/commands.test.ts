/** Every command and flag over a real socket, and what is refused. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import test from 'node:test';
import { type Errno, Failure, type FailureCode } from '../../../src/base/failure.js';
import { command, commandFlag, payloadBytesMax } from '../../../src/nbd/constants.js';
import { Gate } from '../../support/gate.js';
import type { Ask, NbdClient } from '../../support/nbd-client.js';
import { mebibyte, serve } from './harness.js';

const { fua, noHole, df, reqOne, fastZero } = commandFlag;
const kibibyte = 1024;
const forms = [
  { structured: true, form: 'structured' },
  { structured: false, form: 'simple' },
] as const;

async function refused(client: NbdClient, ask: Ask, errno: Errno): Promise<void> {
  const { error, message, form } = await client.request(ask);
  assert.equal(error, errno, `type ${ask.type}, flags ${ask.flags ?? 0}, ${ask.offset ?? 0}+${ask.length}: ${message}`);
  if (form === 'structured') assert.ok(message.length > 0, 'a refusal says why');
}

async function succeeds(client: NbdClient, ask: Ask): Promise<void> {
  const { error, message } = await client.request(ask);
  assert.equal(error, null, `type ${ask.type}, flags ${ask.flags ?? 0}, ${ask.offset ?? 0}+${ask.length}: ${message}`);
}

for (const { structured, form } of forms) {
  test(`${form} replies: what was written is read, at any place and of any length`, async (t) => {
    const { open } = await serve(t, 80 * mebibyte);
    const client = await open({ structured });
    for (const [offset, length] of [
      [0, 1],
      [1, 511],
      [4095, 4098],
      [65_535, 32 * kibibyte],
      [7, 32 * kibibyte + 1],
      [3, 5 * mebibyte],
      [10 * mebibyte + 1, payloadBytesMax],
      [80 * mebibyte - 1, 1],
    ] as const) {
      const bytes = randomBytes(length);
      await client.write(offset, bytes);
      const reply = await client.request({ type: command.read, offset, length });
      assert.equal(reply.form, form);
      assert.ok(bytes.equals(reply.data), `${offset} + ${length}`);
    }
  });

  test(`${form} replies: answers come as the volume has them, not in the order of the requests`, async (t) => {
    const { open, volume } = await serve(t, mebibyte);
    const client = await open({ structured, allocation: false });
    const before = client.answered.length;
    const gate = new Gate();
    volume.gate = gate.passed;
    const slow = [client.read(0, 10), client.write(0, Buffer.from('slow')), client.request({ type: command.flush })];
    await client.request({ type: command.read, offset: mebibyte, length: 1 }); // refused, so answered at once: all are there
    volume.gate = undefined;
    await client.read(0, 10);
    gate.open();
    await Promise.all(slow);
    const first = client.answered[before] ?? 0;
    assert.deepEqual(
      client.answered.slice(before).map((number) => number - first),
      [0, 1, -3, -2, -1],
    );
  });

  test(`${form} replies: a failure of the volume becomes its errno, and the connection goes on`, async (t) => {
    const { open, volume } = await serve(t, mebibyte);
    const client = await open({ structured });
    const failures: [FailureCode, Errno][] = [
      ['disk-error', 'EIO'],
      ['no-space', 'ENOSPC'],
      ['read-only', 'EPERM'],
      ['gave-up', 'EIO'],
      ['unsupported', 'ENOTSUP'],
      ['shutting-down', 'ESHUTDOWN'],
    ];
    const payload = Buffer.from('abc');
    for (const [code, errno] of failures) {
      for (const ask of [
        { type: command.read, length: 3 },
        { type: command.write, payload },
        { type: command.flush },
        { type: command.trim, length: 3 },
        { type: command.writeZeroes, length: 3 },
        { type: command.cache, length: 3 },
        ...(structured ? [{ type: command.blockStatus, length: 3 }] : []),
      ]) {
        volume.failNext = new Failure(code, `it was ${code}`);
        const { error, message } = await client.request(ask);
        assert.equal(error, errno, `${code} of command ${ask.type}`);
        assert.equal(message, structured ? `it was ${code}` : '');
      }
    }
    assert.equal((await client.read(0, 3)).length, 3);
  });

  test(`${form} replies: bounds of the disk`, async (t) => {
    const { open } = await serve(t, mebibyte);
    const client = await open({ structured });
    const payload = Buffer.from('ab');
    for (const offset of [mebibyte - 1, mebibyte, mebibyte + 1, 2 ** 32 - 1, 2 ** 53 - 1]) {
      await refused(client, { type: command.read, offset, length: 2 }, 'EINVAL');
      await refused(client, { type: command.trim, offset, length: 2 }, 'EINVAL');
      await refused(client, { type: command.cache, offset, length: 2 }, 'EINVAL');
      await refused(client, { type: command.write, offset, payload }, 'ENOSPC');
      await refused(client, { type: command.writeZeroes, offset, length: 2 }, 'ENOSPC');
      if (structured) await refused(client, { type: command.blockStatus, offset, length: 2 }, 'EINVAL');
    }
    await succeeds(client, { type: command.read, offset: mebibyte - 2, length: 2 });
    await succeeds(client, { type: command.trim, offset: 0, length: mebibyte });
    await refused(client, { type: command.trim, offset: 0, length: mebibyte + 1 }, 'EINVAL');
    await refused(client, { type: command.writeZeroes, offset: 0, length: 2 ** 32 - 1 }, 'ENOSPC');
  });

  test(`${form} replies: offsets that no number of ours can hold are out of range, and wrap nothing`, async (t) => {
    const { open } = await serve(t, 2 ** 53 - 1);
    const client = await open({ structured });
    const last = Buffer.from('z');
    await client.write(2 ** 53 - 2, last);
    assert.deepEqual(await client.read(2 ** 53 - 2, 1), last);
    await client.write(0, last);
    for (const offset of [2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 2n, 2n ** 64n - 1n]) {
      await refused(client, { type: command.write, offset, payload: Buffer.from('!!') }, 'ENOSPC');
      await refused(client, { type: command.writeZeroes, offset, length: 2 }, 'ENOSPC');
      await refused(client, { type: command.read, offset, length: 2 }, 'EINVAL');
      await refused(client, { type: command.trim, offset, length: 2 ** 32 - 1 }, 'EINVAL');
    }
    assert.deepEqual(await client.read(0, 1), last);
    assert.deepEqual(await client.read(2 ** 53 - 2, 1), last);
  });

  test(`${form} replies: no bytes at all are a success that touches nothing`, async (t) => {
    const { open, volume } = await serve(t, mebibyte);
    const client = await open({ structured });
    for (const type of [command.read, command.write, command.trim, command.writeZeroes, command.cache]) {
      for (const offset of [0, mebibyte]) await succeeds(client, { type, flags: fua, offset, length: 0 });
    }
    assert.deepEqual(volume.calls, []);
    await refused(client, { type: command.read, offset: mebibyte + 1, length: 0 }, 'EINVAL');
    await refused(client, { type: command.write, offset: mebibyte + 1, length: 0 }, 'ENOSPC');
    await refused(client, { type: command.blockStatus, offset: 0, length: 0 }, 'EINVAL');
  });

  test(`${form} replies: a payload that is refused is skipped, whatever its length, and the next request understood`, async (t) => {
    const { open } = await serve(t, mebibyte);
    const client = await open({ structured });
    await client.write(0, Buffer.from('kept'));
    const tooLong = Buffer.alloc(payloadBytesMax + 1, '!');
    for (const ask of [
      { type: command.write, payload: tooLong },
      { type: command.write, flags: 0x8000, payload: Buffer.from('!') },
      { type: command.write, flags: noHole, payload: Buffer.alloc(100_000, '!') },
    ]) {
      const [reply, next] = await Promise.all([client.request(ask), client.read(0, 4)]);
      assert.equal(reply.error, 'EINVAL');
      assert.equal(next.toString(), 'kept');
    }
  });

  test(`${form} replies: unknown commands are EINVAL`, async (t) => {
    const { open } = await serve(t, mebibyte);
    const client = await open({ structured });
    for (const type of [8, 9, 255, 65_535]) await refused(client, { type, length: 4 }, 'EINVAL');
    await succeeds(client, { type: command.read, length: 4 });
  });

  test(`${form} replies: each flag goes with its own command, and FUA with all`, async (t) => {
    const { open } = await serve(t, mebibyte);
    const client = await open({ structured });
    const allowed: [number, number][] = [
      [command.read, fua | (structured ? df : 0)],
      [command.write, fua],
      [command.flush, fua],
      [command.trim, fua],
      [command.cache, fua],
      [command.writeZeroes, fua | noHole | fastZero],
      ...(structured ? ([[command.blockStatus, fua | reqOne]] as [number, number][]) : []),
    ];
    for (const [type, flags] of allowed) {
      const rest =
        type === command.write ? { payload: Buffer.from('abc') } : { length: type === command.flush ? 0 : 3 };
      for (let flag = 1; flag < 0x10000; flag *= 2) {
        if ((flags & flag) === 0) await refused(client, { type, flags: flag, ...rest }, 'EINVAL');
        else await succeeds(client, { type, flags: flag, ...rest });
      }
      await succeeds(client, { type, flags, ...rest });
    }
  });
}

test('a read that is too long can be told from a wrong one where the client may try a shorter one', async (t) => {
  const { open } = await serve(t, 80 * mebibyte);
  const ask = { type: command.read, length: payloadBytesMax + 1 };
  await refused(await open({ structured: true }), ask, 'EOVERFLOW');
  await refused(await open({ structured: true }), { ...ask, flags: df }, 'EOVERFLOW');
  await refused(await open({ structured: false }), ask, 'EINVAL');
});

test('commands without payload may be longer than any payload', async (t) => {
  const { open } = await serve(t, 2 ** 40);
  const client = await open();
  for (const type of [command.trim, command.writeZeroes, command.cache]) {
    await succeeds(client, { type, offset: 2 ** 32, length: payloadBytesMax * 4 });
  }
  await succeeds(client, { type: command.blockStatus, offset: 0, length: 2 ** 28 });
});

test('READ with DF comes in one piece, as without it', async (t) => {
  const { open } = await serve(t, 40 * mebibyte);
  const client = await open();
  for (const flags of [0, df]) {
    const { error, data } = await client.request({ type: command.read, flags, offset: 5, length: payloadBytesMax });
    assert.equal(error, null);
    assert.equal(data.length, payloadBytesMax);
  }
});

test('FUA reaches the volume with every command that writes', async (t) => {
  const { open, volume } = await serve(t, mebibyte);
  const client = await open();
  await client.write(0, Buffer.from('abc'));
  assert.deepEqual(volume.calls, []);
  await client.write(0, Buffer.from('abc'), fua);
  for (const type of [command.trim, command.writeZeroes, command.flush, command.cache]) {
    await succeeds(client, { type, flags: fua, length: type === command.flush ? 0 : 3 });
    await succeeds(client, { type, length: type === command.flush ? 0 : 3 });
  }
  assert.deepEqual(volume.calls, [
    'fua',
    'trim fua',
    'trim',
    'zero may-trim fua',
    'zero may-trim',
    'flush',
    'flush',
    'cache',
    'cache',
  ]);
});

test('WRITE_ZEROES says whether it may make holes, and whether it must be fast', async (t) => {
  const { open, volume } = await serve(t, mebibyte);
  const client = await open();
  await client.write(0, Buffer.alloc(1000, 'x'));
  for (const flags of [0, noHole, fastZero, noHole | fastZero]) {
    await succeeds(client, { type: command.writeZeroes, flags, offset: 10, length: 100 });
  }
  assert.deepEqual(volume.calls, ['zero may-trim', 'zero', 'zero may-trim fast', 'zero fast']);
  const read = await client.read(0, 1000);
  assert.ok(read.equals(Buffer.concat([Buffer.alloc(10, 'x'), Buffer.alloc(100), Buffer.alloc(890, 'x')])));
});

test('a flush is served with whatever offset and length it carries', async (t) => {
  const { open, volume } = await serve(t, mebibyte);
  const client = await open();
  await succeeds(client, { type: command.flush, offset: 2n ** 64n - 1n, length: 2 ** 32 - 1 });
  assert.deepEqual(volume.calls, ['flush']);
});

test('BLOCK_STATUS tells holes from data, and one extent if no more is wanted', async (t) => {
  const { open } = await serve(t, mebibyte);
  const client = await open();
  await client.write(128 * kibibyte, Buffer.alloc(64 * kibibyte, 'x'));
  const whole = await client.request({ type: command.blockStatus, offset: 0, length: mebibyte });
  assert.deepEqual(whole.descriptors, [
    { length: 128 * kibibyte, kind: 'hole' },
    { length: 64 * kibibyte, kind: 'data' },
    { length: 832 * kibibyte, kind: 'hole' },
  ]);
  const part = { type: command.blockStatus, offset: 190 * kibibyte, length: 10 * kibibyte };
  const expected = [
    { length: 2 * kibibyte, kind: 'data' },
    { length: 8 * kibibyte, kind: 'hole' },
  ];
  assert.deepEqual((await client.request(part)).descriptors, expected);
  assert.deepEqual((await client.request({ ...part, flags: reqOne })).descriptors, expected.slice(0, 1));
});

test('BLOCK_STATUS of a chequered disk is cut at a bounded number of extents', async (t) => {
  const { open } = await serve(t, 256 * mebibyte);
  const client = await open();
  for (let chunk = 0; chunk < 4096; chunk += 2) await client.write(chunk * 64 * kibibyte, Buffer.from('x'));
  const { descriptors } = await client.request({ type: command.blockStatus, length: 256 * mebibyte });
  assert.equal(descriptors.length, 1024);
  assert.ok(
    descriptors.every(({ length, kind }, index) => length === 65_536 && (kind === 'data') === (index % 2 === 0)),
  );
});

test('BLOCK_STATUS without base:allocation is EINVAL', async (t) => {
  const { open } = await serve(t, mebibyte);
  for (const wishes of [{ structured: true, allocation: false }, { structured: false }]) {
    await refused(await open(wishes), { type: command.blockStatus, length: 512 }, 'EINVAL');
  }
});

test('a read-only export refuses what changes it with EPERM, and serves the rest', async (t) => {
  const { open, volume } = await serve(t, mebibyte, true);
  const client = await open();
  await refused(client, { type: command.write, payload: Buffer.alloc(100_000, 'x') }, 'EPERM');
  await refused(client, { type: command.trim, length: 512 }, 'EPERM');
  await refused(client, { type: command.writeZeroes, length: 512 }, 'EPERM');
  await refused(client, { type: command.writeZeroes, length: 0 }, 'EPERM');
  for (const type of [command.read, command.cache, command.blockStatus]) await succeeds(client, { type, length: 512 });
  await succeeds(client, { type: command.flush });
  assert.deepEqual(volume.calls, ['cache', 'flush']);
});

test('a long message of the volume is cut between characters', async (t) => {
  const { open, volume } = await serve(t, mebibyte);
  const client = await open();
  for (const padding of ['', 'a', 'ab', 'abc']) {
    volume.failNext = new Failure('disk-error', `${padding}${'😀'.repeat(1000)}`);
    const { message } = await client.request({ type: command.flush });
    assert.match(message, /^[abc]*(😀){127,128}$/u);
  }
});
