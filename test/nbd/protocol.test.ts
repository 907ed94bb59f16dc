import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { after, before, test } from 'node:test';
import {
  COMMAND,
  ERROR,
  INFO,
  MAGIC_OPTION,
  MAGIC_OPTION_REPLY,
  MAGIC_REQUEST,
  MAGIC_STRUCTURED_REPLY,
  OPTION,
  OPTION_REPLY,
} from '../../src/nbd/protocol.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { launchInstance, type TestInstance } from '../support/instances.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';
import { startTestServer, type TestServer } from '../support/server.ts';

let server: TestServer;
let instance: TestInstance;
const file = new FileCleanup();
before(async () => {
  server = await startTestServer(file);
  instance = await launchInstance(server.ec2, [1]);
});
after(async () => {
  await server.stop();
  file.run();
});

/** A bare connection, byte by byte. */
class Wire {
  readonly socket: Socket;
  #bytes = Buffer.alloc(0);
  #closed = false;
  #wake: () => void = () => undefined;

  constructor() {
    this.socket = connect(server.nbdSocket);
    this.socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#wake();
    });
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => {
      this.#closed = true;
      this.#wake();
    });
  }

  async take(count: number): Promise<Buffer> {
    while (this.#bytes.length < count) {
      if (this.#closed) throw new Error('closed');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const taken = this.#bytes.subarray(0, count);
    this.#bytes = this.#bytes.subarray(count);
    return taken;
  }

  async closed(): Promise<void> {
    while (!this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async greet(flags = 3): Promise<void> {
    await this.take(18);
    const client = Buffer.alloc(4);
    client.writeUInt32BE(flags);
    this.socket.write(client);
  }

  option(number: number, data: Buffer = Buffer.alloc(0), claimed = data.length): void {
    const header = Buffer.alloc(16);
    header.writeBigUInt64BE(MAGIC_OPTION, 0);
    header.writeUInt32BE(number, 8);
    header.writeUInt32BE(claimed, 12);
    this.socket.write(Buffer.concat([header, data]));
  }

  async reply(): Promise<{ type: number; data: Buffer }> {
    const header = await this.take(20);
    assert.equal(header.readBigUInt64BE(0), MAGIC_OPTION_REPLY);
    return { type: header.readUInt32BE(12), data: await this.take(header.readUInt32BE(16)) };
  }

  async go(name: string): Promise<void> {
    this.option(OPTION.GO, goData(name));
    while ((await this.reply()).type !== OPTION_REPLY.ACK);
  }

  request(command: number, offset: bigint, length: number, flags = 0, payload: Buffer = Buffer.alloc(0)): void {
    const header = Buffer.alloc(28);
    header.writeUInt32BE(MAGIC_REQUEST, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(command, 6);
    header.writeBigUInt64BE(42n, 8);
    header.writeBigUInt64BE(offset, 16);
    header.writeUInt32BE(length, 24);
    this.socket.write(Buffer.concat([header, payload]));
  }

  /** A simple reply's error number. */
  async error(): Promise<number> {
    const header = await this.take(16);
    assert.equal(header.readBigUInt64BE(8), 42n);
    return header.readUInt32BE(4);
  }
}

function goData(name: string, infos: number[] = []): Buffer {
  const text = Buffer.from(name);
  const data = Buffer.alloc(6 + text.length + 2 * infos.length);
  data.writeUInt32BE(text.length, 0);
  text.copy(data, 4);
  data.writeUInt16BE(infos.length, 4 + text.length);
  for (const [index, info] of infos.entries()) data.writeUInt16BE(info, 6 + text.length + 2 * index);
  return data;
}

test('an option that no one knows is refused, and the haggling goes on', async () => {
  const wire = new Wire();
  await wire.greet();
  wire.option(77, randomBytes(100));
  assert.equal((await wire.reply()).type, OPTION_REPLY.ERR_UNSUP);
  wire.option(5);
  assert.equal((await wire.reply()).type, OPTION_REPLY.ERR_UNSUP, 'STARTTLS is not offered');
  await wire.go(instance.volumes[0]);
  wire.request(COMMAND.READ, 0n, 512);
  assert.equal(await wire.error(), 0);
  await wire.take(512);
  wire.socket.destroy();
});

test('INFO tells size, flags, name, description and block sizes, and leaves the haggling open', async () => {
  const wire = new Wire();
  await wire.greet();
  wire.option(OPTION.INFO, goData(instance.volumes[0], [INFO.NAME, INFO.DESCRIPTION, INFO.BLOCK_SIZE]));
  const seen = new Map<number, Buffer>();
  for (;;) {
    const { type, data } = await wire.reply();
    if (type === OPTION_REPLY.ACK) break;
    seen.set(data.readUInt16BE(0), data.subarray(2));
  }
  assert.equal(seen.get(INFO.EXPORT)?.readBigUInt64BE(0), 1024n ** 3n);
  assert.equal(seen.get(INFO.NAME)?.toString(), instance.volumes[0]);
  assert.deepEqual(
    [0, 4, 8].map((at) => seen.get(INFO.BLOCK_SIZE)?.readUInt32BE(at)),
    [1, 4096, 32 * 1024 * 1024],
  );
  wire.option(OPTION.ABORT);
  assert.equal((await wire.reply()).type, OPTION_REPLY.ACK);
  await wire.closed();
});

test('EXPORT_NAME, the oldest way in, works too; an unknown name ends the connection', async () => {
  const wire = new Wire();
  await wire.greet();
  wire.option(OPTION.EXPORT_NAME, Buffer.from(instance.volumes[0]));
  const answer = await wire.take(10);
  assert.equal(answer.readBigUInt64BE(0), 1024n ** 3n);
  wire.request(COMMAND.READ, 512n, 512);
  assert.equal(await wire.error(), 0);
  wire.socket.destroy();
  const stranger = new Wire();
  await stranger.greet();
  stranger.option(OPTION.EXPORT_NAME, Buffer.from('vol-0123456789abcdef0'));
  await stranger.closed();
});

test('GO to an export that is not there says so, and another may be tried', async () => {
  const wire = new Wire();
  await wire.greet();
  for (const name of ['', 'vol-0123456789abcdef0', '../catalog.sqlite', 'snap-0123456789abcdef0', '\u0000']) {
    wire.option(OPTION.GO, goData(name));
    assert.equal((await wire.reply()).type, OPTION_REPLY.ERR_UNKNOWN);
  }
  wire.option(OPTION.GO, goData('x'), undefined);
  assert.equal((await wire.reply()).type, OPTION_REPLY.ERR_UNKNOWN);
  const lying = goData('vol-1');
  lying.writeUInt32BE(4000, 0);
  wire.option(OPTION.GO, lying);
  assert.equal((await wire.reply()).type, OPTION_REPLY.ERR_INVALID);
  wire.socket.destroy();
});

test('bad requests are answered as the spec says, and the connection goes on', async () => {
  const wire = new Wire();
  await wire.greet();
  await wire.go(instance.volumes[0]);
  const size = 1024n ** 3n;
  const cases: [string, () => void, number][] = [
    ['a read past the end', () => wire.request(COMMAND.READ, size - 100n, 200), ERROR.EINVAL],
    ['a read at the end of the world', () => wire.request(COMMAND.READ, 2n ** 64n - 1n, 1), ERROR.EINVAL],
    ['a write past the end', () => wire.request(COMMAND.WRITE, size - 100n, 200, 0, Buffer.alloc(200)), ERROR.ENOSPC],
    ['a read of nothing', () => wire.request(COMMAND.READ, 0n, 0), ERROR.EINVAL],
    ['a read larger than allowed', () => wire.request(COMMAND.READ, 0n, 33 * 1024 * 1024), ERROR.EINVAL],
    ['an unknown command', () => wire.request(99, 0n, 0), ERROR.EINVAL],
    ['an unknown flag', () => wire.request(COMMAND.READ, 0n, 512, 0x8000), ERROR.EINVAL],
    ['DF without structured replies', () => wire.request(COMMAND.READ, 0n, 512, 4), ERROR.EINVAL],
    ['block status that was not negotiated', () => wire.request(COMMAND.BLOCK_STATUS, 0n, 512), ERROR.EINVAL],
    ['a flush with a length', () => wire.request(COMMAND.FLUSH, 0n, 1), ERROR.EINVAL],
    ['a trim past the end', () => wire.request(COMMAND.TRIM, size, 4096), ERROR.ENOSPC],
  ];
  for (const [what, ask, expected] of cases) {
    ask();
    assert.equal(await wire.error(), expected, what);
  }
  wire.request(COMMAND.CACHE, 0n, 1_048_576);
  assert.equal(await wire.error(), 0);
  // In step still: a write in pieces, then a read.
  const bytes = randomBytes(70_000);
  wire.request(COMMAND.WRITE, 1000n, bytes.length, 1);
  for (let at = 0; at < bytes.length; at += 9999) wire.socket.write(bytes.subarray(at, at + 9999));
  assert.equal(await wire.error(), 0);
  wire.request(COMMAND.READ, 1000n, bytes.length);
  assert.equal(await wire.error(), 0);
  assert.ok((await wire.take(bytes.length)).equals(bytes));
  wire.socket.destroy();
});

test('block status in structured replies tells holes from data', async () => {
  const wire = new Wire();
  await wire.greet();
  wire.option(OPTION.STRUCTURED_REPLY);
  assert.equal((await wire.reply()).type, OPTION_REPLY.ACK);
  const name = Buffer.from(instance.root);
  const query = Buffer.from('base:allocation');
  const context = Buffer.alloc(4 + name.length + 4 + 4 + query.length);
  let at = context.writeUInt32BE(name.length, 0);
  at += name.copy(context, at);
  at = context.writeUInt32BE(1, at);
  at = context.writeUInt32BE(query.length, at);
  query.copy(context, at);
  wire.option(OPTION.SET_META_CONTEXT, context);
  assert.equal((await wire.reply()).type, OPTION_REPLY.META_CONTEXT);
  assert.equal((await wire.reply()).type, OPTION_REPLY.ACK);
  await wire.go(instance.root);
  wire.request(COMMAND.WRITE, 1_048_576n, 4096, 0, Buffer.alloc(4096, 1));
  await wire.take(20);
  wire.request(COMMAND.BLOCK_STATUS, 0n, 4 * 1024 * 1024);
  const header = await wire.take(20);
  assert.equal(header.readUInt32BE(0), MAGIC_STRUCTURED_REPLY);
  const payload = await wire.take(header.readUInt32BE(16));
  const extents = Array.from({ length: (payload.length - 4) / 8 }, (_, index) => [
    payload.readUInt32BE(4 + index * 8),
    payload.readUInt32BE(8 + index * 8),
  ]);
  assert.deepEqual(extents, [
    [1_048_576, 3],
    [4096, 0],
    [3 * 1024 * 1024 - 4096, 3],
  ]);
  wire.socket.destroy();
});

test('garbage, floods and sudden closes end at most their own connection', async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const witness = await server.connect(instance.volumes[0]);
  const known = randomBytes(65_536);
  await witness.write(500_000_000, known);
  for (let round = 0; round < 300; round += 1) {
    const wire = new Wire();
    const dice = random();
    if (dice < 0.3) {
      wire.socket.write(randomBytes(1 + Math.floor(random() * 300)));
    } else {
      await wire.greet().catch(() => undefined);
      if (dice < 0.5)
        wire.option(Math.floor(random() * 12), randomBytes(Math.floor(random() * 200)), Math.floor(random() * 2 ** 32));
      else if (dice < 0.6) wire.socket.write(randomBytes(500));
      else {
        await wire.go(instance.root);
        if (dice < 0.8) wire.socket.write(randomBytes(1 + Math.floor(random() * 2000)));
        else {
          for (let burst = 0; burst < 50; burst += 1) {
            wire.request(
              Math.floor(random() * 9),
              BigInt(Math.floor(random() * 2 ** 31)),
              Math.floor(random() * 200_000),
              Math.floor(random() * 16),
            );
          }
        }
      }
    }
    if (random() < 0.8) wire.socket.destroy();
    else wire.socket.end();
    if (round % 50 === 0) assert.ok((await witness.read(500_000_000, known.length)).equals(known));
  }
  assert.ok((await witness.read(500_000_000, known.length)).equals(known), `seed ${seed}`);
  await witness.close();
  assert.doesNotMatch(server.log(), /starting it again/, 'no worker died');
});

test('who asks for thousands of lists at once, and reads late, gets them all; nobody waits for that', async () => {
  const wire = new Wire();
  await wire.greet();
  wire.socket.pause();
  for (let list = 0; list < 5_000; list += 1) wire.option(OPTION.LIST);
  const client = await server.connect(instance.volumes[0]);
  await client.write(0, Buffer.alloc(4096, 9));
  await client.close();
  wire.socket.resume();
  let names = 0;
  for (let lists = 0; lists < 5_000; ) {
    const { type } = await wire.reply();
    if (type === OPTION_REPLY.SERVER) names += 1;
    else {
      assert.equal(type, OPTION_REPLY.ACK);
      lists += 1;
    }
  }
  // The root, too.
  assert.equal(names, 5_000 * (instance.volumes.length + 1));
  await wire.go(instance.volumes[0]);
  wire.socket.destroy();
});

test('any number of clients that keep silent shut nobody out', async (t) => {
  const silent = Array.from({ length: 700 }, () => new Wire());
  t.after(() => {
    for (const { socket } of silent) socket.destroy();
  });
  // The latest are greeted still; who came first had to go.
  await silent[699].take(18);
  for (let turn = 0; turn < 3; turn += 1) {
    const client = await server.connect(instance.volumes[0]);
    await client.write(0, Buffer.alloc(4096, turn + 1));
    assert.ok((await client.read(0, 4096)).equals(Buffer.alloc(4096, turn + 1)));
    await client.close();
  }
  const closed = silent.filter(({ socket }) => socket.destroyed || socket.readyState !== 'open');
  assert.ok(closed.length >= 400 && closed.length < 700, `${closed.length} closed`);
  assert.ok(
    closed.every((wire) => silent.indexOf(wire) < 460),
    'one that came late',
  );
});

test('a thousand connections, and none loses its first request on the way to a worker', async () => {
  for (let round = 0; round < 50; round += 1) {
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        const client = await server.connect(instance.volumes[0]);
        await client.read(0, 4096);
        await client.close();
      }),
    );
  }
});
