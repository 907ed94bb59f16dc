import { errors } from './errors.ts';
import type { Call } from './operation.ts';

export type PageRequest = { MaxResults?: number | undefined; NextToken?: string | undefined };
export type PageLimits = { least: number; most: number };

/**
 * SQLite answers on the server's own thread: between so many rows the others have a turn. Otherwise a filter that nothing
 * matches would hold everyone up for as long as all rows take, and the writes of a cut that is just being made, too.
 */
const CHUNK_ROWS = 200;
/** Where the database itself leaves rows out, it goes through so many at once: 1 to 10 ms. */
export const STRETCH_ROWS = 5_000;
const TOKEN_PREFIX = 'after:';

/** Rows of which a page is made. */
export type Rows<Row> = {
  /** Those with an id greater than `after`, and none greater than `until`; at most `most`, ascending. */
  fetch: (after: string, most: number, until: string | undefined) => Promise<Row[]>;
  idOf: (row: Row) => string;
  /**
   * Up to which id a fetch that leaves out most rows is to go; undefined: to the last, which is not farther than STRETCH_ROWS.
   * Not there where fetches find what they want, or leave nothing out.
   */
  stretchEnd?: ((after: string) => Promise<string | undefined>) | undefined;
};

/**
 * Fills a page from rows in the order of their ids. The token names the last id given, so a page is right whatever came
 * and went since the one before: no row twice, and none left out that was there all the time.
 * @param prepare what the rows need before they can be matched (their tags, say)
 */
export async function fillPage<Row, Item>(
  call: Pick<Call, 'yield'>,
  request: PageRequest,
  limits: PageLimits,
  { fetch, idOf, stretchEnd }: Rows<Row>,
  prepare: (rows: Row[]) => Promise<Item[]>,
  matches: (item: Item) => boolean,
): Promise<{ items: Item[]; nextToken: string | undefined }> {
  const wanted = pageSize(request.MaxResults, limits);
  let cursor = request.NextToken === undefined ? '' : readToken(request.NextToken);
  const found: { item: Item; id: string }[] = [];
  // Where everything matches, one look is enough; where little does, later ones go further.
  for (let chunk = wanted + 1; ; chunk = CHUNK_ROWS) {
    const until = await stretchEnd?.(cursor);
    const rows = await fetch(cursor, chunk, until);
    for (const [index, item] of (await prepare(rows)).entries()) {
      if (matches(item)) found.push({ item, id: idOf(rows[index]) });
      // One more than the page holds says that there is a next page.
      if (found.length > wanted) break;
    }
    if (found.length > wanted) {
      const page = found.slice(0, wanted);
      return { items: page.map(({ item }) => item), nextToken: writeToken(page[wanted - 1].id) };
    }
    const last = rows.at(-1);
    const next = last !== undefined && rows.length === chunk ? idOf(last) : until;
    if (next === undefined) return { items: found.map(({ item }) => item), nextToken: undefined };
    cursor = next;
    await call.yield();
  }
}

function pageSize(asked: number | undefined, limits: PageLimits): number {
  if (asked === undefined) return limits.most;
  if (asked < limits.least) {
    throw errors.invalidValue('maxResults', asked, `Expecting a value greater than ${limits.least}.`);
  }
  return Math.min(asked, limits.most);
}

function writeToken(after: string): string {
  return Buffer.from(`${TOKEN_PREFIX}${after}`).toString('base64url');
}

function readToken(token: string): string {
  const text = Buffer.from(token, 'base64url').toString('utf8');
  if (!text.startsWith(TOKEN_PREFIX)) throw errors.invalidToken(token);
  return text.slice(TOKEN_PREFIX.length);
}
