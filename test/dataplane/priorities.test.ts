import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import os from 'node:os';
import { test } from 'node:test';
import koffi from 'koffi';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { childrenOf } from '../support/processes.ts';
import { startTestServer } from '../support/server.ts';

const GET_SCHEDULING = new Map<string, number>([
  ['x64', 315],
  ['arm64', 275],
]).get(process.arch);

/** For how long a thread may have the processor before others are looked at (sched_getattr(2)), in nanoseconds. */
function sliceOf(thread: number): bigint {
  const attributes = Buffer.alloc(48);
  const call = koffi.load('libc.so.6').func('long syscall(long, int, _Out_ uint8_t *, uint32_t, uint32_t)');
  assert.equal(Number(call(GET_SCHEDULING, thread, attributes, attributes.length, 0)), 0);
  return attributes.readBigUInt64LE(24);
}

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

const [major, minor] = os.release().split('.').map(Number);
const slices = GET_SCHEDULING !== undefined && (major > 6 || (major === 6 && minor >= 12));

test("the guests' thread asks for a short slice, and what it begins has the usual one", async (t) => {
  if (!slices) return t.skip('this needs Linux 6.12 on x64 or arm64');
  const server = await startTestServer(t);
  const [usual, workers] = [sliceOf(process.pid), childrenOf(server.process.pid ?? 0)];
  assert.equal(workers.length, 2);
  for (const worker of workers) {
    for (const thread of readdirSync(`/proc/${worker}/task`).map(Number)) {
      assert.equal(
        sliceOf(thread),
        thread === worker ? 200_000n : usual,
        readFileSync(`/proc/${worker}/task/${thread}/comm`, 'utf8'),
      );
    }
  }
});

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
