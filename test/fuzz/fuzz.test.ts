import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import * as ebs from '@aws-sdk/client-ebs';
import type { Call } from '../../src/api/operation.ts';
import { OPERATIONS } from '../../src/api/operations.ts';
import { refuseUnsupported } from '../../src/api/parameters.ts';
import { PolicyError, parsePolicy } from '../../src/auth/policy.ts';
import { Handshake } from '../../src/nbd/handshake.ts';
import { newIoCounters } from '../../src/nbd/io-counters.ts';
import { COMMAND, MAGIC_OPTION, MAGIC_REQUEST, MAGIC_SIMPLE_REPLY, OPTION } from '../../src/nbd/protocol.ts';
import { TlsNegotiation } from '../../src/nbd/tls-negotiation.ts';
import { Transmission } from '../../src/nbd/transmission.ts';
import { RECYCLE_BIN_OPERATIONS } from '../../src/server/recycle-bin-endpoint.ts';
import type { OpenVolume, ReadNow } from '../../src/volumes/engine.ts';
import { ApiError } from '../../src/wire/api-error.ts';
import { ec2Operations } from '../../src/wire/model.ts';
import { decodeQuery } from '../../src/wire/query-decoder.ts';
import { decodeRest, matchRoute, restOperations } from '../../src/wire/rest-json.ts';
import { readClaim } from '../../src/wire/signature.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';

/** Messages for each of the four; CLEANCUT_FUZZ_MESSAGES asks for more. */
const MESSAGES = Number(process.env.CLEANCUT_FUZZ_MESSAGES ?? 60_000);
const SIZE = 1024 * 1024;

class Fuzz {
  readonly random: () => number;

  constructor(t: { diagnostic: (text: string) => void }) {
    const seed = chooseSeed();
    t.diagnostic(`seed ${seed}`);
    this.random = seededRandom(seed);
  }

  below(most: number): number {
    return Math.floor(this.random() * most);
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)];
  }

  bytes(most: number): Buffer {
    return Buffer.from(Array.from({ length: this.below(most) }, () => this.below(256)));
  }

  /** Numbers at which things break. */
  number(): number {
    return this.pick([
      0,
      1,
      2,
      511,
      512,
      4095,
      4096,
      SIZE - 1,
      SIZE,
      SIZE + 1,
      2 ** 25,
      2 ** 25 + 1,
      2 ** 31,
      2 ** 32 - 1,
      this.below(2 ** 32),
    ]);
  }

  /** Changes a few bytes. */
  damaged(bytes: Buffer): Buffer {
    for (let count = this.below(4); count > 0 && bytes.length > 0; count -= 1)
      bytes[this.below(bytes.length)] = this.below(256);
    return bytes;
  }
}

const EXPORTS = {
  list: async () => ['vol-0123456789abcdef0'],
  describe: async (name: string) =>
    name.startsWith('vol-') ? { name, sizeBytes: SIZE, readOnly: false, description: name } : undefined,
};

test('NBD handshakes: whatever the options, each ends in an answer or the end of that connection', async (t) => {
  const fuzz = new Fuzz(t);
  let messages = 0;
  while (messages < MESSAGES) {
    let sent = 0;
    const handshake =
      fuzz.random() < 0.8
        ? new Handshake(EXPORTS, (bytes) => {
            sent += bytes.length;
          })
        : new TlsNegotiation((bytes) => {
            sent += bytes.length;
          });
    let input = Buffer.from(
      fuzz.pick([
        [0, 0, 0, 3],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
        [255, 255, 255, 255],
      ]),
    );
    for (let option = 0; option < 12; option += 1) {
      const name = fuzz.pick(['vol-1', 'vol-0123456789abcdef0', '', '../x', 'x'.repeat(fuzz.below(5000))]);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(fuzz.random() < 0.9 ? name.length : fuzz.number());
      const data = fuzz.pick([
        Buffer.alloc(0),
        Buffer.concat([length, Buffer.from(name), Buffer.from([0, fuzz.below(3), 0, 3])]),
        Buffer.concat([
          length,
          Buffer.from(name),
          Buffer.from([0, 0, 0, 1, 0, 0, 0, 15]),
          Buffer.from('base:allocation'),
        ]),
        fuzz.bytes(64),
      ]);
      const header = Buffer.alloc(16);
      header.writeBigUInt64BE(MAGIC_OPTION, 0);
      header.writeUInt32BE(fuzz.random() < 0.9 ? fuzz.pick(Object.values(OPTION)) : fuzz.number(), 8);
      header.writeUInt32BE(fuzz.random() < 0.95 ? data.length : fuzz.number(), 12);
      input = Buffer.concat([input, header, data]);
    }
    if (fuzz.random() < 0.5) fuzz.damaged(input);
    for (let at = 0; at < input.length; ) {
      const piece = input.subarray(at, at + 1 + fuzz.below(fuzz.random() < 0.2 ? 8 : 4000));
      at += piece.length;
      messages += 1;
      const step = await handshake.feed(piece);
      if (step.kind !== 'more') break;
    }
    assert.ok(sent < 2_000_000, `${sent} bytes were answered to ${input.length}`);
  }
});

/** A volume in memory that sees what it is asked. */
class MemoryVolume implements OpenVolume {
  readonly isPartlyRemote: boolean;
  readonly writesMayWait = false;
  readonly savesOldPages = true;
  readonly sizeBytes = SIZE;
  readonly #bytes = Buffer.alloc(SIZE);

  constructor(isPartlyRemote: boolean) {
    this.isPartlyRemote = isPartlyRemote;
  }

  readNow(target: Uint8Array, targetStart: number, length: number, offset: number): ReadNow {
    if (this.isPartlyRemote) return 'remote';
    // Of a page here and there.
    if (offset % 3 === 0) return 'on disk';
    void this.read(target, targetStart, length, offset);
    return 'done';
  }

  read(target: Uint8Array, targetStart: number, length: number, offset: number): void | Promise<void> {
    assert.ok(offset >= 0 && length > 0 && offset + length <= SIZE && targetStart + length <= target.length);
    target.set(this.#bytes.subarray(offset, offset + length), targetStart);
    return this.isPartlyRemote ? Promise.resolve() : undefined;
  }

  async bringNear(): Promise<void> {}

  saveAhead(ranges: readonly number[]): void {
    for (let index = 0; index < ranges.length; index += 2)
      assert.ok(ranges[index + 1] > 0 && ranges[index] + ranges[index + 1] <= SIZE);
  }

  write(sources: readonly Uint8Array[], length: number, offset: number): void {
    assert.ok(offset >= 0 && length > 0 && offset + length <= SIZE);
    assert.equal(
      sources.reduce((sum, source) => sum + source.length, 0),
      length,
    );
    let at = offset;
    for (const source of sources) {
      this.#bytes.set(source, at);
      at += source.length;
    }
  }

  zero(offset: number, length: number): void {
    assert.ok(length > 0 && offset + length <= SIZE);
    this.#bytes.fill(0, offset, offset + length);
  }

  discard(offset: number, length: number): void {
    assert.ok(length > 0 && offset + length <= SIZE);
  }

  async flush(): Promise<void> {}

  extents(offset: number, length: number): { length: number; hole: boolean }[] {
    assert.ok(length > 0 && offset + length <= SIZE);
    return [{ length, hole: false }];
  }
}

test('NBD requests: a volume is never asked beyond its end, and each answer goes to a request of its own connection', async (t) => {
  const fuzz = new Fuzz(t);
  let messages = 0;
  for (let connection = 0; messages < MESSAGES; connection += 1) {
    const answers: Buffer[] = [];
    const socket = new Duplex({
      read: () => undefined,
      write(chunk: Buffer, _encoding, done) {
        answers.push(Buffer.from(chunk));
        done();
      },
    });
    socket.on('error', () => undefined);
    const options = { structuredReplies: false, baseAllocation: fuzz.random() < 0.5, readOnly: fuzz.random() < 0.2 };
    const volume = new MemoryVolume(fuzz.random() < 0.3);
    const transmission = new Transmission(socket as unknown as Socket, volume, options, newIoCounters());
    transmission.start(Buffer.alloc(0), Buffer.alloc(0));
    // Some connections send what they say they do: of those each answer is looked at.
    const honest = fuzz.random() < 0.6;
    /** Bytes that come with an answer that is no error, by request. */
    const asked: number[] = [];
    for (let count = 0; count < 40; count += 1) {
      const command = fuzz.random() < 0.9 ? fuzz.pick(Object.values(COMMAND)) : fuzz.below(65_536);
      if (honest && (command === COMMAND.DISCONNECT || command === COMMAND.BLOCK_STATUS)) continue;
      const length =
        command === COMMAND.WRITE && honest ? fuzz.below(9000) : fuzz.random() < 0.8 ? fuzz.below(9000) : fuzz.number();
      const request = Buffer.alloc(28);
      request.writeUInt32BE(MAGIC_REQUEST, 0);
      request.writeUInt16BE(fuzz.random() < 0.7 ? 0 : fuzz.below(65_536), 4);
      request.writeUInt16BE(command, 6);
      // The connection's own mark is in each cookie.
      request.writeUInt32BE(connection, 8);
      request.writeUInt32BE(asked.length, 12);
      request.writeUInt32BE(fuzz.random() < 0.95 ? 0 : fuzz.number(), 16);
      request.writeUInt32BE(fuzz.number(), 20);
      request.writeUInt32BE(length, 24);
      asked.push(command === COMMAND.READ ? length : 0);
      const payload =
        command === COMMAND.WRITE
          ? Buffer.alloc(honest ? length : Math.min(length, fuzz.below(9000)))
          : Buffer.alloc(0);
      const message = Buffer.concat([request, payload]);
      socket.emit('data', !honest && fuzz.random() < 0.2 ? fuzz.damaged(message) : message);
      messages += 1;
    }
    for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
    if (honest) checkAnswers(Buffer.concat(answers), connection, asked);
    socket.destroy();
    await transmission.settled();
  }
});

function checkAnswers(bytes: Buffer, connection: number, asked: readonly number[]): void {
  const answered = new Set<number>();
  for (let at = 0; at < bytes.length; ) {
    assert.equal(bytes.readUInt32BE(at), MAGIC_SIMPLE_REPLY, 'the answers are out of step');
    assert.equal(bytes.readUInt32BE(at + 8), connection, 'an answer to another connection');
    const request = bytes.readUInt32BE(at + 12);
    assert.ok(
      request < asked.length && !answered.has(request),
      `request ${request} is answered twice, or was never made`,
    );
    answered.add(request);
    at += 16 + (bytes.readUInt32BE(at + 4) === 0 ? asked[request] : 0);
  }
  assert.equal(answered.size, asked.length, 'a request was not answered');
}

test('API requests: whatever the parameters, the answer is an input that fits the model, or an error of AWS', (t) => {
  const fuzz = new Fuzz(t);
  const model = ec2Operations();
  const names = Object.keys(OPERATIONS);
  const words = [
    'Filter',
    'Name',
    'Value',
    'Tag',
    'Key',
    'TagSpecification',
    'ResourceType',
    'InstanceSpecification',
    'InstanceId',
    'DryRun',
    'MaxResults',
    'BlockDeviceMapping',
    'Ebs',
    'VolumeSize',
    'Attribute',
    '1',
    '2',
    '0',
    '-1',
    '99999999',
    '',
    '__proto__',
    'constructor',
  ];
  const values = [
    'true',
    'false',
    'maybe',
    '1',
    '-1',
    '1e9',
    '9'.repeat(30),
    '',
    'vol-0123456789abcdef0',
    'é'.repeat(300),
    '\ud800',
    '<x>&',
    "' or 1=1",
    '2019-05-29T12:34:56Z',
  ];
  for (let message = 0; message < MESSAGES; message += 1) {
    const parameters = new URLSearchParams();
    for (let count = fuzz.below(6); count >= 0; count -= 1) {
      const name = Array.from({ length: 1 + fuzz.below(5) }, () => fuzz.pick(words)).join('.');
      parameters.append(name, fuzz.pick(values));
    }
    const action = fuzz.pick(names);
    const shape = model.get(action) ?? assert.fail(action);
    try {
      const input = decodeQuery(shape.input, parameters);
      refuseUnsupported(OPERATIONS[action], shape.input, input);
      assert.equal(Object.getPrototypeOf(input), Object.prototype);
    } catch (error) {
      assert.ok(error instanceof ApiError, `${action}?${parameters}: ${(error as Error).stack}`);
    }
  }
  assert.equal(({} as Record<string, unknown>).Name, undefined);
});

test('rules of the recycle bin: what is not as its model says is refused, by its name', async (t) => {
  const fuzz = new Fuzz(t);
  const asked = new Error('asked for permission: the request was well-formed');
  const call = {
    caller: { accountId: '000000000001' },
    region: 'us-east-1',
    permit: () => Promise.reject(asked),
  } as unknown as Call;
  const members = ['Identifier', 'ResourceArn', 'RetentionPeriod', 'RetentionPeriodValue', 'RetentionPeriodUnit']
    .concat(['ResourceType', 'ResourceTags', 'ExcludeResourceTags', 'ResourceTagKey', 'Tags', 'Key', 'TagKeys'])
    .concat(['LockConfiguration', 'UnlockDelay', 'MaxResults', 'NextToken', '__proto__']);
  const value = (depth: number): unknown => {
    switch (depth === 0 ? fuzz.below(5) : fuzz.below(7)) {
      case 0:
        return fuzz.number();
      case 1:
        return fuzz.pick(['DAYS', 'EBS_SNAPSHOT', 'abcdefghijk', 'locked', '', '\ud800', 'x'.repeat(2000)]);
      case 2:
        return fuzz.pick([null, true, 7, 1.5]);
      case 3:
        return 'arn:aws:rbin:us-east-1:000000000001:rule/abcdefghijk';
      case 4:
        return [];
      case 5:
        return Array.from({ length: fuzz.below(8) }, () => value(depth - 1));
      default:
        return JSON.parse(
          `{${Array.from({ length: fuzz.below(5) }, () => `${JSON.stringify(fuzz.pick(members))}:${JSON.stringify(value(depth - 1))}`)}}`,
        );
    }
  };
  let wellFormed = 0;
  for (let message = 0; message < MESSAGES; message += 1) {
    const name = fuzz.pick(Object.keys(RECYCLE_BIN_OPERATIONS));
    const pairs = Array.from({ length: fuzz.below(4) }, () => [fuzz.pick(members), value(3)]);
    const input = Object.fromEntries(pairs) as Record<string, unknown>;
    if (fuzz.below(2) === 0) input.Identifier = 'abcdefghijk';
    try {
      await RECYCLE_BIN_OPERATIONS[name](input, call);
      assert.fail(`${name} did not ask for permission`);
    } catch (error) {
      if (error === asked) wellFormed += 1;
      else {
        assert.ok(error instanceof ApiError, `${name} ${JSON.stringify(input)}: ${(error as Error).stack}`);
        assert.ok(['ValidationException', 'ResourceNotFoundException'].includes(error.code), error.code);
      }
    }
  }
  assert.ok(wellFormed > 0);
});

test('paths, bodies, signatures and policies: nothing but an answer of their own', (t) => {
  const fuzz = new Fuzz(t);
  const model = restOperations(ebs);
  const policy =
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ec2:*"],"Resource":"*","Condition":{"StringLike":{"a":["b*"]}}}]}';
  const authorization =
    'AWS4-HMAC-SHA256 Credential=AKIA/20190529/us-east-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, Signature=abcdef';
  for (let message = 0; message < MESSAGES; message += 1) {
    const path = `/${Array.from({ length: fuzz.below(5) }, () => fuzz.pick(['snapshots', 'blocks', 'completion', 'changedblocks', 'snap-0123456789abcdef0', '7', '..', '%2e', '%ff', '%', ''])).join('/')}`;
    const method = fuzz.pick(['GET', 'PUT', 'POST', 'DELETE']);
    const body = fuzz.damaged(
      Buffer.from(fuzz.pick(['{}', '{"VolumeSize":1}', '[]', 'null', '{"Tags":[{"Key":1}]}', '{"VolumeSize":"x"}'])),
    );
    const headers: Record<string, string> = {
      'x-amz-data-length': String(fuzz.number()),
      'x-amz-changedblockscount': fuzz.pick(['1', 'x', '']),
    };
    try {
      const route = matchRoute(model, method, path);
      if (route !== undefined) {
        const query = new URLSearchParams([
          [fuzz.pick(['maxResults', 'pageToken', 'startingBlockIndex', 'x']), fuzz.pick(['1', 'x', '-1', ''])],
        ]);
        decodeRest(route.operation, { method, path, query, headers, body }, route.labels);
      }
    } catch (error) {
      assert.ok(error instanceof ApiError, `${method} ${path} ${body}: ${(error as Error).stack}`);
    }
    try {
      const header = fuzz.damaged(Buffer.from(authorization)).toString('latin1');
      readClaim({ headers: { authorization: header }, query: new URLSearchParams() });
      readClaim({
        headers: {},
        query: new URLSearchParams(
          fuzz
            .damaged(Buffer.from('X-Amz-Signature=a&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=60'))
            .toString('latin1'),
        ),
      });
    } catch (error) {
      assert.ok(error instanceof ApiError, String((error as Error).stack));
    }
    try {
      parsePolicy(fuzz.damaged(Buffer.from(policy)).toString('latin1'));
    } catch (error) {
      assert.ok(error instanceof PolicyError, String((error as Error).stack));
    }
  }
});
