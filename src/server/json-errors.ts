import type { ApiError } from '../wire/api-error.ts';
import type { HttpAnswer } from '../wire/http-server.ts';

/** An error as AWS's services that speak JSON over paths tell it. */
export function jsonError(error: ApiError, requestId: string): HttpAnswer {
  const denied = DENIALS[error.code]?.(error.reason);
  if (denied !== undefined) {
    const { type, status } = denied;
    return answer(status, type, { Message: error.message, RequestId: requestId });
  }
  // What the rules shared with EC2 refuse is a validation here.
  const isOwn = error.code.endsWith('Exception') || error.status !== 400;
  const type = isOwn ? error.code : 'ValidationException';
  const Reason = error.reason ?? (isOwn ? undefined : 'INVALID_PARAMETER_VALUE');
  return answer(error.status, type, { Message: error.message, Reason, RequestId: requestId });
}

/** The names by which they say who may not come in. */
const DENIALS: Record<string, (reason: string | undefined) => { type: string; status: number }> = {
  AuthFailure: (reason) => ({
    type: reason === 'signature' ? 'InvalidSignatureException' : 'UnrecognizedClientException',
    status: 403,
  }),
  RequestExpired: (reason) => ({
    type: reason === 'session' ? 'ExpiredTokenException' : 'InvalidSignatureException',
    status: 403,
  }),
  UnauthorizedOperation: () => ({ type: 'AccessDeniedException', status: 403 }),
};

function answer(status: number, type: string, body: object): HttpAnswer {
  return {
    status,
    contentType: 'application/json',
    body: JSON.stringify(body),
    headers: { 'x-amzn-ErrorType': type },
  };
}
