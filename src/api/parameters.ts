import type { NormalizedSchema } from '@smithy/core/schema';
import { queryNameOf } from '../wire/query-decoder.ts';
import { errors } from './errors.ts';
import type { AnyOperation } from './operation.ts';

/** Refuses the first parameter that the operation would have to ignore. @throws ApiError UnsupportedOperation */
export function refuseUnsupported(operation: AnyOperation, schema: NormalizedSchema, input: object): void {
  const { withoutEffect = [], refused = [] } = operation;
  const honoured: readonly string[] = operation.honoured;
  for (const [member, value] of Object.entries(input)) {
    if (member === 'DryRun') continue;
    if (honoured.includes(member)) refuseBelow(value, member, refused);
    else if (!withoutEffect.includes(member)) throw errors.unsupportedParameter(queryNameOf(schema, member));
  }
}

function refuseBelow(value: unknown, path: string, refused: readonly string[]): void {
  if (refused.includes(path)) throw errors.unsupportedParameter(path);
  if (Array.isArray(value)) for (const item of value) refuseBelow(item, path, refused);
  else if (typeof value === 'object' && value !== null && !(value instanceof Date)) {
    for (const [member, below] of Object.entries(value)) refuseBelow(below, `${path}.${member}`, refused);
  }
}
