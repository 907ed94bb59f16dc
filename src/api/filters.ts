import type { Filter } from '@aws-sdk/client-ec2';
import { errors } from './errors.ts';

const MAX_VALUES = 200;

/** A resource's values under a filter's name. Several values: one match is enough. */
export type FilterTable<Row> = Record<
  string,
  (row: Row) => string | number | boolean | undefined | (string | undefined)[]
>;

/**
 * Compiles a request's filters: values of one are or-ed, filters are and-ed, `*` and `?` are wildcards, `\` escapes.
 * `tag:KEY` and `tag-key` work on every resource that has tags.
 * @throws ApiError InvalidParameterValue for a filter that the table does not have
 */
export function compileFilters<Row>(
  filters: readonly Filter[] | undefined,
  table: FilterTable<Row>,
  tagsOf: (row: Row) => ReadonlyMap<string, string>,
): (row: Row) => boolean {
  const tests = (filters ?? []).map((filter) => {
    const name = filter.Name;
    if (name === undefined) throw errors.missing('Filter.Name');
    const patterns = filter.Values ?? [];
    if (patterns.length > MAX_VALUES) {
      throw errors.invalidValue('Filter.Value', patterns.length, `A filter has at most ${MAX_VALUES} values.`);
    }
    const matchers = patterns.map(matcherOf);
    const valuesOf = valuesUnder(name, table, tagsOf);
    return (row: Row): boolean => valuesOf(row).some((value) => matchers.some((matches) => matches(value)));
  });
  return (row) => tests.every((test) => test(row));
}

function valuesUnder<Row>(
  name: string,
  table: FilterTable<Row>,
  tagsOf: (row: Row) => ReadonlyMap<string, string>,
): (row: Row) => string[] {
  if (name === 'tag-key') return (row) => [...tagsOf(row).keys()];
  if (name.startsWith('tag:')) {
    const key = name.slice('tag:'.length);
    return (row) => {
      const value = tagsOf(row).get(key);
      return value === undefined ? [] : [value];
    };
  }
  if (!Object.hasOwn(table, name)) throw errors.invalidFilter(name);
  const read = table[name];
  return (row) => {
    const value = read(row);
    const values = Array.isArray(value) ? value : [value];
    return values.filter((each) => each !== undefined).map(String);
  };
}

/** One step of a pattern: a character, `?` as undefined, `*` as null. */
export type Step = string | undefined | null;

function matcherOf(pattern: string): (value: string) => boolean {
  if (!hasWildcard(pattern)) return (value) => value === pattern;
  const steps = stepsOf(pattern);
  return (value) => matchesSteps(steps, [...value]);
}

/** Whether a filter's value is more than the text that it stands for. */
export function hasWildcard(value: string): boolean {
  return /[*?\\]/.test(value);
}

/** A pattern step by step; `\` has made a step of the character after it. */
export function stepsOf(pattern: string): Step[] {
  const steps: Step[] = [];
  let escaped = false;
  for (const character of pattern) {
    if (escaped) steps.push(character);
    else if (character === '*') steps.push(null);
    else if (character === '?') steps.push(undefined);
    else if (character !== '\\') steps.push(character);
    escaped = !escaped && character === '\\';
  }
  if (escaped) steps.push('\\');
  return steps;
}

/** Goes back to the last star only, so that no pattern, however hostile, takes more than length times length. */
function matchesSteps(steps: readonly Step[], characters: readonly string[]): boolean {
  let step = 0;
  let star = -1;
  let starAt = 0;
  for (let at = 0; at < characters.length; ) {
    if (steps[step] === null) {
      star = step++;
      starAt = at;
    } else if (step < steps.length && (steps[step] === undefined || steps[step] === characters[at])) {
      step += 1;
      at += 1;
    } else if (star !== -1) {
      step = star + 1;
      at = ++starAt;
    } else {
      return false;
    }
  }
  while (steps[step] === null) step += 1;
  return step === steps.length;
}
