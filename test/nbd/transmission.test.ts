import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { newIoCounters } from '../../src/nbd/io-counters.ts';
import { COMMAND, MAGIC_REQUEST } from '../../src/nbd/protocol.ts';
import { Transmission } from '../../src/nbd/transmission.ts';
import type { OpenVolume, ReadNow } from '../../src/volumes/engine.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const SIZE = 8 * 1024 * 1024;
const PAGE = 4096;

/** A volume in memory; while it is held, its writes wait, as they do in a cut. */
class HeldVolume implements OpenVolume {
  readonly sizeBytes: number;
  readonly isPartlyRemote = false;
  /** Pages that are on the disk alone; those that are being brought near. */
  readonly cold = new Set<number>();
  readonly bringing = new Map<number, () => void>();
  readonly savesOldPages = false;
  readonly bytes = Buffer.alloc(SIZE);
  /** Bytes, by all reads together. */
  readBytes = 0;
  #held: PromiseWithResolvers<void> | undefined;

  constructor(sizeBytes = SIZE) {
    this.sizeBytes = sizeBytes;
  }

  get writesMayWait(): boolean {
    return this.#held !== undefined;
  }

  hold(): void {
    this.#held = Promise.withResolvers();
  }

  release(): void {
    const held = this.#held;
    this.#held = undefined;
    held?.resolve();
  }

  readNow(target: Uint8Array, targetStart: number, length: number, offset: number): ReadNow {
    if (this.cold.has(Math.floor(offset / PAGE))) return 'on disk';
    this.read(target, targetStart, length, offset);
    return 'done';
  }

  read(target: Uint8Array, targetStart: number, length: number, offset: number): void {
    this.readBytes += length;
    target.set(this.bytes.subarray(offset, offset + length), targetStart);
  }

  write(sources: readonly Uint8Array[], _length: number, offset: number): void | Promise<void> {
    if (this.#held !== undefined) return this.#held.promise.then(() => this.write(sources, _length, offset));
    let at = offset;
    for (const source of sources) {
      this.bytes.set(source, at);
      at += source.length;
    }
  }

  bringNear(offset: number): Promise<void> {
    const page = Math.floor(offset / PAGE);
    return new Promise((resolve) => {
      this.bringing.set(page, () => {
        this.bringing.delete(page);
        this.cold.delete(page);
        resolve();
      });
    });
  }

  saveAhead(): void {}
  zero(): void {}
  discard(): void | Promise<void> {
    return this.#held?.promise;
  }
  async flush(): Promise<void> {}
  extents(_offset: number, length: number): { length: number; hole: boolean }[] {
    return [{ length, hole: false }];
  }
}

/** A client of a volume, past the handshake. */
async function connected(t: TestContext, volume: OpenVolume): Promise<Socket> {
  const path = `${temporaryDirectory(t)}/nbd.sock`;
  const server = createServer({ pauseOnConnect: true }, (socket: Socket) => {
    const options = { structuredReplies: false, baseAllocation: false, readOnly: false };
    new Transmission(socket, volume, options, newIoCounters()).start(Buffer.alloc(0), Buffer.alloc(0));
  });
  server.listen(path);
  await once(server, 'listening');
  const client = connect(path);
  t.after(() => {
    client.destroy();
    server.close();
  });
  return client;
}

function requestBytes(command: number, number: number, offset: number, length: number): Buffer {
  const request = Buffer.alloc(28);
  request.writeUInt32BE(MAGIC_REQUEST, 0);
  request.writeUInt16BE(command, 6);
  request.writeUInt32BE(number, 12);
  request.writeUInt32BE(offset, 20);
  request.writeUInt32BE(length, 24);
  return request;
}

test('requests that come in pieces of any size, over a real socket, with holds among them: every byte where it belongs', async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const volume = new HeldVolume();
  const client = await connected(t, volume);
  /** Data that is still to come, by the request's number. */
  const reads = new Map<number, Buffer>();
  const answered = new Set<number>();
  let received = Buffer.alloc(0);
  client.on('data', (bytes: Buffer) => {
    received = Buffer.concat([received, bytes]);
    for (;;) {
      if (received.length < 16) return;
      const number = received.readUInt32BE(12);
      const expected = reads.get(number);
      if (received.length < 16 + (expected?.length ?? 0)) return;
      assert.equal(received.readUInt32BE(4), 0, `request ${number} failed`);
      if (expected !== undefined)
        assert.ok(received.subarray(16, 16 + expected.length).equals(expected), `request ${number} read wrong bytes`);
      assert.ok(!answered.has(number), `request ${number} was answered twice`);
      answered.add(number);
      received = received.subarray(16 + (expected?.length ?? 0));
    }
  });
  const model = Buffer.alloc(SIZE);
  for (let round = 0, number = 0; round < 60; round += 1) {
    if (random() < 0.3) volume.hold();
    const stream: Buffer[] = [];
    const until = number + 1 + Math.floor(random() * 20);
    const writes = random() < 0.7;
    // Either writes, apart from each other, or reads: nothing here depends on who comes first.
    const share = Math.floor(SIZE / (until - number));
    for (let index = 0; number < until; index += 1, number += 1) {
      const length = 1 + Math.floor(random() ** 6 * (share - 1));
      const offset = index * share + Math.floor(random() * (share - length));
      stream.push(requestBytes(writes ? COMMAND.WRITE : COMMAND.READ, number, offset, length));
      if (writes) {
        const bytes = Buffer.alloc(length, 1 + Math.floor(random() * 255));
        bytes.writeUInt8(number & 0xff, length - 1);
        bytes.copy(model, offset);
        stream.push(bytes);
      } else {
        reads.set(number, Buffer.from(model.subarray(offset, offset + length)));
      }
    }
    const whole = Buffer.concat(stream);
    for (let at = 0; at < whole.length; ) {
      const piece = 1 + Math.floor(random() ** 3 * 400_000);
      client.write(whole.subarray(at, at + piece));
      at += piece;
      if (random() < 0.3) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
    volume.release();
    while (answered.size < number) await new Promise((resolve) => setTimeout(resolve, 1));
    assert.ok(volume.bytes.equals(model), `seed ${seed}: round ${round}`);
  }
});

test('a client that asks for far more than it takes is read for no further than it takes; all is answered in the end', async (t) => {
  const volume = new HeldVolume();
  const client = await connected(t, volume);
  const length = 1024 * 1024;
  const requests = 300;
  // One piece of 8 KiB asks for 300 MiB.
  client.write(
    Buffer.concat(Array.from({ length: requests }, (_, number) => requestBytes(COMMAND.READ, number, 0, length))),
  );
  let received = 0;
  let most = 0;
  for await (const bytes of client) {
    received += (bytes as Buffer).length;
    most = Math.max(most, volume.readBytes - received);
    if (received === requests * (16 + length)) break;
  }
  assert.equal(volume.readBytes, requests * length);
  // Eight MiB that wait, what the two sockets hold, and one answer more.
  assert.ok(most < 16 * length, `${most} bytes were read ahead of the client`);
});

test('a client that says good-bye while its requests wait has them answered first', async (t) => {
  const volume = new HeldVolume();
  const client = await connected(t, volume);
  volume.hold();
  const disconnect = requestBytes(COMMAND.DISCONNECT, 2, 0, 0);
  client.write(Buffer.concat([requestBytes(COMMAND.WRITE, 1, 4096, 3), Buffer.from('abc'), disconnect]));
  const received: Buffer[] = [];
  client.on('data', (bytes: Buffer) => received.push(bytes));
  const ended = once(client, 'end');
  // Where the good-bye was taken for the end, it comes now.
  await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 50))]);
  volume.release();
  await ended;
  const reply = Buffer.concat(received);
  assert.equal(reply.length, 16);
  assert.equal(reply.readUInt32BE(4), 0);
  assert.equal(reply.readUInt32BE(12), 1);
  assert.equal(volume.bytes.toString('latin1', 4096, 4099), 'abc');
});

test('what is on the local disk needs not be brought near', async (t) => {
  const volume = new HeldVolume();
  const client = await connected(t, volume);
  client.write(requestBytes(COMMAND.CACHE, 1, 0, SIZE));
  const [reply] = (await once(client, 'data')) as [Buffer];
  assert.equal(reply.readUInt32BE(4), 0);
  assert.equal(volume.readBytes, 0);
});

test('while gigabytes are discarded, what else the client asks for is done', async (t) => {
  const volume = new HeldVolume(4 * 1024 ** 3);
  const client = await connected(t, volume);
  volume.hold();
  // Where the read is not answered before, it is answered after this.
  const released = new Promise((resolve) => setTimeout(resolve, 200)).then(() => volume.release());
  client.write(requestBytes(COMMAND.TRIM, 1, 0, 3 * 1024 ** 3));
  client.write(requestBytes(COMMAND.READ, 2, 0, 1));
  const [first] = (await once(client, 'data')) as [Buffer];
  assert.equal(first.readUInt32BE(12), 2);
  await released;
  const [second] = (await once(client, 'data')) as [Buffer];
  assert.equal(second.readUInt32BE(12), 1);
});

test('reads of what is on the disk wait for it, others do not; what has come meanwhile is answered with what was waited for', async (t) => {
  const volume = new HeldVolume();
  const client = await connected(t, volume);
  const pages = Array.from({ length: 10 }, (_, page) => page);
  for (const page of pages) {
    volume.bytes.fill(page + 1, page * PAGE, (page + 1) * PAGE);
    volume.cold.add(page);
  }
  const received: { number: number; byte: number }[] = [];
  let bytes = Buffer.alloc(0);
  client.on('data', (more: Buffer) => {
    bytes = Buffer.concat([bytes, more]);
    for (; bytes.length >= 17; bytes = bytes.subarray(17)) {
      assert.equal(bytes.readUInt32BE(4), 0);
      received.push({ number: bytes.readUInt32BE(12), byte: bytes[16] });
    }
  });
  const until = async (what: () => boolean): Promise<void> => {
    while (!what()) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  client.write(Buffer.concat(pages.map((page) => requestBytes(COMMAND.READ, page, page * PAGE, 1))));
  client.write(requestBytes(COMMAND.READ, 20, 20 * PAGE, 1));
  await until(() => received.length === 1);
  assert.deepEqual(received, [{ number: 20, byte: 0 }]);
  assert.deepEqual([...volume.bringing.keys()], [0, 1, 2, 3], 'few threads wait');
  // The disk has brought what no thread waits for, too.
  for (const page of [5, 7]) volume.cold.delete(page);
  volume.bringing.get(2)?.();
  await until(() => received.length === 4);
  assert.deepEqual(new Set(received.slice(1).map(({ number }) => number)), new Set([2, 5, 7]));
  // Gone again before it could be read, each time: in the end the disk is waited for.
  for (let times = 0; times < 3; times += 1) {
    await until(() => volume.bringing.has(0));
    const brought = volume.bringing.get(0);
    brought?.();
    volume.cold.add(0);
  }
  await until(() => received.some(({ number }) => number === 0));
  while (received.length < 11) {
    for (const brought of volume.bringing.values()) brought();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  for (const { number, byte } of received) assert.equal(byte, number === 20 ? 0 : number + 1);
  assert.equal(new Set(received.map(({ number }) => number)).size, 11);
});
