import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { after, before, test } from 'node:test';
import { AssumeRoleCommand, GetSessionTokenCommand, STSClient } from '@aws-sdk/client-sts';
import type { NewUser } from '../../src/admin/users.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';
import {
  type Answer,
  type Credentials,
  form,
  type Request,
  rest,
  type Signing,
  send,
  sign,
  url,
} from '../support/signed-request.ts';

/**
 * Attempts to get in with a signature that is not right, each beside its twin: the same request, rightly signed, which
 * is let in.
 */
let server: TestServer;
let admin: Credentials;
let other: Credentials;
let session: Credentials;
const file = new FileCleanup();

async function newUser(userName: string): Promise<Credentials> {
  const user = await server.admin.ask<NewUser>('create-user', { accountId: '000000000001', userName });
  return { accessKeyId: user.accessKeyId, secretAccessKey: user.secretAccessKey };
}

async function newSession(credentials: Credentials): Promise<Credentials> {
  const sts = new STSClient({ region: 'us-east-1', endpoint: server.apiUrl, credentials, maxAttempts: 1 });
  const made = (await sts.send(new GetSessionTokenCommand({ DurationSeconds: 900 }))).Credentials;
  sts.destroy();
  return {
    accessKeyId: made?.AccessKeyId ?? '',
    secretAccessKey: made?.SecretAccessKey ?? '',
    sessionToken: made?.SessionToken ?? '',
  };
}

before(async () => {
  server = await startTestServer(file);
  admin = readCredentials(server.dataDir);
  other = await newUser('other');
  session = await newSession(admin);
});
after(async () => {
  await server.stop();
  file.run();
});

const REGIONS = form('DescribeRegions');
const IDENTITY = form('GetCallerIdentity', {}, '2011-06-15');
const minutes = (count: number): Date => new Date(Date.now() + count * 60_000);
const garbled = (text: string): string => `${text.slice(0, -1)}${text.endsWith('0') ? '1' : '0'}`;

type Attempt = {
  what: string;
  code: string;
  request?: Request;
  /** How it is signed; by default as the twin: by the administrator. */
  signing?: () => Partial<Signing>;
  /** How the twin is signed, where that is not by the administrator. */
  twin?: () => Partial<Signing>;
  /** What the intruder does to the signed request. */
  tamper?: (signed: Request) => Request;
};

function withHeader(name: string, change: (value: string) => string): (signed: Request) => Request {
  return (signed) => ({ ...signed, headers: { ...signed.headers, [name]: change(signed.headers[name] ?? '') } });
}
function withoutHeader(name: string): (signed: Request) => Request {
  return (signed) => {
    const headers = { ...signed.headers };
    delete headers[name];
    return { ...signed, headers };
  };
}
function withQuery(change: (query: [string, string][]) => [string, string][]): (signed: Request) => Request {
  return (signed) => ({ ...signed, query: change(signed.query) });
}
const replaced = (name: string, value: string) =>
  withQuery((query) => query.map(([each, old]) => [each, each === name ? value : old]));
const dropped = (name: string) => withQuery((query) => query.filter(([each]) => each !== name));
const added = (name: string, value: string) => withQuery((query) => [...query, [name, value]]);
const presigned =
  (seconds = 60): (() => Partial<Signing>) =>
  () => ({ presigned: seconds });

const ATTEMPTS: Attempt[] = [
  // Keys and secrets.
  {
    what: 'a wrong secret',
    code: 'AuthFailure',
    signing: () => ({ credentials: { ...admin, secretAccessKey: 'guess' } }),
  },
  { what: 'an empty secret', code: 'AuthFailure', signing: () => ({ credentials: { ...admin, secretAccessKey: '' } }) },
  {
    what: 'a key that does not exist',
    code: 'AuthFailure',
    signing: () => ({ credentials: { accessKeyId: 'AKIAAAAAAAAAAAAAAAAA', secretAccessKey: 'x' } }),
  },
  {
    what: "one user's key with another's secret",
    code: 'AuthFailure',
    signing: () => ({ credentials: { accessKeyId: admin.accessKeyId, secretAccessKey: other.secretAccessKey } }),
  },
  {
    what: 'SQL for a key',
    code: 'AuthFailure',
    signing: () => ({ credentials: { accessKeyId: "' or 1=1 --", secretAccessKey: 'x' } }),
  },
  { what: 'no signature at all', code: 'MissingParameter', tamper: withoutHeader('authorization') },
  {
    what: 'an empty Authorization header',
    code: 'IncompleteSignature',
    tamper: withHeader('authorization', () => ' '),
  },
  {
    what: 'Basic authorization',
    code: 'IncompleteSignature',
    tamper: withHeader('authorization', () => 'Basic YWRtaW46YWRtaW4='),
  },
  {
    what: 'another algorithm',
    code: 'IncompleteSignature',
    tamper: withHeader('authorization', (value) => value.replace('SHA256', 'SHA1')),
  },
  // The signature itself.
  { what: 'one bit of the signature changed', code: 'AuthFailure', tamper: withHeader('authorization', garbled) },
  {
    what: 'a signature cut short',
    code: 'AuthFailure',
    tamper: withHeader('authorization', (value) => value.slice(0, -2)),
  },
  {
    what: 'an empty signature',
    code: 'AuthFailure',
    tamper: withHeader('authorization', (value) => value.replace(/Signature=.*/, 'Signature=')),
  },
  {
    what: 'no signature in the header',
    code: 'IncompleteSignature',
    tamper: withHeader('authorization', (value) => value.replace(/, Signature=.*/, '')),
  },
  {
    what: 'no list of signed headers',
    code: 'IncompleteSignature',
    tamper: withHeader('authorization', (value) => value.replace(/SignedHeaders=[^,]*, /, '')),
  },
  {
    what: 'a scope of three parts',
    code: 'IncompleteSignature',
    tamper: withHeader('authorization', (value) => value.replace('/us-east-1/ec2', '')),
  },
  {
    what: 'a scope that ends otherwise',
    code: 'IncompleteSignature',
    tamper: withHeader('authorization', (value) => value.replace('aws4_request', 'aws5_request')),
  },
  {
    what: 'the date of the scope changed',
    code: 'AuthFailure',
    tamper: withHeader('authorization', (value) => value.replace(/\/20\d{6}\//, '/20200101/')),
    request: REGIONS,
  },
  {
    what: 'the host left out of what is signed',
    code: 'IncompleteSignature',
    tamper: withHeader('authorization', (value) => value.replace(/host;?/, '')),
  },
  {
    what: 'the date left out of what is signed',
    code: 'IncompleteSignature',
    tamper: withHeader('authorization', (value) => value.replace(/;?x-amz-date/, '')),
  },
  { what: 'a signed header that is not there', code: 'IncompleteSignature', tamper: withoutHeader('content-type') },
  // Time and place.
  {
    what: 'a request of ten minutes ago',
    code: 'RequestExpired',
    signing: () => ({ at: minutes(-10) }),
    twin: () => ({ at: minutes(-3) }),
  },
  {
    what: 'a request of ten minutes hence',
    code: 'RequestExpired',
    signing: () => ({ at: minutes(10) }),
    twin: () => ({ at: minutes(3) }),
  },
  { what: 'a date that is none', code: 'IncompleteSignature', tamper: withHeader('x-amz-date', () => 'yesterday') },
  {
    what: 'the date moved on, the signature kept',
    code: 'AuthFailure',
    signing: () => ({ at: minutes(-4) }),
    tamper: withHeader(
      'x-amz-date',
      () =>
        `${minutes(0)
          .toISOString()
          .replace(/[-:]|\.\d+/g, '')}`,
    ),
  },
  { what: 'a request signed for another region', code: 'AuthFailure', signing: () => ({ region: 'eu-west-1' }) },
  {
    what: 'a region changed after signing',
    code: 'AuthFailure',
    tamper: withHeader('authorization', (value) => value.replace('us-east-1', 'us-east-2')),
  },
  {
    what: 'a request signed for a service that is not here',
    code: 'UnsupportedOperation',
    signing: () => ({ service: 's3' }),
  },
  {
    what: 'a service changed after signing',
    code: 'InvalidClientTokenId',
    tamper: withHeader('authorization', (value) =>
      value.replace('/ec2/', '/sts/').replace(/AKIA\w+/, 'AKIAAAAAAAAAAAAAAAAA'),
    ),
  },
  // What was signed is not what was sent.
  {
    what: 'a body that was changed',
    code: 'AuthFailure',
    tamper: (signed) => ({
      ...signed,
      body: 'Action=DescribeVolumes&Version=2016-11-15',
      headers: { ...signed.headers, 'content-length': '41' },
    }),
  },
  {
    what: 'a parameter put behind',
    code: 'AuthFailure',
    tamper: (signed) => ({ ...signed, query: [['Action', 'DescribeVolumes']] }),
  },
  {
    what: 'another method',
    code: 'AuthFailure',
    request: url('DescribeRegions'),
    tamper: (signed) => ({ ...signed, method: 'POST' }),
  },
  { what: 'another path', code: 'AuthFailure', tamper: (signed) => ({ ...signed, path: '/x' }) },
  { what: 'another host', code: 'AuthFailure', tamper: withHeader('host', () => 'example.com') },
  {
    what: 'a signed header changed',
    code: 'AuthFailure',
    tamper: withHeader('content-type', () => 'application/x-www-form-urlencoded; charset=utf-8'),
  },
  {
    what: 'a hash of the body that is not its',
    code: 'AuthFailure',
    request: { ...REGIONS, headers: { ...REGIONS.headers, 'x-amz-content-sha256': 'a'.repeat(64) } },
  },
  {
    what: 'a body that claims to need no signature',
    code: 'AuthFailure',
    request: { ...REGIONS, headers: { ...REGIONS.headers, 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' } },
  },
  {
    what: 'a query changed',
    code: 'AuthFailure',
    request: url('DescribeRegions'),
    tamper: replaced('Action', 'DescribeVolumes'),
  },
  {
    what: 'a path with dots in it, signed as another',
    code: 'InvalidRequest',
    tamper: (signed) => ({ ...signed, path: '/x/..' }),
  },
  // STS tells the cases apart.
  {
    what: 'STS: a key that does not exist',
    code: 'InvalidClientTokenId',
    request: IDENTITY,
    signing: () => ({ service: 'sts', credentials: { accessKeyId: 'AKIAX', secretAccessKey: 'x' } }),
    twin: () => ({ service: 'sts' }),
  },
  {
    what: 'STS: a wrong secret',
    code: 'SignatureDoesNotMatch',
    request: IDENTITY,
    signing: () => ({ service: 'sts', credentials: { ...admin, secretAccessKey: 'guess' } }),
    twin: () => ({ service: 'sts' }),
  },
  {
    what: 'STS: too old',
    code: 'SignatureDoesNotMatch',
    request: IDENTITY,
    signing: () => ({ service: 'sts', at: minutes(-20) }),
    twin: () => ({ service: 'sts' }),
  },
  // Presigned URLs.
  {
    what: 'presigned: a wrong secret',
    code: 'AuthFailure',
    request: url('DescribeRegions'),
    signing: () => ({ presigned: 60, credentials: { ...admin, secretAccessKey: 'guess' } }),
    twin: presigned(),
  },
  {
    what: 'presigned: a key that does not exist',
    code: 'AuthFailure',
    request: url('DescribeRegions'),
    signing: () => ({ presigned: 60, credentials: { accessKeyId: 'AKIAX', secretAccessKey: 'x' } }),
    twin: presigned(),
  },
  {
    what: 'presigned: another action',
    code: 'AuthFailure',
    request: url('DescribeRegions'),
    signing: presigned(),
    tamper: replaced('Action', 'DescribeVolumes'),
    twin: presigned(),
  },
  {
    what: 'presigned: one more parameter',
    code: 'AuthFailure',
    request: url('DescribeRegions'),
    signing: presigned(),
    tamper: added('AllRegions', 'true'),
    twin: presigned(),
  },
  {
    what: 'presigned: over its time',
    code: 'RequestExpired',
    request: url('DescribeRegions'),
    signing: () => ({ presigned: 60, at: minutes(-2) }),
    twin: () => ({ presigned: 300, at: minutes(-2) }),
  },
  {
    what: 'presigned: its time made longer',
    code: 'AuthFailure',
    request: url('DescribeRegions'),
    signing: () => ({ presigned: 60, at: minutes(-2) }),
    tamper: replaced('X-Amz-Expires', '6000'),
    twin: () => ({ presigned: 6000, at: minutes(-2) }),
  },
  {
    what: 'presigned: for more than a week',
    code: 'IncompleteSignature',
    request: url('DescribeRegions'),
    signing: presigned(),
    tamper: replaced('X-Amz-Expires', '604801'),
    twin: presigned(604_800),
  },
  {
    what: 'presigned: for no time',
    code: 'IncompleteSignature',
    request: url('DescribeRegions'),
    signing: presigned(),
    tamper: replaced('X-Amz-Expires', '0'),
    twin: presigned(1000),
  },
  {
    what: 'presigned: without its time',
    code: 'IncompleteSignature',
    request: url('DescribeRegions'),
    signing: presigned(),
    tamper: dropped('X-Amz-Expires'),
    twin: presigned(),
  },
  {
    what: 'presigned: from the future',
    code: 'RequestExpired',
    request: url('DescribeRegions'),
    signing: () => ({ presigned: 60, at: minutes(30) }),
    twin: presigned(),
  },
  {
    what: 'presigned: another algorithm',
    code: 'IncompleteSignature',
    request: url('DescribeRegions'),
    signing: presigned(),
    tamper: replaced('X-Amz-Algorithm', 'none'),
    twin: presigned(),
  },
  {
    what: 'presigned: two signatures',
    code: 'IncompleteSignature',
    request: url('DescribeRegions'),
    signing: presigned(),
    tamper: added('X-Amz-Signature', 'a'.repeat(64)),
    twin: presigned(),
  },
  {
    what: 'presigned: the host not signed',
    code: 'IncompleteSignature',
    request: url('DescribeRegions'),
    signing: presigned(),
    tamper: replaced('X-Amz-SignedHeaders', 'x-amz-date'),
    twin: presigned(),
  },
  {
    what: 'presigned: sent as a POST',
    code: 'AuthFailure',
    request: url('DescribeRegions'),
    signing: presigned(),
    tamper: (signed) => ({ ...signed, method: 'POST' }),
    twin: presigned(),
  },
  // Temporary credentials.
  {
    what: 'a session without its token',
    code: 'AuthFailure',
    signing: () => ({ credentials: { accessKeyId: session.accessKeyId, secretAccessKey: session.secretAccessKey } }),
    twin: () => ({ credentials: session }),
  },
  {
    what: 'a session with a made-up token',
    code: 'AuthFailure',
    signing: () => ({ credentials: { ...session, sessionToken: 'made up' } }),
    twin: () => ({ credentials: session }),
  },
  {
    what: 'a session whose token is put in after signing',
    code: 'AuthFailure',
    signing: () => ({ credentials: { accessKeyId: session.accessKeyId, secretAccessKey: session.secretAccessKey } }),
    tamper: withHeader('x-amz-security-token', () => session.sessionToken ?? ''),
    twin: () => ({ credentials: session }),
  },
  {
    what: 'a session with a wrong secret',
    code: 'AuthFailure',
    signing: () => ({ credentials: { ...session, secretAccessKey: 'guess' } }),
    twin: () => ({ credentials: session }),
  },
  {
    what: 'a presigned session without its token',
    code: 'AuthFailure',
    request: url('DescribeRegions'),
    signing: () => ({ presigned: 60, credentials: session }),
    tamper: dropped('X-Amz-Security-Token'),
    twin: () => ({ presigned: 60, credentials: session }),
  },
  {
    what: 'a session that asks for a session',
    code: 'AccessDenied',
    request: form('GetSessionToken', {}, '2011-06-15'),
    signing: () => ({ service: 'sts', credentials: session }),
    twin: () => ({ service: 'sts' }),
  },
  // The EBS direct APIs and the operator's own.
  {
    what: 'EBS: a wrong secret',
    code: 'InvalidSignatureException',
    request: rest('POST', '/snapshots', {}, '{"VolumeSize":1}'),
    signing: () => ({ service: 'ebs', credentials: { ...admin, secretAccessKey: 'guess' } }),
    twin: () => ({ service: 'ebs' }),
  },
  {
    what: 'EBS: a key that does not exist',
    code: 'UnrecognizedClientException',
    request: rest('POST', '/snapshots', {}, '{"VolumeSize":1}'),
    signing: () => ({ service: 'ebs', credentials: { accessKeyId: 'AKIAX', secretAccessKey: 'x' } }),
    twin: () => ({ service: 'ebs' }),
  },
  {
    what: 'EBS: a body that was changed',
    code: 'InvalidSignatureException',
    request: rest('POST', '/snapshots', {}, '{"VolumeSize":1}'),
    signing: () => ({ service: 'ebs' }),
    tamper: (signed) => ({ ...signed, body: '{"VolumeSize":2}' }),
    twin: () => ({ service: 'ebs' }),
  },
  {
    what: "the operator's verbs: a wrong secret",
    code: 'AuthFailure',
    request: rest('POST', '/cleancut/status', {}, '{}'),
    signing: () => ({ service: 'cleancut', credentials: { ...admin, secretAccessKey: 'guess' } }),
    twin: () => ({ service: 'cleancut' }),
  },
  {
    what: "the operator's verbs: signed for EC2",
    code: 'InvalidRequest',
    request: rest('POST', '/cleancut/status', {}, '{}'),
    signing: () => ({ service: 'ec2' }),
    twin: () => ({ service: 'cleancut' }),
  },
];

async function ask(attempt: Attempt, signing: Partial<Signing>, tamper?: Attempt['tamper']): Promise<Answer> {
  const signed = await sign(server.apiUrl, attempt.request ?? REGIONS, { credentials: admin, ...signing });
  return send(server.apiUrl, tamper === undefined ? signed : tamper(signed));
}

for (const attempt of ATTEMPTS) {
  test(`refused: ${attempt.what} (${attempt.code}); its twin is let in`, async () => {
    const refused = await ask(attempt, attempt.signing?.() ?? {}, attempt.tamper);
    assert.equal(refused.code, attempt.code, refused.body);
    assert.notEqual(refused.status, 200);
    const twin: Attempt = { ...attempt };
    // The twin of a hash that lies is one that does not.
    if (attempt.request?.headers['x-amz-content-sha256'] !== undefined) twin.request = REGIONS;
    const allowed = await ask(twin, attempt.twin?.() ?? {});
    assert.ok(allowed.status === 200 || allowed.status === 201, allowed.body);
  });
}

test('keys that are disabled, enabled, rotated out and deleted; sessions end with the key that made them', async () => {
  const user = await newUser('leaver');
  const own = await newSession(user);
  const ask = async (credentials: Credentials): Promise<string> => {
    const answer = await send(server.apiUrl, await sign(server.apiUrl, REGIONS, { credentials }));
    return answer.status === 200 ? 'let in' : answer.code;
  };
  const both = async (): Promise<string[]> => [await ask(user), await ask(own)];
  const who = { accountId: '000000000001', userName: 'leaver' };
  assert.deepEqual(await both(), ['let in', 'let in']);
  await server.admin.ask('enable-user', { ...who, enabled: false });
  assert.deepEqual(await both(), ['AuthFailure', 'AuthFailure']);
  await server.admin.ask('enable-user', { ...who, enabled: true });
  assert.deepEqual(await both(), ['let in', 'let in']);
  const renewed = await server.admin.ask<NewUser>('rotate-user', who);
  assert.deepEqual(await both(), ['AuthFailure', 'AuthFailure']);
  assert.equal(await ask(renewed), 'let in');
  await server.admin.ask('delete-user', who);
  assert.equal(await ask(renewed), 'AuthFailure');
  await assert.rejects(server.admin.ask('rotate-user', who), /NoSuchEntity/);
  await assert.rejects(server.admin.ask('delete-user', { ...who, userName: 'admin' }), /OperationNotPermitted/);
});

test('a session that is over its time says so, to each service in its own words', async () => {
  const over = await newSession(admin);
  const catalog = new DatabaseSync(`${server.dataDir}/catalog.sqlite`);
  catalog
    .prepare('update sessions set expires_at = ? where access_key_id = ?')
    .run('2020-01-01T00:00:00Z', over.accessKeyId);
  catalog.close();
  for (const [service, request, code] of [
    ['ec2', REGIONS, 'RequestExpired'],
    ['sts', IDENTITY, 'ExpiredToken'],
    ['ebs', rest('GET', '/snapshots/snap-0123456789abcdef0/blocks'), 'ExpiredTokenException'],
  ] as const) {
    const answer = await send(server.apiUrl, await sign(server.apiUrl, request, { credentials: over, service }));
    assert.equal(answer.code, code, answer.body);
  }
});

test('secrets are not in the catalog, nor in any log; what STS does not offer it says', async () => {
  const user = await newUser('quiet');
  await newSession(user);
  const catalog = new DatabaseSync(`${server.dataDir}/catalog.sqlite`, { readOnly: true });
  const rows = [
    ...catalog.prepare('select * from access_keys').all(),
    ...catalog.prepare('select * from sessions').all(),
  ];
  catalog.close();
  const text = JSON.stringify(rows);
  for (const secret of [
    user.secretAccessKey,
    admin.secretAccessKey,
    session.secretAccessKey,
    session.sessionToken ?? '',
  ]) {
    assert.ok(!text.includes(secret) && !server.log().includes(secret));
  }
  const sts = new STSClient({ region: 'us-east-1', endpoint: server.apiUrl, credentials: admin, maxAttempts: 1 });
  await assert.rejects(
    sts.send(new AssumeRoleCommand({ RoleArn: 'arn:aws:iam::000000000001:role/x', RoleSessionName: 'x' })),
    {
      name: 'InvalidAction',
    },
  );
  await assert.rejects(sts.send(new GetSessionTokenCommand({ DurationSeconds: 60 })), { name: 'ValidationError' });
  sts.destroy();
});
