import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
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
