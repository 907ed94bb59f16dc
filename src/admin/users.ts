import { z } from 'zod';
import type { Call } from '../api/operation.ts';
import { PolicyError } from '../auth/policy.ts';
import { UserError, type UserReport } from '../auth/users.ts';
import { type AccountId, parseAccountId } from '../types/ids.ts';
import { ApiError } from '../wire/api-error.ts';
import { verb } from './verb.ts';

const USER_NAME = z.string().regex(/^[\w+=,.@-]{1,64}$/);
const POLICY_NAME = z.string().regex(/^[\w+=,.@-]{1,128}$/);
const One = z.strictObject({ accountId: z.string(), userName: USER_NAME });
const Create = One.extend({ policy: z.string().optional() });
const Enabled = One.extend({ enabled: z.boolean() });
const SetPolicy = One.extend({ policyName: POLICY_NAME, policy: z.string().optional() });
const List = z.strictObject({ accountId: z.string().optional() });

export type NewUser = { accountId: string; userName: string; accessKeyId: string; secretAccessKey: string };

/** A user of this or another account, with the key that it signs with; the secret is shown this once. */
export const createUser = verb(Create, async ({ userName, policy, ...input }, call): Promise<NewUser> => {
  const accountId = allowedAccount(call, input.accountId);
  await call.permit();
  return answering(async () => {
    const key = await call.services.users.create(accountId, userName, policy);
    return { accountId, userName, ...key };
  });
});

export const listUsers = verb(List, async (input, call): Promise<{ users: UserReport[] }> => {
  const operator = call.caller.accountId === call.services.operatorAccount;
  const accountId =
    input.accountId === undefined && operator
      ? undefined
      : allowedAccount(call, input.accountId ?? call.caller.accountId);
  await call.permit();
  return { users: await call.services.users.list(accountId) };
});

/** A new key in place of those before. */
export const rotateUser = verb(One, async ({ userName, ...input }, call): Promise<NewUser> => {
  const accountId = allowedAccount(call, input.accountId);
  await call.permit();
  return answering(async () => {
    const key = await call.services.users.rotate(accountId, userName);
    return { accountId, userName, ...key };
  });
});

export const enableUser = verb(Enabled, async ({ userName, enabled, ...input }, call) => {
  const accountId = allowedAccount(call, input.accountId);
  await call.permit();
  refuseSelf(call, accountId, userName);
  return answering(async () => {
    await call.services.users.setEnabled(accountId, userName, enabled);
    return { accountId, userName, enabled };
  });
});

export const deleteUser = verb(One, async ({ userName, ...input }, call) => {
  const accountId = allowedAccount(call, input.accountId);
  await call.permit();
  refuseSelf(call, accountId, userName);
  return answering(async () => {
    await call.services.users.delete(accountId, userName);
    return { accountId, userName };
  });
});

/** Attaches a policy to a user, or takes it away. */
export const setUserPolicy = verb(SetPolicy, async ({ userName, policyName, policy, ...input }, call) => {
  const accountId = allowedAccount(call, input.accountId);
  await call.permit();
  return answering(async () => {
    await call.services.users.setPolicy(accountId, userName, policyName, policy);
    return { accountId, userName, policyName };
  });
});

/** One's own account; the server's own account manages all. @throws ApiError */
function allowedAccount(call: Call, text: string): AccountId {
  const accountId = parseAccountId(text);
  if (accountId === undefined) throw new ApiError('InvalidParameterValue', `accountId '${text}' must be twelve digits`);
  const { accountId: own } = call.caller;
  if (accountId === own || own === call.services.operatorAccount) return accountId;
  throw new ApiError('UnauthorizedOperation', `Account ${own} does not manage the users of account ${accountId}.`, 403);
}

/** No one locks himself out. @throws ApiError */
function refuseSelf(call: Call, accountId: AccountId, userName: string): void {
  const { caller } = call;
  if (caller.accountId !== accountId || caller.userName !== userName) return;
  throw new ApiError('OperationNotPermitted', `'${userName}' cannot do this to itself.`);
}

async function answering<Answer>(work: () => Promise<Answer>): Promise<Answer> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof PolicyError) throw new ApiError('MalformedPolicyDocument', error.message);
    if (!(error instanceof UserError)) throw error;
    switch (error.reason) {
      case 'exists':
        throw new ApiError('EntityAlreadyExists', error.message, 409);
      case 'missing':
        throw new ApiError('NoSuchEntity', error.message, 404);
      default:
        throw error.reason satisfies never;
    }
  }
}
