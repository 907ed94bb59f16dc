import { ApiError } from '../../wire/api-error.ts';

/** The errors of the Recycle Bin's API. */
export const ruleErrors = {
  invalid: (message: string) => new ApiError('ValidationException', message, 400, 'INVALID_PARAMETER_VALUE'),
  invalidToken: () =>
    new ApiError('ValidationException', 'NextToken is not one that ListRules gave.', 400, 'INVALID_PAGE_TOKEN'),
  noRule: (id: string) =>
    new ApiError('ResourceNotFoundException', `The retention rule '${id}' does not exist.`, 404, 'RULE_NOT_FOUND'),
  inState: (id: string, state: string, until: string | null) =>
    new ApiError(
      'ConflictException',
      `The retention rule '${id}' is in the '${state}' state${until === null ? '' : ` until ${until}`}.`,
      409,
      'INVALID_RULE_STATE',
    ),
  tooManyRules: (most: number) =>
    new ApiError(
      'ServiceQuotaExceededException',
      `There can be at most ${most} retention rules in a region.`,
      402,
      'SERVICE_QUOTA_EXCEEDED',
    ),
  tooManyTags: (most: number) =>
    new ApiError(
      'ServiceQuotaExceededException',
      `A retention rule can have at most ${most} tags.`,
      402,
      'SERVICE_QUOTA_EXCEEDED',
    ),
  notBuilt: (path: string) =>
    new ApiError('ValidationException', `There is no operation at ${path}.`, 404, 'INVALID_PARAMETER_VALUE'),
};
