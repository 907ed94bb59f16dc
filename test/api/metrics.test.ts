import assert from 'node:assert/strict';
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { DescribeVolumeStatusCommand, DescribeVolumesCommand } from '@aws-sdk/client-ec2';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { childrenOf } from '../support/processes.ts';
import { startTestServer, type TestServer } from '../support/server.ts';

/** A scrape, read strictly: every line is a comment or a sample. */
async function scrape(server: TestServer): Promise<Map<string, number>> {
  const response = await fetch(`${server.apiUrl}/metrics`);
  assert.match(response.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
  const samples = new Map<string, number>();
  for (const line of (await response.text()).trimEnd().split('\n')) {
    if (/^# (HELP|TYPE) [a-z_]+ \S/.test(line)) continue;
    const [, name, value] = /^([a-z_]+(?:\{(?:[a-z_]+="[^"\\]*",?)+\})?) ([-+.\deE]+)$/.exec(line) ?? [];
    assert.ok(name !== undefined && !samples.has(name), line);
    samples.set(name, Number(value));
  }
  return samples;
}

test('/metrics says what was done: requests and latencies of each volume, cuts, uploads, the store, the API', async (t) => {
  const server = await startTestServer(t);
  const { instanceId, volumes } = await launchInstance(server.ec2, [1]);
  const [volume] = volumes;
  const client = await server.connect(volume);
  for (let index = 0; index < 20; index += 1) await client.write(index * 4096, Buffer.alloc(4096, index + 1));
  for (let index = 0; index < 5; index += 1) await client.read(0, 512);
  await client.flush();
  await ended(server.ec2, await createSnapshots(server.ec2, instanceId));
  await assert.rejects(server.ec2.send(new DescribeVolumesCommand({ VolumeIds: ['vol-0123456789abcdef0'] })));
  const samples = await scrape(server);
  const of = (name: string, labels = ''): number => samples.get(`${name}${labels}`) ?? Number.NaN;
  const own = `{volume="${volume}"}`;
  assert.deepEqual(
    ['reads_total', 'writes_total', 'read_bytes_total', 'written_bytes_total', 'flushes_total', 'connections'].map(
      (name) => of(`cleancut_volume_${name}`, own),
    ),
    [5, 20, 5 * 512, 20 * 4096, 1, 1],
  );
  assert.equal(of('cleancut_volume_request_seconds_count', own), 26);
  assert.equal(of('cleancut_volume_request_seconds_bucket', `{volume="${volume}",le="+Inf"}`), 26);
  assert.ok(of('cleancut_volume_request_seconds_sum', own) > 0);
  assert.equal(of('cleancut_cut_hold_seconds_count'), 1);
  assert.equal(of('cleancut_snapshots', '{state="completed"}'), 2);
  assert.equal(of('cleancut_upload_backlog_blocks'), 0);
  assert.ok(of('cleancut_object_store_requests_total', '{operation="put"}') >= 5);
  assert.ok(of('cleancut_object_store_bytes_total', '{operation="put"}') > 0);
  assert.equal(of('cleancut_object_store_errors_total', '{operation="put"}'), 0);
  assert.equal(of('cleancut_api_requests_total', '{service="ec2",code="InvalidVolume.NotFound"}'), 1);
  assert.ok(of('cleancut_api_request_seconds_count', '{service="ec2"}') > 2);
  // What only grows only grows.
  await client.read(0, 512);
  const later = await scrape(server);
  assert.equal(later.get(`cleancut_volume_reads_total${own}`), 6);
  assert.equal(later.get('cleancut_cut_hold_seconds_count'), 1);
  await client.close();
});

test('what is left of an upload is told while the store takes nothing, and no longer when it is over', async (t) => {
  const server = await startTestServer(t);
  const { instanceId, volumes } = await launchInstance(server.ec2, [1]);
  const client = await server.connect(volumes[0]);
  for (let block = 0; block < 3; block += 1) await client.write(block * 512 * 1024, Buffer.alloc(4096, block + 1));
  await client.close();
  const packs = `${server.dataDir}/objects/packs`;
  rmSync(packs, { recursive: true, force: true });
  writeFileSync(packs, 'not a directory');
  const snapshots = await createSnapshots(server.ec2, instanceId);
  const backlog = async (): Promise<number | undefined> => (await scrape(server)).get('cleancut_upload_backlog_blocks');
  for (let look = 0; look < 200 && (await backlog()) !== 3; look += 1)
    await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(await backlog(), 3);
  rmSync(packs);
  for (const { State } of await ended(server.ec2, snapshots)) assert.equal(State, 'completed');
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal(await backlog(), 0);
});

test('with a metrics token, whoever scrapes must have it', async (t) => {
  const token = 'a-token-for-prometheus';
  const server = await startTestServer(t, { environment: { CLEANCUT_METRICS_TOKEN: token } });
  const status = async (headers: Record<string, string>): Promise<number> =>
    (await fetch(`${server.apiUrl}/metrics`, { headers })).status;
  assert.equal(await status({}), 403);
  assert.equal(await status({ authorization: `Bearer ${token.slice(0, -1)}` }), 403);
  assert.equal(await status({ authorization: `Bearer ${token}` }), 200);
});

test('a worker that does not answer takes its own volumes’ figures away, and nobody else’s', async (t) => {
  const server = await startTestServer(t, { flags: ['--workers', '2'] });
  const { volumes } = await launchInstance(server.ec2, [1, 1, 1]);
  const seen = async (): Promise<string[]> => {
    const samples = await scrape(server);
    assert.equal(samples.get('cleancut_volumes{state="in-use"}'), 4);
    return volumes.filter((volume) => samples.has(`cleancut_volume_connections{volume="${volume}"}`));
  };
  assert.deepEqual(await seen(), volumes);
  const [worker] = childrenOf(server.process.pid ?? 0);
  process.kill(worker, 'SIGSTOP');
  try {
    const left = await seen();
    assert.ok(left.length > 0 && left.length < volumes.length, `${left.length} of ${volumes.length}`);
    const samples = await scrape(server);
    assert.equal(samples.get('cleancut_workers_silent'), 1);
    // A sum that goes down would be taken for a new beginning.
    assert.ok(![...samples.keys()].some((name) => name.startsWith('cleancut_object_store_')));
    assert.equal((await server.admin.ask<{ silentWorkers: number }>('status')).silentWorkers, 1);
    assert.equal((await server.admin.ask<{ silentWorkers: number }>('volumes')).silentWorkers, 1);
    const { VolumeStatuses = [] } = await server.ec2.send(new DescribeVolumeStatusCommand({ VolumeIds: volumes }));
    const statuses = new Map(VolumeStatuses.map(({ VolumeId, VolumeStatus }) => [VolumeId, VolumeStatus?.Status]));
    for (const volume of volumes) {
      assert.equal(statuses.get(volume), left.includes(volume) ? 'ok' : 'insufficient-data');
    }
  } finally {
    process.kill(worker, 'SIGCONT');
  }
  assert.deepEqual(await seen(), volumes);
});

test('/health tells live from ready: a worker that does not answer leaves the server alive, and not ready', async (t) => {
  const server = await startTestServer(t);
  const ask = async (path: string): Promise<{ code: number; status: string; checks: Record<string, string> }> => {
    const response = await fetch(`${server.apiUrl}${path}`);
    return {
      code: response.status,
      ...((await response.json()) as { status: string; checks: Record<string, string> }),
    };
  };
  const asked = await fetch(`${server.apiUrl}/health/ready`, { method: 'HEAD' });
  assert.deepEqual([asked.status, await asked.text()], [200, '']);
  const ready = await ask('/health/ready');
  assert.deepEqual(
    [ready.code, ready.status, ready.checks],
    [200, 'ready', { catalog: 'ok', disk: 'ok', workers: 'ok' }],
  );
  const [worker] = childrenOf(server.process.pid ?? 0);
  process.kill(worker, 'SIGSTOP');
  try {
    const stuck = await ask('/health/ready');
    assert.deepEqual([stuck.code, stuck.status], [503, 'live']);
    assert.match(stuck.checks.workers, /no answer from worker/);
    const live = await ask('/health/live');
    assert.deepEqual([live.code, live.status], [200, 'live']);
  } finally {
    process.kill(worker, 'SIGCONT');
  }
  while ((await ask('/health/ready')).code !== 200) await new Promise((resolve) => setTimeout(resolve, 50));
});

test('/health/ready finds a data directory that takes nothing any more', async (t) => {
  const server = await startTestServer(t);
  const ask = async (): Promise<{ code: number; disk: string }> => {
    const response = await fetch(`${server.apiUrl}/health/ready`);
    const { checks } = (await response.json()) as { checks: { disk: string } };
    return { code: response.status, disk: checks.disk };
  };
  renameSync(`${server.dataDir}/lock`, `${server.dataDir}/elsewhere`);
  const lost = await ask();
  assert.equal(lost.code, 503);
  assert.match(lost.disk, /ENOENT/);
  renameSync(`${server.dataDir}/elsewhere`, `${server.dataDir}/lock`);
  assert.deepEqual(await ask(), { code: 200, disk: 'ok' });
});
