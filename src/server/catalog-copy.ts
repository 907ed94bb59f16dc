/**
 * A thread that makes a compressed copy of the catalog. SQLite's `VACUUM` is done in one go: with 100,000 snapshots the
 * server's own thread stood still for more than a second, and the writes of a cut wait for that thread.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { backup, DatabaseSync } from 'node:sqlite';
import { pipeline } from 'node:stream/promises';
import { workerData } from 'node:worker_threads';
import { createZstdCompress } from 'node:zlib';

/** Paths: `plain` is made beside, and `compressed` is what is to be had. */
export type CopyOrder = { catalog: string; plain: string; compressed: string };

/** What must not leave the machine, and is made anew; and that a server by a copy collects nothing in its first day. */
const OWN_SECRETS = ['ebs-tokens', 'collected-at'];

const { catalog, plain, compressed } = workerData as CopyOrder;
const source = new DatabaseSync(catalog, { readOnly: true });
try {
  // SQLite's own backup: pages are copied while the server goes on, and what changes meanwhile is copied again.
  await backup(source, plain);
} finally {
  source.close();
}
const cleaned = new DatabaseSync(plain);
for (const name of OWN_SECRETS) cleaned.prepare('delete from secrets where name = ?').run(name);
cleaned.exec('PRAGMA journal_mode = DELETE');
// What was deleted is gone from the copy, too.
cleaned.exec('VACUUM');
cleaned.close();
await pipeline(createReadStream(plain), createZstdCompress(), createWriteStream(compressed, { mode: 0o600 }));
