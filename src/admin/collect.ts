import { z } from 'zod';
import { ApiError } from '../wire/api-error.ts';
import { requireOperator } from './operator.ts';
import { verb } from './verb.ts';

const Input = z.strictObject({ remove: z.boolean(), insist: z.boolean().default(false) });

/** What nothing needs any more in the object store: shown, or removed; and packs that are mostly dead, emptied. */
export const collect = verb(Input, async (input, call) => {
  requireOperator(call);
  await call.permit();
  const { collector, repacker } = call.services.lifecycle;
  const collected = await collector.collect(input.remove, input.insist).catch((error: Error) => {
    throw new ApiError('CollectionFailed', `Nothing was removed: ${error.message}`, 500);
  });
  if (collected.busy !== undefined) return collected;
  const repacked = await repacker.run(input.remove).catch((error: Error) => {
    throw new ApiError('RepackingFailed', `No pack was emptied: ${error.message}`, 500);
  });
  return { ...collected, repacked };
});
