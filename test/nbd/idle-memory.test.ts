import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NbdClient } from '../../src/nbd/client.ts';
import { emptyWhenIdle } from '../../src/nbd/idle-memory.ts';
import { launchInstance } from '../support/instances.ts';
import { childrenOf } from '../support/processes.ts';
import { startTestServer } from '../support/server.ts';

const MIB = 1024 * 1024;
const CLIENTS = 200;

function memory() {
  let emptied = 0;
  return {
    wasUsed: true,
    empty: () => {
      emptied += 1;
    },
    emptied: () => emptied,
  };
}

test('memory is given back when it was not used between two looks, once, and when the connection is closed', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const [busy, idle] = [memory(), memory()];
  const closed = Promise.withResolvers<void>();
  emptyWhenIdle([busy, idle], closed.promise);
  const looks = (busyOnes: number): void => {
    for (let look = 0; look < busyOnes; look += 1) {
      busy.wasUsed = true;
      t.mock.timers.tick(2_000);
    }
  };
  looks(4);
  assert.deepEqual([busy.emptied(), idle.emptied()], [0, 1]);
  idle.wasUsed = true;
  looks(4);
  assert.deepEqual([busy.emptied(), idle.emptied()], [0, 2]);
  closed.resolve();
  await sleep(0);
  assert.deepEqual([busy.emptied(), idle.emptied()], [1, 3]);
  looks(3);
  assert.deepEqual([busy.emptied(), idle.emptied()], [1, 3], 'it is looked at no more');
});

test('clients that have sent and read much, and keep silent, or are gone, take no memory; they go on as before', async (t) => {
  const server = await startTestServer(t);
  t.after(() => server.stop());
  const instance = await launchInstance(server.ec2, [1]);
  const clients: NbdClient[] = [];
  for (let index = 0; index < CLIENTS; index += 1) clients.push(await server.connect(instance.volumes[0]));
  const residentMiB = (): number => {
    const all = childrenOf(server.process.pid ?? 0).map((pid) =>
      Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0),
    );
    return all.reduce((sum, kib) => sum + kib / 1024, 0);
  };
  const piece = randomBytes(MIB);
  const useAll = async (): Promise<void> => {
    await Promise.all(clients.map((client, index) => client.write((index % 100) * MIB, piece)));
    for (const client of clients) assert.ok((await client.read(MIB, MIB)).equals(piece));
  };
  const before = residentMiB();
  await useAll();
  const used = residentMiB() - before;
  assert.ok(used > CLIENTS, `only ${used} MiB more`);
  const isGivenBack = async (): Promise<void> => {
    let more = 0;
    for (let look = 0; look < 100; look += 1) {
      more = residentMiB() - before;
      if (more < used / 2 && more < 100) return;
      await sleep(100);
    }
    assert.fail(`${more} MiB more than before, of ${used}`);
  };
  await isGivenBack();
  await useAll();
  for (const client of clients) await client.close();
  await isGivenBack();
});
