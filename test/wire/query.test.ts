import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CreateSnapshotsCommand,
  CreateSnapshotsRequest$,
  CreateSnapshotsResult$,
  EC2Client,
  type SnapshotInfo,
} from '@aws-sdk/client-ec2';
import { NormalizedSchema } from '@smithy/core/schema';
import fc from 'fast-check';
import { compileFilters } from '../../src/api/filters.ts';
import { ApiError } from '../../src/wire/api-error.ts';
import { ec2Operations } from '../../src/wire/model.ts';
import { decodeQuery } from '../../src/wire/query-decoder.ts';
import { encodeEc2 } from '../../src/wire/xml-encoder.ts';

const record = <Shape>(shape: { [Key in keyof Shape]: fc.Arbitrary<Shape[Key]> }): fc.Arbitrary<Shape> =>
  fc.record(shape, { noNullPrototype: true }) as fc.Arbitrary<Shape>;
const input = NormalizedSchema.of(CreateSnapshotsRequest$ as never);
const output = NormalizedSchema.of(CreateSnapshotsResult$ as never);

/** Text that XML can hold, with the characters in it that XML and forms treat in special ways. */
const text = fc
  .string({
    unit: fc.oneof(
      fc.constantFrom('<', '>', '&', '"', "'", '%', '+', '=', ' ', '\n', '\t', 'é', '漢', '😀'),
      fc.string({ minLength: 1, maxLength: 1 }),
    ),
    maxLength: 20,
  })
  .filter((value) => !/[\r]/.test(value));

/** The SDK's own client, with a network that is a function. */
function sdk(respond: (body: string) => string): EC2Client {
  return new EC2Client({
    region: 'us-east-1',
    credentials: { accessKeyId: 'a', secretAccessKey: 'b' },
    requestHandler: {
      handle: async (request: { body: string }) => ({
        response: { statusCode: 200, headers: { 'content-type': 'text/xml' }, body: bodyOf(respond(request.body)) },
      }),
    } as never,
  });
}

function bodyOf(xml: string): Uint8Array {
  return Buffer.from(xml);
}

test("what the SDK's own serializer writes, the decoder reads back, whatever the values", async () => {
  const request = record({
    InstanceSpecification: record({
      InstanceId: text,
      ExcludeBootVolume: fc.boolean(),
      ExcludeDataVolumeIds: fc.array(text, { minLength: 1, maxLength: 12 }),
    }),
    Description: text,
    DryRun: fc.boolean(),
    TagSpecifications: fc.array(
      record({
        ResourceType: fc.constant('snapshot' as const),
        Tags: fc.array(record({ Key: text, Value: text }), { minLength: 1, maxLength: 12 }),
      }),
      { minLength: 1, maxLength: 3 },
    ),
  });
  await fc.assert(
    fc.asyncProperty(request, async (value) => {
      let seen: unknown;
      const client = sdk((body) => {
        seen = decodeQuery(input, new URLSearchParams(body));
        return encodeEc2('CreateSnapshots', output, { Snapshots: [] }, 'id');
      });
      await client.send(new CreateSnapshotsCommand(value));
      assert.deepEqual(seen, value);
    }),
    { numRuns: 100 },
  );
});

test("what the encoder writes, the SDK's own parser reads back, whatever the values", async () => {
  const snapshot = record({
    SnapshotId: text.filter((value) => value.trim() === value && value !== ''),
    Description: text.filter((value) => value.trim() === value && value !== ''),
    Encrypted: fc.boolean(),
    VolumeSize: fc.nat(),
    StartTime: fc.date({ min: new Date('2000-01-01'), max: new Date('2100-01-01'), noInvalidDate: true }),
    Tags: fc.array(
      record({
        Key: text.filter((value) => value.trim() === value && value !== ''),
        Value: fc.constantFrom('v', '<b>&amp;'),
      }),
      { minLength: 1, maxLength: 3 },
    ),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(snapshot, { minLength: 1, maxLength: 4 }), async (snapshots) => {
      const client = sdk(() => encodeEc2('CreateSnapshots', output, { Snapshots: snapshots as SnapshotInfo[] }, 'id'));
      const answer = await client.send(new CreateSnapshotsCommand({ InstanceSpecification: { InstanceId: 'i-1' } }));
      assert.deepEqual(answer.Snapshots, snapshots);
    }),
    { numRuns: 100 },
  );
});

test('every operation of the model can be found, and has an input and an output', () => {
  const operations = ec2Operations();
  assert.ok(operations.size > 700);
  for (const name of ['CreateSnapshots', 'RunInstances', 'DescribeVolumes']) assert.ok(operations.has(name));
});

test('no parameter list, however strange, brings the decoder down', () => {
  const name = fc.array(
    fc.constantFrom(
      'TagSpecification',
      'InstanceSpecification',
      'InstanceId',
      'Tag',
      'Key',
      '1',
      '0',
      '-1',
      '99999999',
      '',
      '__proto__',
      'constructor',
      'DryRun',
    ),
    { maxLength: 14 },
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(name, text), { maxLength: 8 }), (pairs) => {
      const parameters = new URLSearchParams(pairs.map(([steps, value]) => [steps.join('.'), value]));
      try {
        decodeQuery(input, parameters);
      } catch (error) {
        assert.ok(error instanceof ApiError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('filters: wildcards, escapes and literals match as a plain reading says', () => {
  // The plain reading: try every way to share the value out among the pattern's steps.
  const plain = (pattern: string, value: string): boolean => {
    if (pattern === '') return value === '';
    if (pattern[0] === '*') return plain(pattern.slice(1), value) || (value !== '' && plain(pattern, value.slice(1)));
    if (pattern[0] === '?') return value !== '' && plain(pattern.slice(1), value.slice(1));
    const literal = pattern[0] === '\\' && pattern.length > 1 ? 1 : 0;
    return value[0] === pattern[literal] && plain(pattern.slice(literal + 1), value.slice(1));
  };
  const few = (characters: string[]) => fc.string({ unit: fc.constantFrom(...characters), maxLength: 8 });
  fc.assert(
    fc.property(few(['a', 'b', '*', '?', '\\']), few(['a', 'b', '*', '?', '\\']), (pattern, value) => {
      const matches = compileFilters<string>([{ Name: 'x', Values: [pattern] }], { x: (row) => row }, () => new Map());
      assert.equal(matches(value), plain(pattern, value));
    }),
    { numRuns: 5000 },
  );
});

test('a hostile pattern is slow for no one', () => {
  const matches = compileFilters<string>(
    [{ Name: 'x', Values: ['*a'.repeat(100)] }],
    { x: (row) => row },
    () => new Map(),
  );
  assert.equal(matches(`${'a'.repeat(5000)}b`), false);
});
