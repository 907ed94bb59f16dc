import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import type { ServeOrder, ServerMethods, WorkerMethods } from '../../src/dataplane/messages.ts';
import { RpcPeer } from '../../src/dataplane/rpc.ts';
import { forkWorker, processChannel, stopWorker } from '../../src/dataplane/worker-process.ts';
import { newId } from '../../src/types/ids.ts';
import { asEpoch } from '../../src/types/units.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const GIB = 1024 ** 3;

/** Runs a worker with one exported volume, and hands it a connection, which waits for its `begin`. */
async function workerWithConnection(t: Parameters<typeof temporaryDirectory>[0]) {
  const directory = temporaryDirectory(t);
  const child = forkWorker({
    volumesDirectory: directory,
    objectStore: `file://${temporaryDirectory(t)}`,
    bootId: 'boot',
    stagingLimitBytes: GIB,
    uploadPatienceMilliseconds: 1000,
  });
  t.after(() => child.kill('SIGKILL'));
  const taken = Promise.withResolvers<void>();
  const heard: ServerMethods = {
    taken: () => taken.resolve(),
    progress: () => undefined,
    cutLost: () => undefined,
    log: () => undefined,
  };
  const worker = new RpcPeer<WorkerMethods>(processChannel(child), heard);
  const volumeId = newId('vol');
  await worker.call('createVolume', { volumeId, sizeBytes: GIB, restored: false, baseless: false, key: undefined });
  const base = asEpoch(0);
  const unknown = { origin: undefined, key: undefined, originKey: undefined, pendingCuts: [] };
  await worker.call('exportVolume', { volumeId, sizeBytes: GIB, base, ...unknown });
  const listener = createServer({ pauseOnConnect: true });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const address = listener.address() as { port: number };
  const client = connect(address.port, '127.0.0.1');
  const [socket] = (await once(listener, 'connection')) as [Socket];
  listener.close();
  const order: ServeOrder = {
    connection: 1,
    target: { kind: 'volume', volumeId },
    structuredReplies: false,
    baseAllocation: false,
    reply: Buffer.from('welcome'),
    rest: new Uint8Array(),
  };
  worker.tell('serve', order, socket);
  await taken.promise;
  socket.destroy();
  const answer: Buffer[] = [];
  client.on('data', (bytes: Buffer) => answer.push(bytes));
  const closed = once(client, 'close').then(() => Buffer.concat(answer).toString());
  return { child, worker, client, closed };
}

test('a connection that comes while its worker stops is not served', { timeout: 30_000 }, async (t) => {
  const { child, worker, closed } = await workerWithConnection(t);
  const exited = once(child, 'exit');
  const stopped = worker.call('stop', {});
  worker.tell('begin', { connection: 1 });
  assert.equal(await closed, '');
  await stopped;
  assert.deepEqual(await exited, [0, null]);
});

test('one that comes before is, and is ended', { timeout: 30_000 }, async (t) => {
  const { worker, client, closed } = await workerWithConnection(t);
  worker.tell('begin', { connection: 1 });
  await once(client, 'data');
  await worker.call('stop', {});
  assert.equal(await closed, 'welcome');
});

test('a worker that says nothing any more is killed, and not waited for', { timeout: 30_000 }, async (t) => {
  const { child, worker, client } = await workerWithConnection(t);
  t.after(() => client.destroy());
  const slot = { process: child, peer: worker, ready: Promise.resolve(), handingOver: new Map() };
  child.kill('SIGSTOP');
  const logged: string[] = [];
  await stopWorker(slot, (message) => logged.push(message), 1_500);
  assert.equal(child.signalCode, 'SIGKILL');
  assert.match(logged.join(), /killed, not stopped: nothing was heard of it for 1.5 s/);
});

test('one that answers is waited for, and ends by itself', { timeout: 30_000 }, async (t) => {
  const { child, worker, client } = await workerWithConnection(t);
  t.after(() => client.destroy());
  const slot = { process: child, peer: worker, ready: Promise.resolve(), handingOver: new Map() };
  const logged: string[] = [];
  await stopWorker(slot, (message) => logged.push(message), 1_500);
  assert.deepEqual([child.exitCode, child.signalCode, logged], [0, null, []]);
});
