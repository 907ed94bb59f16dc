import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import { SqliteAdapter, SqliteDialect, type SqliteStatement } from 'kysely';
import { keepLatest } from '../types/keep-latest.ts';

const NOTHING = {
  reader: false,
  all: () => [],
  run: () => ({ changes: 0, lastInsertRowid: 0 }),
  iterate: () => [][Symbol.iterator](),
};

/** So many statements are kept; one with a list of a thousand ids in it is not likely to come again. */
const MOST_KEPT = 200;
const LONGEST_KEPT = 4096;

/**
 * Killed in the midst of a schema's upgrade, or with a full disk: all of it is done, or nothing. Kysely does it so for other
 * databases; SQLite can do it, too.
 */
class WholeUpgrades extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true;
  }
}

class NodeSqliteDialect extends SqliteDialect {
  override createAdapter(): SqliteAdapter {
    return new WholeUpgrades();
  }
}

/** Kysely's SQLite dialect over the SQLite that is built into Node. */
export function nodeSqliteDialect(path: string): SqliteDialect {
  const database = new DatabaseSync(path);
  const prepared = new PreparedStatements(database);
  database.exec('PRAGMA journal_mode = WAL');
  // Each commit is synced before it is answered: what the API said has happened survives a power loss.
  database.exec('PRAGMA synchronous = FULL');
  database.exec('PRAGMA foreign_keys = ON');
  return new NodeSqliteDialect({
    database: {
      close: () => database.close(),
      prepare(sql) {
        // A full disk ends a transaction by itself: what is to be told is that, and not that there is nothing to undo.
        if (sql === 'rollback' && !database.isTransaction) return NOTHING;
        return prepared.get(sql);
      },
    },
  });
}

/** Statements that are ready to run, by their SQL: parsing one took longer than running it. */
class PreparedStatements {
  readonly #database: DatabaseSync;
  readonly #kept = new Map<string, SqliteStatement>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  get(sql: string): SqliteStatement {
    let statement = this.#kept.get(sql);
    if (statement === undefined) {
      statement = this.#prepare(sql);
      if (sql.length > LONGEST_KEPT) return statement;
    }
    keepLatest(this.#kept, MOST_KEPT, sql, statement);
    return statement;
  }

  #prepare(sql: string): SqliteStatement {
    const statement = this.#database.prepare(sql);
    // The objects that Node makes itself are slow to read and to copy: copying them took 8 ms of a page of 1,000.
    statement.setReturnArrays(true);
    const values = (parameters: readonly unknown[]): SQLInputValue[] => parameters as SQLInputValue[];
    return {
      reader: statement.columns().length > 0,
      all(parameters) {
        const rows = statement.all(...values(parameters)) as unknown as unknown[][];
        // Asked after the rows: by then SQLite has seen whether a table has changed.
        const names = rows.length === 0 ? [] : statement.columns().map((column) => column.name);
        return rows.map((row) => named(names, row));
      },
      run: (parameters) => statement.run(...values(parameters)),
      // One that is gone through in part must not be begun again by another.
      iterate: (parameters) => this.#database.prepare(sql).iterate(...values(parameters)),
    };
  }
}

function named(names: readonly string[], values: readonly unknown[]): Record<string, unknown> {
  return Object.fromEntries(names.map((name, index) => [name, values[index]]));
}
