import type { Filter } from '@aws-sdk/client-ec2';

/**
 * What the database can do of a request's filters before the rest is done row by row: those without wildcards. It only
 * leaves out what the filters would leave out too, so it makes a call faster and never different.
 */
export function exactValues(filters: readonly Filter[] | undefined, name: string): string[] | undefined {
  const values = filters?.find((filter) => filter.Name === name)?.Values;
  return values === undefined || values.some(hasWildcard) ? undefined : values;
}

/** The tags that a resource must have, with the values of which one must be there. */
export function exactTags(filters: readonly Filter[] | undefined): { key: string; values: string[] }[] {
  return (filters ?? []).flatMap(({ Name = '', Values = [] }) =>
    Name.startsWith('tag:') && Values.length > 0 && !Values.some(hasWildcard)
      ? [{ key: Name.slice('tag:'.length), values: Values }]
      : [],
  );
}

function hasWildcard(value: string): boolean {
  return /[*?\\]/.test(value);
}
