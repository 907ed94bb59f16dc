import type { Filter } from '@aws-sdk/client-ec2';
import { type Expression, type RawBuilder, type SqlBool, sql } from 'kysely';
import { hasWildcard, type Step, stepsOf } from './filters.ts';

/** More values, and longer ones, are left to the rows: a statement may have only so much of them. */
const MOST_VALUES = 1000;
const LONGEST_PATTERN = 1000;
/** A pattern may take thirty microseconds of each row; where they are gone through one by one, others have their turn between them. */
const PATTERN_WEIGHT = 100;

/** What a filter looks at, as text, where that is a column. */
export type Columns = Record<string, Expression<unknown>>;

/**
 * Those of a request's filters that the database is asked about, before all are done row by row: all of them, but for a
 * request with a great many values. The database leaves out only what the filters would leave out, too (to it, small and large letters may be
 * the same), so it makes a call faster and never different.
 */
export function narrowing(filters: readonly Filter[] | undefined): Filter[] {
  let weight = 0;
  return (filters ?? []).filter(({ Values = [] }) => {
    for (const value of Values) weight += hasWildcard(value) ? PATTERN_WEIGHT : 1;
    return weight <= MOST_VALUES;
  });
}

/** What filters ask of columns. */
export function conditionsOn(filters: readonly Filter[], columns: Columns): RawBuilder<SqlBool>[] {
  return filters.flatMap(({ Name = '', Values = [] }) =>
    Object.hasOwn(columns, Name) ? fitsOne(columns[Name], Values) : [],
  );
}

/** That a text fits one of the patterns; nothing where that cannot be said. */
export function fitsOne(text: Expression<unknown>, patterns: readonly string[]): RawBuilder<SqlBool>[] {
  if (patterns.length === 0 || patterns.some((pattern) => pattern.length > LONGEST_PATTERN)) return [];
  const exact = patterns.filter((pattern) => !hasWildcard(pattern));
  const each = patterns.filter(hasWildcard).map((pattern) => sql<SqlBool>`${text} like ${likeOf(pattern)} escape '\\'`);
  if (exact.length > 0) each.push(sql<SqlBool>`${text} in (${sql.join(exact)})`);
  return [sql<SqlBool>`(${sql.join(each, sql` or `)})`];
}

/** The values of a filter, where none is a pattern. */
export function exactValues(filters: readonly Filter[], name: string): string[] | undefined {
  const values = filters.find((filter) => filter.Name === name)?.Values;
  return values === undefined || values.some(hasWildcard) ? undefined : values;
}

/** A pattern in SQL's words, `\` being what escapes. */
function likeOf(pattern: string): string {
  const word = (step: Step): string => {
    if (step === null) return '%';
    if (step === undefined) return '_';
    return /[%_\\]/.test(step) ? `\\${step}` : step;
  };
  return stepsOf(pattern).map(word).join('');
}
