import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { type TestContext, test } from 'node:test';
import { giveBack, roomFor } from '../../src/types/memory.ts';
import { MIB } from '../../src/types/units.ts';
import { type HttpAnswer, HttpServer } from '../../src/wire/http-server.ts';

const OK: HttpAnswer = { status: 200, contentType: 'text/plain', body: 'done' };
const WHOLE = 'POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nok';

async function connect(port: number, bytes: string): Promise<{ socket: net.Socket; ended: Promise<string> }> {
  const socket = net.connect(port, '127.0.0.1');
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  if (bytes !== '') socket.write(bytes);
  const ended = once(socket, 'close').then(() => Buffer.concat(chunks).toString());
  return { socket, ended };
}

test('a server that stops answers what it was asked whole, and waits for nobody else', async () => {
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<HttpAnswer>();
  let calls = 0;
  const server = new HttpServer(
    () => {
      calls += 1;
      if (calls === 1) return Promise.resolve(OK);
      asked.resolve();
      return answer.promise;
    },
    () => OK,
    { tls: undefined, connectionsPerClient: 100 },
  );
  const port = await server.listen('127.0.0.1', 0);
  const idle = await connect(port, WHOLE);
  await once(idle.socket, 'data');
  const silent = await connect(port, '');
  const halfHead = await connect(port, 'POST / HTTP/1.1\r\nHost: here\r\n');
  const halfBody = await connect(port, 'POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\nhalf');
  const whole = await connect(port, WHOLE);
  await asked.promise;

  let isClosed = false;
  const closed = server.close().then(() => {
    isClosed = true;
  });
  await assert.rejects(connect(port, ''), /ECONNREFUSED/);
  assert.ok(!isClosed, 'a call is under way');
  answer.resolve(OK);
  await closed;
  const answered = await whole.ended;
  assert.match(answered, /^HTTP\/1.1 200 OK\r\n/);
  assert.match(answered, /\r\nconnection: close\r\n/i);
  assert.match(answered, /\r\n\r\ndone$/);
  assert.match(await idle.ended, /done$/);
  for (const { ended } of [silent, halfHead, halfBody]) assert.equal(await ended, '');
});

test('who asks and is gone before the answer does not keep a server from stopping', async () => {
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<HttpAnswer>();
  const server = new HttpServer(
    () => {
      asked.resolve();
      return answer.promise;
    },
    () => OK,
    { tls: undefined, connectionsPerClient: 100 },
  );
  const port = await server.listen('127.0.0.1', 0);
  const { socket, ended } = await connect(port, WHOLE);
  await asked.promise;
  socket.destroy();
  await ended;
  // What was begun for him goes on to its end.
  let isClosed = false;
  const closed = server.close().then(() => {
    isClosed = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(!isClosed);
  answer.resolve(OK);
  await closed;
});

const LARGE = MIB / 2;
const LARGE_HEAD = Buffer.from(`POST / HTTP/1.1\r\nHost: here\r\nContent-Length: ${LARGE}\r\n\r\n`);

/** Answers with the body that it was sent. */
async function startEcho(t: TestContext): Promise<{ port: number; answered: () => number }> {
  let answered = 0;
  const server = new HttpServer(
    async ({ body }) => {
      const answer = roomFor(LARGE);
      body.copy(answer);
      answered += 1;
      return { status: 200, contentType: 'application/octet-stream', body: answer };
    },
    () => OK,
    { tls: undefined, connectionsPerClient: 100 },
  );
  t.after(() => server.close());
  return { port: await server.listen('127.0.0.1', 0), answered: () => answered };
}

/** A connection that knows which bytes its answers are to be made of: of each answer one, all over. */
async function connectForEchoes(port: number, t: TestContext) {
  const socket = net.connect(port, '127.0.0.1');
  t.after(() => socket.destroy());
  await once(socket, 'connect');
  const expected: { byte: number; come: PromiseWithResolvers<void> }[] = [];
  let [head, got] = ['', 0];
  const same = Buffer.alloc(LARGE);
  socket.on('data', (chunk: Buffer) => {
    for (let at = 0; at < chunk.length; ) {
      if (!head.endsWith('\r\n\r\n')) {
        head += chunk.toString('latin1', at, at + 1);
        at += 1;
        continue;
      }
      const length = Math.min(chunk.length - at, LARGE - got);
      const [{ byte, come }] = expected;
      if (!chunk.subarray(at, at + length).equals(same.fill(byte).subarray(0, length)))
        come.reject(new Error('wrong bytes'));
      at += length;
      got += length;
      if (got < LARGE) continue;
      [head, got] = ['', 0];
      expected.shift();
      come.resolve();
    }
    giveBack(chunk);
  });
  const ask = (byte: number, body = Buffer.alloc(LARGE)): Promise<void> => {
    const come = Promise.withResolvers<void>();
    expected.push({ byte, come });
    socket.write(LARGE_HEAD);
    socket.write(body.fill(byte));
    return come.promise;
  };
  return { socket, ask };
}

test('the memory of large bodies and answers is used again', async (t) => {
  const { port } = await startEcho(t);
  const clients = await Promise.all([1, 2, 3, 4].map(() => connectForEchoes(port, t)));
  const bodies = clients.map(() => Buffer.alloc(LARGE));
  let before = 0;
  for (let turn = 0; turn < 30; turn += 1) {
    await Promise.all(clients.map(({ ask }, index) => ask((turn * 4 + index) % 256, bodies[index])));
    await new Promise(setImmediate);
    // The first ones make what stays.
    if (turn === 4) before = process.memoryUsage().arrayBuffers;
    const more = process.memoryUsage().arrayBuffers - before;
    assert.ok(turn <= 4 || more < 8 * MIB, `${more} bytes more after ${turn} turns`);
  }
});

test('an answer keeps its memory until the client has taken it', async (t) => {
  const { port, answered } = await startEcho(t);
  const slow = await connectForEchoes(port, t);
  const quick = await connectForEchoes(port, t);
  slow.socket.pause();
  // More than the system takes for him; the last ones are not even read.
  const late = Array.from({ length: 24 }, (_, byte) => slow.ask(byte));
  for (let before = -1; before < answered(); await new Promise((resolve) => setTimeout(resolve, 50))) {
    before = answered();
  }
  for (let byte = 100; byte < 120; byte += 1) await quick.ask(byte);
  slow.socket.resume();
  await Promise.all(late);
});
