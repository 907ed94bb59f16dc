import { z } from 'zod';
import { ApiError } from '../wire/api-error.ts';
import { requireOperator } from './operator.ts';
import { verb } from './verb.ts';

const Input = z.strictObject({ remove: z.boolean() });

/** What nothing needs any more in the object store: shown, or removed. */
export const collect = verb(Input, async (input, call) => {
  requireOperator(call);
  await call.permit();
  return call.services.lifecycle.collector.collect(input.remove).catch((error: Error) => {
    throw new ApiError('CollectionFailed', `Nothing was removed: ${error.message}`, 500);
  });
});
