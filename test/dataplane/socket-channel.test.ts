import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { type Methods, RpcPeer } from '../../src/dataplane/rpc.ts';
import { socketPair, threadChannel } from '../../src/dataplane/socket-channel.ts';

/** The thread at the other end: answers with what it was given, and asks back. */
const ECHO = `
  const { workerData } = require('node:worker_threads');
  const { RpcPeer } = await import(workerData.rpc);
  const { threadChannel } = await import(workerData.channel);
  const peer = new RpcPeer(threadChannel(workerData.fd), {
    echo: async (bytes) => {
      await peer.call('seen', bytes.length);
      return bytes;
    },
    fail: () => { throw Object.assign(new Error('no room'), { code: 'ENOSPC' }); },
    leave: () => process.exit(0),
  });
`;

test('messages of every size go between two threads whole and in their order, both ways at once', async () => {
  const [own, other] = socketPair();
  const worker = new Worker(`(async () => {${ECHO}})()`, {
    eval: true,
    workerData: {
      fd: other,
      rpc: new URL('../../src/dataplane/rpc.ts', import.meta.url).href,
      channel: new URL('../../src/dataplane/socket-channel.ts', import.meta.url).href,
    },
  });
  const seen: number[] = [];
  const peer = new RpcPeer<Methods>(threadChannel(own), { seen: (length: number) => void seen.push(length) });
  const sizes = [0, 1, 3, 4, 5, 1000, 65_535, 65_536, 200_000, 3_000_000, 7, ...new Array<number>(500).fill(20)];
  const sent = sizes.map((size) => Uint8Array.from(randomBytes(size)));
  const answers = await Promise.all(sent.map((bytes) => peer.call('echo', bytes)));
  for (const [index, bytes] of sent.entries()) {
    assert.ok(Buffer.from(answers[index] as Uint8Array).equals(bytes), `message ${index}, of ${bytes.length} bytes`);
  }
  assert.deepEqual(seen, sizes);
  await assert.rejects(peer.call('fail', undefined) as Promise<unknown>, { message: 'no room', code: 'ENOSPC' });
  peer.tell('leave', undefined);
  await once(worker, 'exit');
});
