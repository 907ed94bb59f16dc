import type { Caller } from '../api/operation.ts';
import { userArn } from '../auth/access-keys.ts';
import { type ApiError, wireErrors } from '../wire/api-error.ts';
import type { HttpAnswer } from '../wire/http-server.ts';
import { encodeSts, encodeStsError } from '../wire/xml-encoder.ts';

const CONTENT_TYPE = 'text/xml';

/** The one operation of STS that tools ask first of all: who am I? */
export const stsEndpoint = {
  answer(parameters: URLSearchParams, caller: Caller, requestId: string): HttpAnswer {
    const action = parameters.get('Action');
    if (action === null || action === '') throw wireErrors.missingAction();
    if (action !== 'GetCallerIdentity') throw wireErrors.invalidAction(action);
    const identity = {
      Arn: userArn({ account_id: caller.accountId, user_name: caller.userName }),
      UserId: caller.accessKeyId,
      Account: caller.accountId,
    };
    return { status: 200, contentType: CONTENT_TYPE, body: encodeSts(action, identity, requestId) };
  },

  error(error: ApiError, requestId: string): HttpAnswer {
    // STS has names and a status of its own for what EC2 calls AuthFailure.
    const status = error.code === 'AuthFailure' ? 403 : error.status;
    const code = error.code === 'AuthFailure' ? 'InvalidClientTokenId' : error.code;
    const shown = Object.assign(Object.create(error) as ApiError, { code, status, message: error.message });
    return { status, contentType: CONTENT_TYPE, body: encodeStsError(shown, requestId) };
  },
};
