import type { Call } from '../api/operation.ts';
import { ApiError } from '../wire/api-error.ts';

/** For what concerns the server as a whole. @throws ApiError UnauthorizedOperation to all accounts but the server's own */
export function requireOperator(call: Call): void {
  if (call.caller.accountId === call.services.operatorAccount) return;
  throw new ApiError('UnauthorizedOperation', "This is for users of the server's own account.", 403);
}
