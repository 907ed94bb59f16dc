import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import type { WorkerSettings } from '../../src/dataplane/messages.ts';
import type { GatewaySettings } from '../../src/nbd/gateway-settings.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

/** So long after its start the server that has begun a process is gone; by all of it, it has long begun. */
const MOMENTS = [0, 20, 50, 100, 150, 200, 300, 1500];

async function outlives(t: TestContext, program: string, environment: Record<string, string>): Promise<number[]> {
  const alive: number[] = [];
  await Promise.all(
    MOMENTS.map(async (moment) => {
      const env = { ...process.env, ...environment };
      const child = fork(new URL(program, import.meta.url), { env, serialization: 'advanced', silent: true });
      t.after(() => child.kill('SIGKILL'));
      const exited = once(child, 'exit');
      await sleep(moment);
      // As the kernel does it when the server is killed.
      child.disconnect();
      await Promise.race([exited, sleep(15_000, undefined, { ref: false }).then(() => alive.push(moment))]);
    }),
  );
  return alive;
}

test('a worker whose server is killed ends, whenever that is', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(`${directory}/volumes`);
  const settings: WorkerSettings = {
    volumesDirectory: `${directory}/volumes`,
    objectStore: pathToFileURL(`${directory}/objects`).href,
    bootId: 'this',
    stagingLimitBytes: 1024 ** 3,
    uploadPatienceMilliseconds: 1000,
  };
  assert.deepEqual(
    await outlives(t, '../../src/dataplane/worker.ts', { CLEANCUT_WORKER: JSON.stringify(settings) }),
    [],
  );
});

test('the gateway for TLS, too', async (t) => {
  const socket = `${temporaryDirectory(t)}/nbd-tls.sock`;
  const settings: GatewaySettings = { host: '127.0.0.1', port: 0, socket, connectionsPerClient: 10 };
  const environment = { CLEANCUT_NBD_TLS: JSON.stringify(settings) };
  assert.deepEqual(await outlives(t, '../../src/nbd/tls-gateway.ts', environment), []);
});
