/**
 * What encryption costs: the same volume, plain and encrypted, on the same server, profile by profile in turns.
 *
 *   node bench/encryption.ts [--rounds=3] [--seconds=4]
 */
import { AttachVolumeCommand, CreateVolumeCommand } from '@aws-sdk/client-ec2';
import { median, report, setting } from './support/figures.ts';
import { fio, PROFILES, type Result } from './support/fio.ts';
import { startBenchServer } from './support/server.ts';

const ROUNDS = setting('rounds', 3);
const SECONDS = setting('seconds', 4);
const SIZE_MIB = 1024;

const server = await startBenchServer();
const { instanceId, volumes } = await server.launch([1]);
const encrypted = await server.ec2.send(
  new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', Size: 1, Encrypted: true }),
);
const VolumeId = encrypted.VolumeId ?? '';
await server.ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId: instanceId, Device: '/dev/sdz' }));
const targets = { plain: volumes[0], encrypted: VolumeId };
const names = Object.keys(targets) as (keyof typeof targets)[];
const results = new Map<string, Result[]>();
const uri = (volume: string): string => `nbd+unix:///${volume}?socket=${server.nbdSocket}`;
try {
  for (const name of names)
    await fio([uri(targets[name])], { name: 'fill', rw: 'write', bs: '1m', depth: 8 }, SIZE_MIB, SECONDS);
  for (const profile of PROFILES) {
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const name of names) {
        const key = `${profile.name} ${name}`;
        results.set(key, [...(results.get(key) ?? []), await fio([uri(targets[name])], profile, SIZE_MIB, SECONDS)]);
      }
    }
  }
} finally {
  await server.stop();
}
const rows = PROFILES.map((profile) => {
  const of = (name: string): Result[] => results.get(`${profile.name} ${name}`) ?? [];
  const rate = (name: string): number => median(of(name).map((result) => result.iops));
  const p99 = (name: string): number => median(of(name).map((result) => result.p99Microseconds));
  return [
    profile.name,
    ...names.map((name) => `${Math.round(rate(name))} (p99 ${Math.round(p99(name))} µs)`),
    (rate('encrypted') / rate('plain')).toFixed(2),
  ];
});
report('encryption', ['requests a second', ...names, 'encrypted ÷ plain'], rows, Object.fromEntries(results));
