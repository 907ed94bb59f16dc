/**
 * Waits for some work so long and no longer; the work itself goes on.
 * @param what the work is, for the message
 * @throws when it takes longer; what the work throws
 */
export function withDeadline<Answer>(milliseconds: number, what: string, work: Promise<Answer>): Promise<Answer> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`${what} took longer than ${milliseconds} ms`)), milliseconds);
  return Promise.race([work, late.promise]).finally(() => clearTimeout(timer));
}
