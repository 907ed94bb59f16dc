import { z } from 'zod';
import type { Call } from '../api/operation.ts';
import { ApiError } from '../wire/api-error.ts';

/** One thing that the CLI can ask of the server: JSON in, JSON out. */
export type Verb = (body: unknown, call: Call) => Promise<object>;

/** A verb with the form of what it takes. @throws ApiError InvalidParameterValue, which says what is wrong */
export function verb<Schema extends z.ZodType, Answer extends object>(
  schema: Schema,
  run: (input: z.output<Schema>, call: Call) => Promise<Answer>,
): (body: unknown, call: Call) => Promise<Answer> {
  return async (body, call) => {
    const parsed = schema.safeParse(body);
    if (!parsed.success) throw new ApiError('InvalidParameterValue', z.prettifyError(parsed.error));
    return run(parsed.data, call);
  };
}

export const NOTHING = z.strictObject({});
