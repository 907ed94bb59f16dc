import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { childrenOf } from '../support/processes.ts';
import { startTestServer } from '../support/server.ts';

/** The nice values of a process's threads, by their names. */
function priorities(pid: number): Map<string, number[]> {
  const found = new Map<string, number[]>();
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
    const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
    const nice = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16]);
    found.set(name, [...(found.get(name) ?? []), nice]);
  }
  return found;
}

test('threads that upload give way; those that guests wait for do not, whoever began them', async (t) => {
  const server = await startTestServer(t);
  const instance = await launchInstance(server.ec2, [1]);
  const client = await server.connect(instance.volumes[0]);
  await client.write(0, randomBytes(4 * 1024 * 1024));
  const spec = { InstanceSpecification: { InstanceId: instance.instanceId, ExcludeBootVolume: true } };
  const [snapshot] = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId, spec));
  assert.equal(snapshot.State, 'completed');
  await client.flush();
  await client.close();
  const workers = childrenOf(server.process.pid ?? 0);
  assert.equal(workers.length, 2);
  // Not every user may have it: a program that asks for the priority, and says which it got.
  const allowed = Number(execFileSync('nice', ['-n', '-2', 'nice'], { encoding: 'utf8', stdio: 'pipe' }));
  for (const worker of workers) {
    const threads = priorities(worker);
    assert.deepEqual(threads.get('WorkerThread'), [19, 19], 'the one that uploads, and the one that encodes');
    const pool = threads.get('libuv-worker') ?? [];
    assert.ok(pool.length > 0 && pool.every((nice) => nice === 0), `libuv's threads: ${pool.join(' ')}`);
    assert.deepEqual(threads.get('MainThread') ?? threads.get('node'), [allowed]);
  }
});
