import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { AttachVolumeCommand, CreateVolumeCommand } from '@aws-sdk/client-ec2';
import type { NbdClient } from '../../src/nbd/client.ts';
import { FAULTS, FaultyProxy } from '../support/faulty-proxy.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { NumberedSlots } from '../support/numbered-slots.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';
import { startS3Server } from '../support/s3-server.ts';
import { startTestServer } from '../support/server.ts';

const MIB = 1024 * 1024;
/** `CLEANCUT_OUTAGE_SECONDS=180` for an outage of minutes. */
const OUTAGE_MILLISECONDS = Number(process.env.CLEANCUT_OUTAGE_SECONDS ?? 5) * 1000;

test('a network that fails in every way: guests go on, snapshots finish, and no wrong byte is ever served', {
  timeout: 120_000 + 2 * OUTAGE_MILLISECONDS,
}, async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const s3 = await startS3Server(t);
  const { proxy, url } = await FaultyProxy.start(t, s3.url);
  // A request that is dead is given up after a second here, so that the test does not wait for it.
  const server = await startTestServer(t, {
    flags: ['--object-store', `${url}&timeout=1`],
    environment: s3.environment,
  });
  const instance = await launchInstance(server.ec2, [1, 1]);
  const [volume, busy] = instance.volumes;
  const model = randomBytes(48 * MIB);
  const client = await server.connect(volume);
  for (let at = 0; at < model.length; at += 16 * MIB) await client.write(at, model.subarray(at, at + 16 * MIB));
  await client.close();
  const slots = new NumberedSlots([busy]);
  let broken = 0;
  const connect = async (name: string): Promise<NbdClient> => {
    const opened = await server.connect(name);
    broken += 1;
    return opened;
  };
  const stopWriting = slots.start(connect, random);
  t.after(stopWriting);

  // Each kind of fault in its turn, and chances that stay the same for a seed.
  let turn = 0;
  proxy.chooseFault = () => {
    if (random() > 0.3) return undefined;
    turn += 1;
    return FAULTS[turn % FAULTS.length];
  };
  const sets = [];
  for (let round = 0; round < 3; round += 1) {
    const least = slots.acknowledged();
    const made = await createSnapshots(server.ec2, instance.instanceId);
    sets.push({ made, least, most: slots.issued() });
    await sleep(200);
  }
  for (const { made } of sets)
    for (const { State, StateMessage } of await ended(server.ec2, made))
      assert.equal(State, 'completed', StateMessage ?? '');

  // Away altogether, in the middle of an upload; guests do not notice.
  const during = await createSnapshots(server.ec2, instance.instanceId);
  proxy.outage = true;
  const before = slots.writes;
  await sleep(OUTAGE_MILLISECONDS);
  assert.ok(slots.writes > before + OUTAGE_MILLISECONDS / 100, 'guests write on while the store is away');
  proxy.outage = false;
  for (const { State, StateMessage } of await ended(server.ec2, during))
    assert.equal(State, 'completed', StateMessage ?? '');

  // Reads straight from the store, and a restore, through the same network: right bytes, or an error, nothing else.
  const whole = sets[2].made.find(({ VolumeId }) => VolumeId === volume)?.SnapshotId ?? '';
  const made = await server.ec2.send(new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: whole }));
  const attach = { VolumeId: made.VolumeId, InstanceId: instance.instanceId, Device: '/dev/sdz' };
  await server.ec2.send(new AttachVolumeCommand(attach));
  let errors = 0;
  for (const name of [whole, made.VolumeId ?? '']) {
    let reader = await server.connect(name);
    for (let at = 0; at < model.length; ) {
      const length = Math.min(model.length - at, 64 * 1024 * (1 + Math.floor(random() * 16)));
      const bytes = await reader.read(at, length).catch(() => undefined);
      if (bytes === undefined) {
        errors += 1;
        reader.destroy();
        reader = await server.connect(name);
        continue;
      }
      assert.ok(bytes.equals(model.subarray(at, at + length)), `wrong bytes at ${at} of ${name}`);
      at += length;
    }
    await reader.close();
  }
  await stopWriting();
  assert.equal(broken, 3, 'no connection of the busy guest broke: each of its writers has had one');
  await slots.check((name) => server.connect(name), 'after all');
  for (const fault of [...FAULTS, 'outage'] as const)
    assert.ok((proxy.counts.get(fault) ?? 0) > 0, `${fault} never came`);
  t.diagnostic(
    `${JSON.stringify(Object.fromEntries(proxy.counts))}, ${errors} reads ended in an error, ${slots.writes} writes`,
  );
});
