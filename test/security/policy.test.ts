import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decide, PolicyError, parsePolicy, type Question } from '../../src/auth/policy.ts';
import { matchesPattern } from '../../src/auth/wildcards.ts';

/** A policy variable, as it is written. */
const variable = (name: string): string => `$\{${name}}`;
const VOLUME = 'arn:aws:ec2:us-east-1:000000000001:volume/vol-1';

function allowed(
  statements: object | object[],
  question: Partial<Question> & { keys?: Record<string, string[]> },
): boolean {
  const policy = parsePolicy(JSON.stringify({ Version: '2012-10-17', Statement: statements }));
  const context = new Map(Object.entries(question.keys ?? {}).map(([key, values]) => [key.toLowerCase(), values]));
  const { action = 'ec2:CreateSnapshot', resource = VOLUME } = question;
  return decide([policy], { action, resource, context }).allowed;
}

const allow = (more: object = {}) => ({ Effect: 'Allow', Action: 'ec2:*', Resource: '*', ...more });
const when = (Condition: object) => allow({ Condition });

test('actions: wildcards in any case, NotAction, and nothing that is not named', () => {
  assert.ok(allowed(allow({ Action: 'EC2:createsnap*' }), {}));
  assert.ok(allowed(allow({ Action: ['ec2:CreateSnapsho?'] }), {}));
  assert.ok(!allowed(allow({ Action: 'ec2:CreateSnapshot' }), { action: 'ec2:CreateSnapshots' }));
  assert.ok(!allowed(allow({ Action: 'ec2:CreateSnapshot?' }), {}));
  assert.ok(allowed({ Effect: 'Allow', NotAction: 'ec2:Delete*', Resource: '*' }, {}));
  assert.ok(!allowed({ Effect: 'Allow', NotAction: 'ec2:Create*', Resource: '*' }, {}));
});

test('resources: patterns are case-sensitive, * reaches over everything, NotResource, and policy variables', () => {
  assert.ok(allowed(allow({ Resource: 'arn:aws:ec2:*:000000000001:volume/*' }), {}));
  assert.ok(!allowed(allow({ Resource: 'arn:aws:ec2:*:000000000002:volume/*' }), {}));
  assert.ok(!allowed(allow({ Resource: VOLUME.replace('volume', 'VOLUME') }), {}));
  assert.ok(!allowed({ Effect: 'Allow', Action: '*', NotResource: VOLUME }, {}));
  const own = allow({ Resource: `${VOLUME.slice(0, -1)}\${aws:username}` });
  assert.ok(allowed(own, { keys: { 'aws:username': ['1'] } }));
  assert.ok(!allowed(own, { keys: { 'aws:username': ['2'] } }));
  assert.ok(!allowed(own, {}), 'a variable without a value matches nothing');
  // What a variable stands for is taken as it is: a name with a star in it matches no more than itself.
  assert.ok(!allowed(own, { keys: { 'aws:username': ['*'] } }));
  assert.ok(allowed(allow({ Resource: `a${variable('*')}b` }), { resource: 'a*b' }));
  assert.ok(!allowed(allow({ Resource: `a${variable('*')}b` }), { resource: 'axb' }));
});

test('an explicit deny wins, in whichever order and document; what nothing allows is denied', () => {
  const deny = { Effect: 'Deny', Action: '*', Resource: VOLUME };
  assert.ok(!allowed([allow(), deny], {}));
  assert.ok(!allowed([deny, allow()], {}));
  assert.ok(allowed([deny, allow()], { resource: 'other' }));
  assert.ok(!allowed(deny, { resource: 'other' }));
});

test('condition operators, each with what it lets through and what not', () => {
  const table: [Record<string, Record<string, unknown>>, Record<string, string[]>, boolean][] = [
    [{ StringEquals: { 'aws:RequestTag/env': 'test' } }, { 'aws:RequestTag/env': ['test'] }, true],
    [{ StringEquals: { 'aws:RequestTag/env': 'test' } }, { 'aws:RequestTag/env': ['Test'] }, false],
    [{ StringEquals: { 'aws:RequestTag/env': 'test' } }, {}, false],
    [{ StringEquals: { 'aws:requesttag/ENV': ['a', 'test'] } }, { 'aws:RequestTag/env': ['test'] }, true],
    [{ StringEqualsIfExists: { 'aws:RequestTag/env': 'test' } }, {}, true],
    [{ StringEqualsIgnoreCase: { k: 'TEST' } }, { k: ['test'] }, true],
    [{ StringNotEquals: { k: 'a' } }, { k: ['b'] }, true],
    [{ StringNotEquals: { k: ['a', 'b'] } }, { k: ['b'] }, false],
    [{ StringNotEquals: { k: 'a' } }, {}, true],
    [{ StringLike: { k: 'a*' } }, { k: ['abc'] }, true],
    [{ StringLike: { k: 'a*' } }, { k: ['Abc'] }, false],
    [{ StringNotLike: { k: 'a*' } }, { k: ['abc'] }, false],
    [{ NumericLessThanEquals: { 'ec2:VolumeSize': 100 } }, { 'ec2:VolumeSize': ['100'] }, true],
    [{ NumericLessThan: { 'ec2:VolumeSize': '100' } }, { 'ec2:VolumeSize': ['100'] }, false],
    [{ NumericGreaterThan: { k: 9 } }, { k: ['10'] }, true],
    [{ NumericGreaterThanEquals: { k: 10 } }, { k: ['9'] }, false],
    [{ NumericEquals: { k: 'ten' } }, { k: ['ten'] }, false],
    [{ NumericNotEquals: { k: 10 } }, { k: ['9'] }, true],
    [
      { DateGreaterThan: { 'aws:CurrentTime': '2026-01-01T00:00:00Z' } },
      { 'aws:CurrentTime': ['2026-06-01T00:00:00Z'] },
      true,
    ],
    [
      { DateLessThan: { 'aws:CurrentTime': '2026-01-01T00:00:00Z' } },
      { 'aws:CurrentTime': ['2026-06-01T00:00:00Z'] },
      false,
    ],
    [{ DateLessThanEquals: { 'aws:EpochTime': '2000000000' } }, { 'aws:EpochTime': ['1900000000'] }, true],
    [{ Bool: { 'ec2:Encrypted': true } }, { 'ec2:Encrypted': ['true'] }, true],
    [{ Bool: { 'ec2:Encrypted': 'true' } }, { 'ec2:Encrypted': ['false'] }, false],
    [{ IpAddress: { 'aws:SourceIp': '10.0.0.0/8' } }, { 'aws:SourceIp': ['10.1.2.3'] }, true],
    [{ IpAddress: { 'aws:SourceIp': ['192.168.0.0/16', '10.0.0.0/8'] } }, { 'aws:SourceIp': ['11.1.2.3'] }, false],
    [{ IpAddress: { 'aws:SourceIp': '10.0.0.0/8' } }, { 'aws:SourceIp': ['::ffff:10.1.2.3'] }, true],
    [{ IpAddress: { 'aws:SourceIp': '2001:db8::/32' } }, { 'aws:SourceIp': ['2001:db8:1::1'] }, true],
    [{ NotIpAddress: { 'aws:SourceIp': '127.0.0.0/8' } }, { 'aws:SourceIp': ['127.0.0.1'] }, false],
    [{ IpAddress: { 'aws:SourceIp': 'nonsense' } }, { 'aws:SourceIp': ['127.0.0.1'] }, false],
    [{ ArnLike: { 'ec2:ParentVolume': 'arn:aws:ec2:*:*:volume/vol-1' } }, { 'ec2:ParentVolume': [VOLUME] }, true],
    [{ ArnEquals: { 'ec2:ParentVolume': 'arn:aws:ec2:*:volume/vol-1' } }, { 'ec2:ParentVolume': [VOLUME] }, false],
    [{ ArnNotLike: { 'ec2:ParentVolume': VOLUME } }, { 'ec2:ParentVolume': [VOLUME] }, false],
    [{ Null: { k: true } }, {}, true],
    [{ Null: { k: true } }, { k: ['x'] }, false],
    [{ Null: { k: 'false' } }, { k: ['x'] }, true],
    [{ 'ForAllValues:StringEquals': { 'aws:TagKeys': ['a', 'b'] } }, { 'aws:TagKeys': ['a', 'b'] }, true],
    [{ 'ForAllValues:StringEquals': { 'aws:TagKeys': ['a', 'b'] } }, { 'aws:TagKeys': ['a', 'c'] }, false],
    [{ 'ForAllValues:StringEquals': { 'aws:TagKeys': ['a'] } }, {}, true],
    [{ 'ForAnyValue:StringLike': { 'aws:TagKeys': 'a*' } }, { 'aws:TagKeys': ['x', 'ab'] }, true],
    [{ 'ForAnyValue:StringEquals': { 'aws:TagKeys': 'a' } }, {}, false],
    [{ StringEquals: { k: variable('aws:username') } }, { k: ['ann'], 'aws:username': ['ann'] }, true],
    [{ StringEquals: { k: variable('aws:username') } }, { k: [''] }, false],
    [{ StringEquals: { a: '1' }, StringLike: { b: '2*' } }, { a: ['1'], b: ['22'] }, true],
    [{ StringEquals: { a: '1' }, StringLike: { b: '2*' } }, { a: ['1'], b: ['3'] }, false],
  ];
  for (const [condition, keys, expected] of table) {
    assert.equal(allowed(when(condition), { keys }), expected, JSON.stringify([condition, keys]));
  }
});

test('a document that is not one is refused, and says why', () => {
  for (const [text, why] of [
    ['{', /JSON/],
    ['[]', /object/],
    ['{"Statement":[]}', /Statement/],
    ['{"Version":"2012-10-17","Statement":[{"Effect":"Maybe","Action":"*","Resource":"*"}]}', /Effect|Allow/],
    ['{"Statement":[{"Effect":"Allow","Action":"*"}]}', /Resource/],
    ['{"Statement":[{"Effect":"Allow","Resource":"*"}]}', /Action/],
    ['{"Statement":[{"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"}]}', /Action/],
    ['{"Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}', /Principal/],
    ['{"Statement":[{"Effect":"Allow","Action":"CreateSnapshot","Resource":"*"}]}', /no action/],
    ['{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringIs":{"a":"b"}}}]}', /StringIs/],
    [' '.repeat(7000), /characters/],
  ] as const) {
    assert.throws(
      () => parsePolicy(text),
      (error) => error instanceof PolicyError && why.test(error.message),
      text,
    );
  }
});

test('no pattern takes long, however it is made', () => {
  const matching = { ignoreCase: false, context: undefined };
  assert.ok(!matchesPattern(`${'*a'.repeat(2000)}b`, 'a'.repeat(6000), matching));
  assert.ok(matchesPattern('*'.repeat(5000), 'a'.repeat(6000), matching));
});
