/**
 * The API with 100,000 snapshots in the catalog: a page of 1,000, lookups by id, by tag and by what only looking at all of
 * them finds, and CreateSnapshots of 16 volumes; times of the whole request, as a client that does not parse the answer sees
 * them; and how many signed requests a second there can be.
 *
 *   node bench/catalog.ts [--snapshots=100000] [--rounds=30]
 */
import { DescribeSnapshotsCommand } from '@aws-sdk/client-ec2';
import { SignatureV4 } from '@smithy/signature-v4';
import { readCredentials } from '../src/auth/credentials-file.ts';
import { openCatalog } from '../src/catalog/catalog.ts';
import { knownId, parseAccountId } from '../src/types/ids.ts';
import type { Sha256 } from '../src/types/units.ts';
import { Sha256 as Hash } from '../src/wire/signature.ts';
import { median, quantile, report, setting } from './support/figures.ts';
import { startBenchServer } from './support/server.ts';

const SNAPSHOTS = setting('snapshots', 100_000);
const ROUNDS = setting('rounds', 30);
const RATE_SECONDS = 3;

const server = await startBenchServer();
const credentials = readCredentials(`${server.directory}/credentials`);
const signer = new SignatureV4({ credentials, region: 'us-east-1', service: 'ec2', sha256: Hash });

async function ask(parameters: Record<string, string>): Promise<number> {
  const url = new URL(server.apiUrl);
  const body = new URLSearchParams({ Version: '2016-11-15', ...parameters }).toString();
  const begun = performance.now();
  const signed = await signer.sign({
    method: 'POST',
    protocol: url.protocol,
    hostname: url.hostname,
    path: '/',
    headers: { host: url.host, 'content-type': 'application/x-www-form-urlencoded' },
    body,
  });
  const response = await fetch(url, { method: 'POST', headers: signed.headers, body });
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return performance.now() - begun;
}

const id = (number: number): string => number.toString(16).padStart(17, '0');

async function seed(): Promise<void> {
  const catalog = await openCatalog(`${server.directory}/catalog.sqlite`);
  const account = parseAccountId('000000000001');
  if (account === undefined) throw new Error('no account');
  const owner = { account_id: account, region: 'us-east-1' };
  for (let from = 0; from < SNAPSHOTS; from += 1000) {
    await catalog.transaction().execute(async (transaction) => {
      for (let number = from; number < Math.min(SNAPSHOTS, from + 1000); number += 1) {
        const time = new Date(1_600_000_000_000 + number * 1000).toISOString();
        const set_id = knownId('set', `set-${id(number)}`);
        const snapshot_id = knownId('snap', `snap-${id(number)}`);
        await transaction
          .insertInto('snapshot_sets')
          .values({
            set_id,
            ...owner,
            instance_id: null,
            description: '',
            started_at: time,
            hold_milliseconds: 1,
            state: 'completed',
          })
          .execute();
        await transaction
          .insertInto('snapshots')
          .values({
            snapshot_id,
            ...owner,
            set_id,
            volume_id: knownId('vol', `vol-${id(number % 500)}`),
            parent_snapshot_id: null,
            device_name: null,
            is_root: 0,
            volume_type: 'gp3',
            size_gib: 100,
            description: `nightly ${number}`,
            started_at: time,
            completed_at: time,
            state: 'completed',
            state_message: '',
            boundary: null,
            root: 'a'.repeat(64) as Sha256,
            data_blocks: 1000,
            stored_bytes: 1000,
          })
          .execute();
        for (const [tag_key, tag_value] of [
          ['run', String(number)],
          ['team', `team ${number % 50}`],
        ]) {
          await transaction
            .insertInto('tags')
            .values({ resource_id: snapshot_id, resource_type: 'snapshot', ...owner, tag_key, tag_value })
            .execute();
        }
      }
    });
  }
  await catalog.destroy();
}

const rows: (string | number)[][] = [];
const figures: Record<string, number[]> = {};
async function measure(
  name: string,
  parameters: (round: number) => Record<string, string>,
  before: () => Promise<void> = async () => undefined,
): Promise<void> {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    await before();
    times.push(await ask(parameters(round)));
  }
  figures[name] = times;
  rows.push([name, median(times).toFixed(1), quantile(times, 0.95).toFixed(1)]);
}

try {
  await seed();
  const describe = { Action: 'DescribeSnapshots', 'Owner.1': 'self' };
  const tag = (key: string, value: string) => ({ 'Filter.1.Name': `tag:${key}`, 'Filter.1.Value.1': value });
  await measure('a page of 1,000', () => ({ ...describe, MaxResults: '1000' }));
  await measure('one, by id', (round) => ({
    ...describe,
    'SnapshotId.1': `snap-${id(round * 997)}`,
  }));
  await measure('one, by tag', (round) => ({ ...describe, ...tag('run', String(round * 997)) }));
  await measure('a page of 1,000 by a tag of 2,000', () => ({
    ...describe,
    MaxResults: '1000',
    ...tag('team', 'team 7'),
  }));
  await measure('200 of one volume', () => ({
    ...describe,
    'Filter.1.Name': 'volume-id',
    'Filter.1.Value.1': `vol-${id(7)}`,
  }));
  const filtered = (name: string, value: string) => ({ ...describe, 'Filter.1.Name': name, 'Filter.1.Value.1': value });
  await measure('11, by a description with wildcards', () => filtered('description', '*ly 4242*'));
  await measure('none, by a description', () => filtered('description', 'weekly'));
  await measure('a minute of them, by start-time', () => filtered('start-time', '2020-09-13T13:33:*'));
  await measure('10, by a tag with a wildcard', () => filtered('tag:run', '4242?'));
  await measure('DescribeTags of one resource', (round) => ({
    Action: 'DescribeTags',
    'Filter.1.Name': 'resource-id',
    'Filter.1.Value.1': `snap-${id(round * 997)}`,
  }));
  await measure('DescribeTags with one value', (round) => ({
    Action: 'DescribeTags',
    'Filter.1.Name': 'value',
    'Filter.1.Value.1': String(round * 997),
  }));
  // Eight clients that ask as fast as they are answered.
  const until = performance.now() + RATE_SECONDS * 1000;
  let asked = 0;
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      while (performance.now() < until) {
        await ask({ Action: 'DescribeRegions' });
        asked += 1;
      }
    }),
  );
  figures['requests a second'] = [asked / RATE_SECONDS];
  rows.push(['signed requests a second', Math.round(asked / RATE_SECONDS), '']);
  const { instanceId } = await server.launch(new Array(16).fill(1));
  const cut = () => ({
    Action: 'CreateSnapshots',
    'InstanceSpecification.InstanceId': instanceId,
    'InstanceSpecification.ExcludeBootVolume': 'true',
  });
  const idle = async (): Promise<void> => {
    for (;;) {
      const { Snapshots = [] } = await server.ec2.send(
        new DescribeSnapshotsCommand({ OwnerIds: ['self'], Filters: [{ Name: 'status', Values: ['pending'] }] }),
      );
      if (Snapshots.length === 0) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  await measure('CreateSnapshots of 16 volumes, each when the last is completed', cut, idle);
  await measure('the same, each when the last is answered', cut);
} finally {
  await server.stop();
}
report('catalog', [`with ${SNAPSHOTS} snapshots`, 'median (ms)', 'p95 (ms)'], rows, figures);
