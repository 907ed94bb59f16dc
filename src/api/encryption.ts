import { accountSetting } from '../catalog/account-settings.ts';
import type { CatalogTransaction } from '../catalog/catalog.ts';
import type { DataKeyRow, SnapshotRow } from '../catalog/schema.ts';
import type { SnapshotId } from '../types/ids.ts';
import { errors } from './errors.ts';
import type { Call } from './operation.ts';

/** What a request says of encryption. */
export type EncryptionWish = { encrypted: boolean | undefined; kmsKeyId: string | undefined };

/** How a new volume or snapshot is to be encrypted. */
export type EncryptionPlan =
  | { kind: 'none' }
  /** Under the data key of what it is made from: its blocks can be shared. */
  | { kind: 'inherited'; dataKeyId: string; kmsKeyArn: string }
  /** Under a data key of its own. */
  | { kind: 'new'; kmsKeyArn: string };

/** A plan carried out: what the catalog is to say. */
export type Protection = { data_key_id: string | null; kms_key_arn: string | null; made: DataKeyRow | undefined };

/** The form of the wish, before anything is looked up. @throws ApiError InvalidParameterDependency */
export function checkWish(wish: EncryptionWish): void {
  if (wish.kmsKeyId !== undefined && wish.encrypted !== true) throw errors.dependency('KmsKeyId', 'Encrypted');
}

/**
 * What becomes of a wish: what is made from something encrypted is encrypted; an account may have it that everything
 * is. A shared snapshot is never used under its owner's key: its bytes are encrypted anew under the caller's.
 * @param source what it is made from
 * @throws ApiError InvalidParameterCombination; KeyError
 */
export async function planEncryption(
  call: Call,
  wish: EncryptionWish,
  source: Pick<SnapshotRow, 'account_id' | 'region' | 'data_key_id' | 'kms_key_arn' | 'snapshot_id'> | undefined,
): Promise<EncryptionPlan> {
  const { service } = call.services.keys;
  const inherited = source === undefined || source.data_key_id === null ? undefined : source;
  if (wish.encrypted === false && inherited !== undefined) {
    throw errors.combination(`The snapshot '${inherited.snapshot_id}' is encrypted: what is made from it is, too.`);
  }
  const wanted = wish.encrypted === true || inherited !== undefined || (await encryptedByDefault(call));
  if (!wanted) return { kind: 'none' };
  const own = inherited?.account_id === call.caller.accountId && inherited.region === call.region;
  const name = wish.kmsKeyId ?? (own ? inherited?.kms_key_arn : undefined) ?? undefined;
  const kmsKeyArn = name === undefined ? await defaultKmsKey(call) : await service.resolve(name, call.owner);
  if (inherited?.kms_key_arn === kmsKeyArn && inherited.data_key_id !== null) {
    return { kind: 'inherited', dataKeyId: inherited.data_key_id, kmsKeyArn };
  }
  return { kind: 'new', kmsKeyArn };
}

/** Makes the data key that a plan asks for. @throws KeyError */
export async function protect(call: Call, plan: EncryptionPlan): Promise<Protection> {
  switch (plan.kind) {
    case 'none':
      return { data_key_id: null, kms_key_arn: null, made: undefined };
    case 'inherited':
      return { data_key_id: plan.dataKeyId, kms_key_arn: plan.kmsKeyArn, made: undefined };
    case 'new': {
      const made = await call.services.keys.make(plan.kmsKeyArn);
      return { data_key_id: made.data_key_id, kms_key_arn: made.kms_key_arn, made };
    }
    default:
      return plan satisfies never;
  }
}

/** Records a data key that was made, before what refers to it. */
export async function recordDataKey(transaction: CatalogTransaction, protection: Protection): Promise<void> {
  if (protection.made !== undefined) await transaction.insertInto('data_keys').values(protection.made).execute();
}

export async function encryptedByDefault(call: Call): Promise<boolean> {
  return (await accountSetting(call.services.catalog, call.owner, 'ebs-encryption-by-default')) === 'true';
}

/** The key that the account has chosen as its default, or `alias/aws/ebs`. */
export async function defaultKmsKey(call: Call): Promise<string> {
  const { catalog, keys } = call.services;
  const chosen = await accountSetting(catalog, call.owner, 'ebs-default-kms-key');
  return chosen === undefined ? keys.service.defaultKey(call.owner) : keys.service.resolve(chosen, call.owner);
}

/** Whether what a wish makes will be encrypted, for policies that ask; a snapshot that is not there says no. */
export async function willBeEncrypted(
  call: Call,
  wish: EncryptionWish,
  sourceId: SnapshotId | undefined,
): Promise<boolean> {
  if (wish.encrypted === true || (await encryptedByDefault(call))) return true;
  if (sourceId === undefined) return false;
  const source = await call.services.catalog
    .selectFrom('snapshots')
    .select('data_key_id')
    .where('snapshot_id', '=', sourceId)
    .executeTakeFirst();
  return source !== undefined && source.data_key_id !== null;
}
