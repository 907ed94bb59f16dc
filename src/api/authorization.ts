import { allowsEverything, type Decision, decide, type Policy } from '../auth/policy.ts';
import { userArn } from '../auth/users.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { tagsOf } from '../catalog/tags.ts';
import { knownId } from '../types/ids.ts';
import { errors } from './errors.ts';
import type { Call, Caller } from './operation.ts';
import { ruleArn, tagsOfRule } from './recycle-bin/rule-view.ts';

export type TargetType = 'image' | 'instance' | 'replace-root-volume-task' | 'rule' | 'snapshot' | 'volume';

/** What a call would do something to, or make. */
export type Target = {
  type: TargetType;
  /** Of one that there is (perhaps: it is looked up, and may not be found); none for one that is to be made. */
  id?: string;
  /** Another action than the call's own: tags on what is made. */
  action?: string;
  /** Condition keys beyond those that are looked up. */
  context?: Record<string, string | number | boolean | readonly string[] | null | undefined>;
};

/** Targets, or a way to find them that is gone only where it matters. */
export type Targets = Target | (() => Promise<readonly Target[]>);

/** Condition keys of tags that a request carries. */
export function requestTags(tags: ReadonlyMap<string, string>): NonNullable<Target['context']> {
  const context: NonNullable<Target['context']> = {};
  for (const [key, value] of tags) context[`aws:RequestTag/${key}`] = value;
  return tags.size === 0 ? context : { ...context, 'aws:TagKeys': [...tags.keys()] };
}

/** Something that is to be made; where it gets tags, putting them on is asked for too. */
export function making(
  call: Call,
  type: TargetType,
  tags: ReadonlyMap<string, string>,
  context: Target['context'] = {},
): Target[] {
  const made: Target = { type, context: { ...context, ...requestTags(tags) } };
  if (tags.size === 0) return [made];
  const createAction = call.action.replace(/^[^:]+:/, '');
  return [made, { ...made, action: 'ec2:CreateTags', context: { ...made.context, 'ec2:CreateAction': createAction } }];
}

/**
 * Asks the caller's policies about each target; about nothing in particular where there is none.
 * @throws ApiError UnauthorizedOperation, which says what may not be done to what
 */
export async function authorize(call: Call, targets: readonly Targets[]): Promise<void> {
  const { policies } = call.caller;
  if (allowsEverything(policies)) return;
  const found: Target[] = [];
  for (const target of targets) found.push(...(typeof target === 'function' ? await target() : [target]));
  if (found.length === 0) return ask(call, policies, call.action, '*', contextOf(call));
  for (const target of found) {
    const context = contextOf(call);
    if (target.id !== undefined) await addResource(call, target.type, target.id, context);
    for (const [key, value] of Object.entries(target.context ?? {})) set(context, key, value);
    await ask(call, policies, target.action ?? call.action, arnOf(call, target), context);
  }
}

async function ask(
  call: Call,
  policies: readonly Policy[],
  action: string,
  resource: string,
  context: Context,
): Promise<void> {
  const decision = decide(policies, { action, resource, context });
  if (decision.allowed) return;
  const { caller, services } = call;
  const detail = explanation(caller, decision, action, resource, context);
  // For those alone who may decode it: it tells more than who was denied should know.
  const encoded = services.denials.seal(JSON.stringify(detail), `denial ${caller.accountId}`);
  throw errors.unauthorized(userArn(caller.accountId, caller.userName), action, resource, decision.explicit, encoded);
}

type Context = Map<string, readonly string[]>;

function set(context: Context, key: string, value: NonNullable<Target['context']>[string]): void {
  if (value === undefined || value === null) return;
  context.set(key.toLowerCase(), Array.isArray(value) ? value : [String(value)]);
}

/** The circumstances of a call, whatever it is about. */
function contextOf({ caller, region, services }: Call): Context {
  const context: Context = new Map();
  const now = services.now();
  const arn = userArn(caller.accountId, caller.userName);
  set(context, 'aws:CurrentTime', now.toISOString());
  set(context, 'aws:EpochTime', Math.floor(now.getTime() / 1000));
  set(context, 'aws:SourceIp', caller.sourceAddress);
  set(context, 'aws:SecureTransport', caller.secure);
  set(context, 'aws:UserAgent', caller.userAgent);
  set(context, 'aws:username', caller.userName);
  set(context, 'aws:userid', caller.accessKeyId);
  set(context, 'aws:PrincipalArn', arn);
  set(context, 'aws:PrincipalAccount', caller.accountId);
  set(context, 'aws:PrincipalType', 'User');
  set(context, 'aws:RequestedRegion', region);
  set(context, 'ec2:Region', region);
  return context;
}

/** Snapshots and images have no account in their ARN, as they may be used across accounts. */
function arnOf({ caller, region }: Call, { type, id }: Target): string {
  if (type === 'rule') return ruleArn({ account_id: caller.accountId, region, rule_id: id ?? '*' });
  const account = type === 'snapshot' || type === 'image' ? '' : caller.accountId;
  return `arn:aws:ec2:${region}:${account}:${type}/${id ?? '*'}`;
}

/** Adds what the catalog knows of a resource; of one that is not the caller's to see, nothing. */
async function addResource(call: Call, type: TargetType, id: string, context: Context): Promise<void> {
  const { catalog } = call.services;
  const keys = await READERS[type](catalog, id, call);
  if (keys === undefined) return;
  for (const [key, value] of Object.entries(keys)) set(context, key, value);
  const tags =
    keys.ownTags === false ? new Map<string, string>() : ((await tagsOf(catalog, [id])).get(id) ?? new Map());
  for (const [key, value] of tags) {
    set(context, `ec2:ResourceTag/${key}`, value);
    set(context, `aws:ResourceTag/${key}`, value);
  }
}

type Keys = NonNullable<Target['context']> & { ownTags?: boolean };
type Reader = (catalog: Catalog, id: string, call: Call) => Promise<Keys | undefined>;

const READERS: Record<TargetType, Reader> = {
  async instance(catalog, id, { caller }) {
    const row = await catalog
      .selectFrom('instances')
      .selectAll()
      .where('instance_id', '=', knownId('i', id))
      .where('account_id', '=', caller.accountId)
      .executeTakeFirst();
    return (
      row && {
        'ec2:InstanceID': id,
        'ec2:InstanceType': row.instance_type,
        'ec2:AvailabilityZone': row.zone,
        'ec2:RootDeviceType': 'ebs',
      }
    );
  },
  async volume(catalog, id, { caller, region }) {
    const row = await catalog
      .selectFrom('volumes')
      .selectAll()
      .where('volume_id', '=', knownId('vol', id))
      .where('account_id', '=', caller.accountId)
      .executeTakeFirst();
    return (
      row && {
        'ec2:VolumeID': id,
        'ec2:VolumeSize': row.size_gib,
        'ec2:VolumeType': row.volume_type,
        'ec2:VolumeIops': row.iops,
        'ec2:VolumeThroughput': row.throughput,
        'ec2:AvailabilityZone': row.zone,
        'ec2:Encrypted': row.data_key_id !== null,
        'ec2:KmsKeyId': row.kms_key_arn,
        'ec2:ParentSnapshot': row.snapshot_id && snapshotArn(region, row.snapshot_id),
      }
    );
  },
  async snapshot(catalog, id, { caller, region }) {
    const row = await catalog
      .selectFrom('snapshots')
      .selectAll()
      .where('snapshot_id', '=', knownId('snap', id))
      .executeTakeFirst();
    return (
      row && {
        'ec2:SnapshotID': id,
        'ec2:Owner': row.account_id,
        'ec2:ParentVolume': volumeArn(region, row.account_id, row.volume_id),
        'ec2:VolumeSize': row.size_gib,
        'ec2:Encrypted': row.data_key_id !== null,
        'ec2:SnapshotTime': row.started_at,
        ownTags: row.account_id === caller.accountId,
      }
    );
  },
  async image(catalog, id, { caller }) {
    const row = await catalog
      .selectFrom('images')
      .selectAll()
      .where('image_id', '=', knownId('ami', id))
      .executeTakeFirst();
    return (
      row && {
        'ec2:ImageID': id,
        'ec2:Owner': row.account_id,
        'ec2:Public': row.is_public === 1,
        'ec2:RootDeviceType': 'ebs',
        ownTags: row.account_id === caller.accountId,
      }
    );
  },
  async rule(catalog, id, { caller }) {
    const row = await catalog
      .selectFrom('retention_rules')
      .select('tags')
      .where('rule_id', '=', id)
      .where('account_id', '=', caller.accountId)
      .executeTakeFirst();
    if (row === undefined) return undefined;
    const keys: Keys = { 'rbin:Attribute/ResourceType': 'EBS_SNAPSHOT', ownTags: false };
    for (const { Key, Value } of tagsOfRule(row)) keys[`aws:ResourceTag/${Key}`] = Value;
    return keys;
  },
  async 'replace-root-volume-task'() {
    return undefined;
  },
};

export function volumeArn(region: string, accountId: string, volumeId: string): string {
  return `arn:aws:ec2:${region}:${accountId}:volume/${volumeId}`;
}

export function snapshotArn(region: string, snapshotId: string): string {
  return `arn:aws:ec2:${region}::snapshot/${snapshotId}`;
}

/** What sts:DecodeAuthorizationMessage shows, in AWS's form. */
function explanation(
  caller: Caller,
  decision: Extract<Decision, { allowed: false }>,
  action: string,
  resource: string,
  context: Context,
): object {
  const items = decision.statements.map(({ sid, effect }) => ({ statementId: sid, effect: effect.toUpperCase() }));
  const conditions = [...context].map(([key, values]) => ({
    key,
    values: { items: values.map((value) => ({ value })) },
  }));
  return {
    allowed: false,
    explicitDeny: decision.explicit,
    matchedStatements: { items },
    failures: { items: [] },
    context: {
      principal: { id: caller.accessKeyId, name: caller.userName, arn: userArn(caller.accountId, caller.userName) },
      action,
      resource,
      conditions: { items: conditions },
    },
  };
}
