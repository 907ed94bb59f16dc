import { Call, type Caller, type Services } from '../api/operation.ts';
import { type Identity, userArn } from '../auth/users.ts';
import { ApiError, wireErrors } from '../wire/api-error.ts';
import type { HttpAnswer } from '../wire/http-server.ts';
import { encodeSts, encodeStsError, type StsResult } from '../wire/xml-encoder.ts';

const CONTENT_TYPE = 'text/xml';
const SESSION_SECONDS = { least: 900, most: 129_600, default: 43_200 };

type Handler = (parameters: URLSearchParams, call: Call, identity: Identity) => Promise<StsResult>;

/** The operations of STS that tools ask of an endpoint like this: who am I, credentials for a while, why not. */
export class StsEndpoint {
  readonly #services: Services;
  readonly #operations: Record<string, Handler> = {
    // Anyone may know who he is: AWS asks no policy.
    GetCallerIdentity: async (_, { caller }) => ({
      Arn: userArn(caller.accountId, caller.userName),
      UserId: caller.accessKeyId,
      Account: caller.accountId,
    }),
    GetSessionToken: (parameters, call, identity) => this.#getSessionToken(parameters, call, identity),
    DecodeAuthorizationMessage: (parameters, call) => this.#decode(parameters, call),
  };

  constructor(services: Services) {
    this.#services = services;
  }

  async answer(
    parameters: URLSearchParams,
    caller: Caller,
    identity: Identity,
    requestId: string,
  ): Promise<HttpAnswer> {
    const action = parameters.get('Action');
    if (action === null || action === '') throw wireErrors.missingAction();
    if (!Object.hasOwn(this.#operations, action)) throw wireErrors.invalidAction(action);
    const call = new Call(this.#services, caller, { requestId, action: `sts:${action}`, dryRun: false });
    const result = await this.#operations[action](parameters, call, identity);
    return { status: 200, contentType: CONTENT_TYPE, body: encodeSts(action, result, requestId) };
  }

  error(error: ApiError, requestId: string): HttpAnswer {
    const { code, status } = stsError(error);
    const shown = new ApiError(code, error.message, status);
    return { status, contentType: CONTENT_TYPE, body: encodeStsError(shown, requestId) };
  }

  async #getSessionToken(parameters: URLSearchParams, call: Call, identity: Identity): Promise<StsResult> {
    const asked = parameters.get('DurationSeconds') ?? String(SESSION_SECONDS.default);
    const seconds = Number(asked);
    const { least, most } = SESSION_SECONDS;
    if (!/^\d{1,6}$/.test(asked) || seconds < least || seconds > most) {
      throw new ApiError('ValidationError', `Value '${asked}' at 'durationSeconds' must be from ${least} to ${most}.`);
    }
    for (const name of ['SerialNumber', 'TokenCode']) {
      if (parameters.has(name)) throw new ApiError('ValidationError', `${name}: there are no MFA devices here.`);
    }
    if (identity.session !== undefined) {
      throw new ApiError('AccessDenied', 'Cannot call GetSessionToken with session credentials', 403);
    }
    await call.permit();
    const made = await this.#services.users.newSession(identity, seconds);
    return {
      Credentials: {
        AccessKeyId: made.accessKeyId,
        SecretAccessKey: made.secretAccessKey,
        SessionToken: made.sessionToken,
        Expiration: made.expiresAt.toISOString(),
      },
    };
  }

  async #decode(parameters: URLSearchParams, call: Call): Promise<StsResult> {
    const encoded = parameters.get('EncodedMessage');
    if (encoded === null) throw wireErrors.missingParameter('EncodedMessage');
    await call.permit();
    // Sealed for the account: that of another opens as nothing.
    const message = this.#services.denials.open(encoded, `denial ${call.caller.accountId}`);
    if (message === undefined) {
      throw new ApiError('InvalidAuthorizationMessageException', 'The message is not one that was encoded here.');
    }
    return { DecodedMessage: message };
  }
}

/** STS has names and statuses of its own for what EC2 says otherwise. */
function stsError({ code, status, reason }: ApiError): { code: string; status: number } {
  switch (code) {
    case 'AuthFailure':
      return { code: reason === 'signature' ? 'SignatureDoesNotMatch' : 'InvalidClientTokenId', status: 403 };
    case 'RequestExpired':
      return reason === 'session'
        ? { code: 'ExpiredToken', status: 403 }
        : { code: 'SignatureDoesNotMatch', status: 403 };
    case 'UnauthorizedOperation':
      return { code: 'AccessDenied', status: 403 };
    default:
      return { code, status };
  }
}
