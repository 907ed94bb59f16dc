import { createHash } from 'node:crypto';
import { errors } from './errors.ts';

const MAX_TOKEN_CHARACTERS = 64;

/** A client token with the fingerprint of the request it came with: the same request again gets the same answer. */
export type ClientToken = { token: string; request: string };

/** @throws ApiError InvalidParameterValue when the token is too long */
export function readClientToken(token: string | undefined, input: object): ClientToken | undefined {
  if (token === undefined) return undefined;
  if (token.length > MAX_TOKEN_CHARACTERS) {
    throw errors.invalidValue('ClientToken', token, `It can have at most ${MAX_TOKEN_CHARACTERS} characters.`);
  }
  return { token, request: createHash('sha256').update(JSON.stringify(input)).digest('hex') };
}

/** @throws ApiError IdempotentParameterMismatch when the token came with another request before */
export function checkSameRequest(token: ClientToken, earlierRequest: string | null): void {
  if (token.request !== earlierRequest) throw errors.idempotencyMismatch(token.token);
}
