import type {
  DisableEbsEncryptionByDefaultRequest,
  DisableEbsEncryptionByDefaultResult,
  EnableEbsEncryptionByDefaultRequest,
  EnableEbsEncryptionByDefaultResult,
  GetEbsDefaultKmsKeyIdRequest,
  GetEbsDefaultKmsKeyIdResult,
  GetEbsEncryptionByDefaultRequest,
  GetEbsEncryptionByDefaultResult,
  ModifyEbsDefaultKmsKeyIdRequest,
  ModifyEbsDefaultKmsKeyIdResult,
  ResetEbsDefaultKmsKeyIdRequest,
  ResetEbsDefaultKmsKeyIdResult,
} from '@aws-sdk/client-ec2';
import { setAccountSetting } from '../../catalog/account-settings.ts';
import { defaultKmsKey, encryptedByDefault } from '../encryption.ts';
import { errors } from '../errors.ts';
import type { Operation } from '../operation.ts';

/** From here on every new volume of the account in this region is encrypted, and every copy of a snapshot. */
export const enableEbsEncryptionByDefault: Operation<
  EnableEbsEncryptionByDefaultRequest,
  EnableEbsEncryptionByDefaultResult
> = {
  honoured: [],
  async run(_input, call) {
    await call.permit();
    await setAccountSetting(call.services.catalog, call.owner, 'ebs-encryption-by-default', 'true');
    return { EbsEncryptionByDefault: true };
  },
};

export const disableEbsEncryptionByDefault: Operation<
  DisableEbsEncryptionByDefaultRequest,
  DisableEbsEncryptionByDefaultResult
> = {
  honoured: [],
  async run(_input, call) {
    await call.permit();
    await setAccountSetting(call.services.catalog, call.owner, 'ebs-encryption-by-default', undefined);
    return { EbsEncryptionByDefault: false };
  },
};

export const getEbsEncryptionByDefault: Operation<GetEbsEncryptionByDefaultRequest, GetEbsEncryptionByDefaultResult> = {
  honoured: [],
  async run(_input, call) {
    await call.permit();
    const enabled = await encryptedByDefault(call);
    return { EbsEncryptionByDefault: enabled, SseType: enabled ? 'sse-kms' : 'none' };
  },
};

export const getEbsDefaultKmsKeyId: Operation<GetEbsDefaultKmsKeyIdRequest, GetEbsDefaultKmsKeyIdResult> = {
  honoured: [],
  async run(_input, call) {
    await call.permit();
    return { KmsKeyId: await defaultKmsKey(call) };
  },
};

export const modifyEbsDefaultKmsKeyId: Operation<ModifyEbsDefaultKmsKeyIdRequest, ModifyEbsDefaultKmsKeyIdResult> = {
  honoured: ['KmsKeyId'],
  async run(input, call) {
    const name = input.KmsKeyId;
    if (name === undefined || name === '') throw errors.missing('KmsKeyId');
    await call.permit();
    const arn = await call.services.keys.service.resolve(name, call.owner);
    await setAccountSetting(call.services.catalog, call.owner, 'ebs-default-kms-key', arn);
    return { KmsKeyId: arn };
  },
};

export const resetEbsDefaultKmsKeyId: Operation<ResetEbsDefaultKmsKeyIdRequest, ResetEbsDefaultKmsKeyIdResult> = {
  honoured: [],
  async run(_input, call) {
    await call.permit();
    await setAccountSetting(call.services.catalog, call.owner, 'ebs-default-kms-key', undefined);
    return { KmsKeyId: await defaultKmsKey(call) };
  },
};
