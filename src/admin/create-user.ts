import { z } from 'zod';
import { ADMINISTRATOR, createUser as create } from '../auth/access-keys.ts';
import { parseAccountId } from '../types/ids.ts';
import { ApiError } from '../wire/api-error.ts';
import { verb } from './verb.ts';

const Input = z.strictObject({ accountId: z.string(), userName: z.string().regex(/^[\w+=,.@-]{1,64}$/) });

export type NewUser = { accountId: string; userName: string; accessKeyId: string; secretAccessKey: string };

/** A user of this or another account, with the key that it signs with; the secret is shown this once. */
export const createUser = verb(Input, async (input, call): Promise<NewUser> => {
  const accountId = parseAccountId(input.accountId);
  if (accountId === undefined) {
    throw new ApiError('InvalidParameterValue', `accountId '${input.accountId}' must be twelve digits`);
  }
  const { accountId: caller, userName } = call.caller;
  if (caller !== call.services.operatorAccount || userName !== ADMINISTRATOR) {
    throw new ApiError('UnauthorizedOperation', "Only the server's administrator makes users.", 403);
  }
  await call.permit();
  const key = await create(call.services.catalog, accountId, input.userName).catch((error: Error) => {
    throw new ApiError('EntityAlreadyExists', error.message, 409);
  });
  return {
    accountId,
    userName: key.user_name,
    accessKeyId: key.access_key_id,
    secretAccessKey: key.secret_access_key,
  };
});
