/** What the API answers when it does not do what was asked: AWS's code, the HTTP status, and a message for a person. */
export class ApiError extends Error {
  override name = 'ApiError';
  readonly code: string;
  readonly status: number;
  /** What services that speak JSON say beside the code. */
  readonly reason: string | undefined;

  constructor(code: string, message: string, status = 400, reason?: string) {
    super(message);
    this.code = code;
    this.status = status;
    this.reason = reason;
  }
}

/** The errors of the protocol itself; those of EC2's domain stand in api/errors.ts. */
export const wireErrors = {
  missingAction: () => new ApiError('MissingAction', 'The request must contain the parameter Action'),
  invalidAction: (action: string) =>
    new ApiError('InvalidAction', `The action ${action} is not valid for this web service.`),
  notBuilt: (action: string) =>
    new ApiError(
      'UnsupportedOperation',
      `The action ${action} is part of the API's model, but cleancut does not offer it.`,
    ),
  invalidVersion: (version: string) =>
    new ApiError(
      'InvalidParameterValue',
      `Value (${version}) for parameter Version is invalid. Expected a date like 2016-11-15.`,
    ),
  missingParameter: (name: string) =>
    new ApiError('MissingParameter', `The request must contain the parameter ${name}`),
  unknownParameter: (name: string) => new ApiError('UnknownParameter', `The parameter ${name} is not recognized`),
  invalidValue: (name: string, value: string, reason: string) =>
    new ApiError('InvalidParameterValue', `Value (${shortened(value)}) for parameter ${name} is invalid. ${reason}`),
  tooManyParameters: (most: number) =>
    new ApiError('InvalidParameterValue', `The request has more than ${most} parameters.`),
  requestTooLarge: (most: number) =>
    new ApiError('RequestEntityTooLarge', `The request body is larger than ${most} bytes.`, 413),
  notFound: (path: string) => new ApiError('InvalidRequest', `There is nothing at ${path}.`, 404),
  /** @param reason for services that tell the cases apart */
  authFailure: (reason: AuthFailureReason) =>
    new ApiError('AuthFailure', 'AWS was not able to validate the provided access credentials', 401, reason),
  requestExpired: () => new ApiError('RequestExpired', 'Request has expired.'),
  sessionExpired: () =>
    new ApiError('RequestExpired', 'The security token included in the request is expired.', 400, 'session'),
  incompleteSignature: (why: string) => new ApiError('IncompleteSignature', why),
  validation: (message: string, reason: string) => new ApiError('ValidationException', message, 400, reason),
  throttled: (service: string) =>
    service === 'ebs'
      ? new ApiError('RequestThrottledException', 'Request limit exceeded.', 400, 'ACCOUNT_THROTTLED')
      : new ApiError('RequestLimitExceeded', 'Request limit exceeded.', 503),
  internal: () => new ApiError('InternalError', 'An internal error has occurred; the server log says more.', 500),
};

/** An unknown, disabled or deleted key; a wrong or missing session token; a signature that is not right. */
export type AuthFailureReason = 'key' | 'token' | 'signature';

/** A value as it stands in a message: whole if it is short. */
function shortened(value: string): string {
  return value.length <= 100 ? value : `${value.slice(0, 100)}…`;
}
