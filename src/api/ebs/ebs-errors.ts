import { ApiError } from '../../wire/api-error.ts';

/** What the EBS direct APIs answer: a type, a status, a reason. */
export const ebsErrors = {
  invalid: (message: string, reason: string) => new ApiError('ValidationException', message, 400, reason),
  noSnapshot: (id: string) =>
    new ApiError('ResourceNotFoundException', `The snapshot '${id}' does not exist.`, 404, 'SNAPSHOT_NOT_FOUND'),
  notBeingWritten: (id: string) =>
    new ApiError('ValidationException', `The snapshot '${id}' is not being written.`, 400, 'INVALID_SNAPSHOT_ID'),
  noParent: (id: string) =>
    new ApiError(
      'ResourceNotFoundException',
      `The parent snapshot '${id}' does not exist.`,
      404,
      'DEPENDENCY_RESOURCE_NOT_FOUND',
    ),
  conflict: (message: string) => new ApiError('ConflictException', message, 503),
  notBuilt: (path: string) => new ApiError('ValidationException', `There is no operation at ${path}.`, 404),
};
