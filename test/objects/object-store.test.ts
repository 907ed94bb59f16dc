import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer, Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createNetServer, type Server as NetServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { folderOf } from '../../src/objects/folder-store.ts';
import {
  ObjectNotFoundError,
  type ObjectStore,
  ObjectStoreRefusedError,
  ObjectTooShortError,
} from '../../src/objects/object-store.ts';
import { openObjectStore } from '../../src/objects/open-store.ts';
import { untilAborted } from '../../src/objects/until-aborted.ts';
import { giveBack } from '../../src/types/memory.ts';
import { MIB } from '../../src/types/units.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { startS3Server } from '../support/s3-server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const IMPLEMENTATIONS: Record<string, (t: TestContext) => Promise<ObjectStore>> = {
  directory: (t) => openObjectStore(pathToFileURL(temporaryDirectory(t)).href),
  'directory, waiting for it': (t) => openObjectStore(pathToFileURL(temporaryDirectory(t)).href, { waits: true }),
  s3: async (t) => {
    const s3 = await startS3Server(t);
    Object.assign(process.env, s3.environment);
    return openObjectStore(s3.url);
  },
};

/** Begins a server of the test's own, to be spoken to as S3. */
async function urlOf(t: TestContext, server: NetServer, place = 'bucket', timeoutSeconds = 5): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  if (server instanceof HttpServer) t.after(() => server.closeAllConnections());
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: 'any', AWS_SECRET_ACCESS_KEY: 'any' });
  const { port } = server.address() as AddressInfo;
  return `s3://${place}?endpoint=http://127.0.0.1:${port}&path-style=true&timeout=${timeoutSeconds}`;
}

for (const [name, open] of Object.entries(IMPLEMENTATIONS)) {
  test(`${name}: what was put is what is got, whole and in part`, async (t) => {
    const store = await open(t);
    const pieces = [randomBytes(10), randomBytes(3_000_000), randomBytes(1)];
    const whole = Buffer.concat(pieces);
    await store.put('packs/ab/abc', pieces);
    assert.ok((await store.get('packs/ab/abc')).equals(whole));
    assert.ok((await store.getRange('packs/ab/abc', 5, 100_000)).equals(whole.subarray(5, 100_005)));
    assert.ok((await store.getRange('packs/ab/abc', whole.length - 1, 1)).equals(whole.subarray(-1)));
  });

  test(`${name}: a folder is a store of its own, and goes with all that is in it, and nothing else`, async (t) => {
    const store = await open(t);
    const folder = folderOf(store, 'one');
    await folder.put('packs/ab/abc', [Buffer.from('in it')]);
    await folder.put('packs/ab/gone', [Buffer.from('for a moment')]);
    for (const key of ['one-more', 'other/packs/ab/abc']) await store.put(key, [Buffer.from(key)]);
    assert.equal((await folder.get('packs/ab/abc')).toString(), 'in it');
    assert.equal((await folder.getRange('packs/ab/abc', 3, 2)).toString(), 'it');
    assert.equal((await store.get('one/packs/ab/abc')).toString(), 'in it');
    await assert.rejects(folder.get('one-more'), ObjectNotFoundError);
    await folder.remove(['packs/ab/gone']);
    const listed: string[] = [];
    for await (const { key } of folder.list('')) listed.push(key);
    assert.deepEqual(listed, ['packs/ab/abc']);
    await store.removeFolder('one');
    await store.removeFolder('one');
    const left: string[] = [];
    for await (const { key } of store.list('')) left.push(key);
    assert.deepEqual(left.sort(), ['one-more', 'other/packs/ab/abc']);
    await folder.put('packs/ab/abc', [Buffer.from('again')]);
    await folderOf(store, 'other').removeFolder('packs');
    assert.equal((await folder.get('packs/ab/abc')).toString(), 'again');
    await assert.rejects(store.get('other/packs/ab/abc'), ObjectNotFoundError);
  });

  test(`${name}: a put replaces the whole object`, async (t) => {
    const store = await open(t);
    await store.put('a/b', [Buffer.from('a long first version')]);
    await store.put('a/b', [Buffer.from('second')]);
    assert.equal((await store.get('a/b')).toString(), 'second');
  });

  test(`${name}: an object that is not there is ObjectNotFoundError, whole or in part`, async (t) => {
    const store = await open(t);
    await assert.rejects(store.get('no/such'), ObjectNotFoundError);
    await assert.rejects(store.getRange('no/such', 0, 10), ObjectNotFoundError);
  });

  test(`${name}: a range past the end is an error, never a short answer`, async (t) => {
    const store = await open(t);
    await store.put('short', [Buffer.from('0123456789')]);
    await assert.rejects(store.getRange('short', 5, 10), ObjectTooShortError);
    await assert.rejects(store.getRange('short', 20, 10), ObjectTooShortError);
  });

  test(`${name}: list gives every key below a prefix, with its size`, async (t) => {
    const store = await open(t);
    for (const key of ['x/1', 'x/2', 'x/deep/3', 'y/1']) await store.put(key, [Buffer.from(key)]);
    const found = [];
    for await (const object of store.list('x/')) found.push(`${object.key} ${object.bytes}`);
    assert.deepEqual(found.sort(), ['x/1 3', 'x/2 3', 'x/deep/3 8']);
  });

  test(`${name}: removing is for good, and may be done again`, async (t) => {
    const store = await open(t);
    await store.put('gone', [Buffer.from('x')]);
    await store.remove(['gone']);
    await store.remove(['gone']);
    await assert.rejects(store.get('gone'), ObjectNotFoundError);
  });

  test(`${name}: many are removed, also where some are not there, and no others`, async (t) => {
    const store = await open(t);
    const keys = Array.from({ length: 300 }, (_, number) => `packs/${number % 7}/an & <odd> "näme" ${number}`);
    for (let at = 0; at < 300; at += 30) {
      await Promise.all(keys.slice(at, at + 30).map((key) => store.put(key, [Buffer.from(key)])));
    }
    await store.remove([]);
    await store.remove([...keys.slice(0, 290), 'packs/never/was', 'packs/nor/this']);
    const left = [];
    for await (const { key } of store.list('packs/')) left.push(key);
    assert.deepEqual(left.sort(), keys.slice(290).sort());
  });
}

for (const waits of [false, true]) {
  test(`directory: a put that fails leaves nothing behind, also where the thread waits for it: ${waits}`, async (t) => {
    const directory = temporaryDirectory(t);
    const store = await openObjectStore(pathToFileURL(directory).href, { waits });
    await assert.rejects(store.put('k', [Buffer.from('x'), 7 as never]));
    assert.deepEqual(readdirSync(directory), []);
    mkdirSync(`${directory}/taken`);
    await assert.rejects(store.put('taken', [Buffer.from('x')]), { code: 'EISDIR' });
    assert.deepEqual(readdirSync(directory), ['taken']);
  });
}

test('directory: what a killed put has left is in no list, and goes when it is old', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openObjectStore(pathToFileURL(directory).href);
  await store.put('packs/ab/whole', [Buffer.from('whole')]);
  const [old, young] = ['old.0123456789ab.partial', 'young.ba9876543210.partial'];
  for (const name of [old, young]) writeFileSync(`${directory}/packs/ab/${name}`, 'half');
  const twoHoursAgo = Date.now() / 1000 - 2 * 60 * 60;
  for (const name of [old, 'whole']) utimesSync(`${directory}/packs/ab/${name}`, twoHoursAgo, twoHoursAgo);
  const keys = [];
  for await (const { key } of store.list('packs/')) keys.push(key);
  assert.deepEqual(keys, ['packs/ab/whole']);
  await store.removeUnfinished();
  // One that is young may be under way, in another process.
  assert.deepEqual(readdirSync(`${directory}/packs/ab`).sort(), ['whole', young]);
});

test('who is told to stop waits a moment for a request, and no longer', async () => {
  const store = new MemoryStore();
  const slow = Promise.withResolvers<void>();
  store.beforeRequest = (_, key) => (key === 'hangs' ? new Promise(() => undefined) : slow.promise);
  const stop = new AbortController();
  const given = untilAborted(store, stop.signal);
  const [hangs, ends] = [given.put('hangs', []), given.put('slow', [Buffer.from('x')])];
  const reason = new Error('no longer wanted');
  stop.abort(reason);
  slow.resolve();
  await ends;
  assert.equal((await store.get('slow')).toString(), 'x');
  await assert.rejects(hangs, reason);
  await assert.rejects(given.get('slow'), reason);
});

test('s3: what an answer came in is given back, whatever the size: a reader has in memory what it asked for', async (t) => {
  const s3 = await startS3Server(t);
  Object.assign(process.env, s3.environment);
  const store = await openObjectStore(s3.url);
  const object = randomBytes(8 * MIB);
  await store.put('objects/large', [object]);
  for (const length of [2 * MIB, 2 * MIB - 1, MIB / 2]) {
    let before = 0;
    for (let turn = 0; turn < 60; turn += 1) {
      const offset = (turn * MIB) % (object.length - length);
      const found = await store.getRange('objects/large', offset, length);
      assert.ok(found.equals(object.subarray(offset, offset + length)));
      giveBack(found);
      await new Promise(setImmediate);
      // The first ones may have made what stays.
      if (turn === 2) before = process.memoryUsage().arrayBuffers;
      const more = process.memoryUsage().arrayBuffers - before;
      assert.ok(turn <= 2 || more < 4 * MIB, `${more} bytes more after ${turn} ranges of ${length}`);
    }
  }
});

test('s3: a request that gets no answer is made as often as was said', async (t) => {
  let asked = 0;
  const silent = createServer(() => {
    asked += 1;
  });
  const url = await urlOf(t, silent, 'bucket', 0.1);
  await assert.rejects((await openObjectStore(url, { attempts: 1 })).get('key'), /time|connection/i);
  assert.equal(asked, 1);
  await assert.rejects((await openObjectStore(url, { attempts: 2 })).get('key'));
  assert.equal(asked, 3);
});

/** A store that reads a request's head, answers with `answer`, and reads the body so much later. @returns what came */
async function hastyStore(
  t: TestContext,
  answer: string,
  pauseMilliseconds = 200,
): Promise<{ url: string; came: Promise<[string, Buffer]> }> {
  const came = Promise.withResolvers<[string, Buffer]>();
  const server = createNetServer((socket) => {
    const parts: Buffer[] = [];
    socket.once('data', async (first: Buffer) => {
      socket.pause().write(answer);
      await setTimeout(pauseMilliseconds, undefined, { ref: false });
      parts.push(first);
      socket.on('data', (part: Buffer) => parts.push(part)).resume();
    });
    socket.on('error', () => undefined);
    socket.on('end', () => socket.end());
    socket.on('close', () => {
      const all = Buffer.concat(parts);
      const end = all.indexOf('\r\n\r\n');
      came.resolve([all.toString('latin1', 0, end).toLowerCase(), all.subarray(end + 4)]);
    });
  });
  return { url: await urlOf(t, server), came: came.promise };
}

const OK = 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n';

test('s3: what a store that answers before it has all gets later is still what was put, and signed', async (t) => {
  const { url, came } = await hastyStore(t, OK);
  const pieces = [randomBytes(9), randomBytes(24 * MIB)];
  const sha256 = createHash('sha256').update(pieces[0]).update(pieces[1]).digest('hex');
  await (await openObjectStore(url, { attempts: 1 })).put('key', pieces);
  // As a capture does, which uses the room of a pack again.
  for (const piece of pieces) piece.fill(0);
  const [head, body] = await came;
  assert.equal(createHash('sha256').update(body).digest('hex'), sha256);
  assert.match(head, new RegExp(`x-amz-content-sha256: ${sha256}`));
});

test('s3: of an object that was refused before all of it was sent nothing more is sent', async (t) => {
  const { url, came } = await hastyStore(t, 'HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n');
  const piece = randomBytes(24 * MIB);
  const wanted = Buffer.from(piece);
  await assert.rejects((await openObjectStore(url, { attempts: 1 })).put('key', [piece]));
  // As a capture does that is given up, and whose room is the next one's.
  piece.fill(0);
  const [, body] = await came;
  assert.ok(body.length < wanted.length);
  assert.ok(body.equals(wanted.subarray(0, body.length)));
});

test('s3: who answers, and never takes the rest, is not waited for without end', async (t) => {
  const { url } = await hastyStore(t, OK, 60_000);
  const store = await openObjectStore(url.replace('timeout=5', 'timeout=0.1'), { attempts: 1 });
  await assert.rejects(store.put('key', [randomBytes(24 * MIB)]), /hung up/);
});

/** A store that takes objects, or does what it is told to with one of which it was asked first (`asked`), or was not. */
async function rudeStore(t: TestContext) {
  const does = { asked: 'take', unasked: 'take' } as Record<
    'asked' | 'unasked',
    'take' | 'swallow' | 'refuse' | 'hang up'
  >;
  const seen: ('asked' | 'unasked')[] = [];
  const sockets = new Set<unknown>();
  const handle = (how: 'asked' | 'unasked') => (request: IncomingMessage, response: ServerResponse) => {
    seen.push(how);
    sockets.add(request.socket);
    switch (does[how]) {
      case 'hang up':
        request.socket.destroy();
        break;
      case 'refuse':
        response.writeHead(403).end('<Error><Code>AccessDenied</Code><Message>not yours</Message></Error>');
        break;
      case 'swallow':
        response.end();
        break;
      case 'take':
        if (how === 'asked') response.writeContinue();
        request.resume().on('end', () => response.end());
    }
  };
  const server = createServer(handle('unasked')).on('checkContinue', handle('asked'));
  return { does, seen, sockets, store: await openObjectStore(await urlOf(t, server), { attempts: 1 }) };
}

test('s3: large objects are sent unasked, one after the other on the same connection', async (t) => {
  const { seen, sockets, store } = await rudeStore(t);
  for (let turn = 0; turn < 4; turn += 1) await store.put(`key${turn}`, [randomBytes(5 * MIB)]);
  assert.deepEqual(seen, ['unasked', 'unasked', 'unasked', 'unasked']);
  assert.equal(sockets.size, 1);
});

test('s3: a store that hung up on a large object is asked before the next: its reason can be read then', async (t) => {
  const { does, seen, store } = await rudeStore(t);
  does.unasked = 'hang up';
  does.asked = 'refuse';
  const put = () => store.put('key', [randomBytes(24 * MIB)]);
  await assert.rejects(put(), (error) => !(error instanceof ObjectStoreRefusedError));
  await assert.rejects(put(), (error) => error instanceof ObjectStoreRefusedError && /not yours/.test(error.message));
  Object.assign(does, { asked: 'take', unasked: 'take' });
  await put();
  await put();
  assert.deepEqual(seen, ['unasked', 'asked', 'asked', 'unasked']);
});

test('s3: an answer that came instead of the question for the object is none', async (t) => {
  const { does, store } = await rudeStore(t);
  does.unasked = 'hang up';
  await assert.rejects(store.put('key', [randomBytes(3 * MIB)]));
  does.asked = 'swallow';
  await assert.rejects(store.put('key', [randomBytes(3 * MIB)]), /without having asked/);
});

test('s3: a list of many objects comes in pages, all of them', async (t) => {
  const all = Array.from({ length: 25 }, (_, number) => `packs/${String(number).padStart(2, '0')}`);
  const server = createServer((request, response) => {
    const asked = new URL(request.url ?? '', 'http://store').searchParams;
    const from = Number(asked.get('continuation-token') ?? 0);
    const some = all.filter((key) => `here/${key}`.startsWith(asked.get('prefix') ?? '')).slice(from, from + 10);
    const contents = some
      .map((key) => `<Contents><Key>here/${key}</Key><Size>${key.length}</Size></Contents>`)
      .join('');
    const more = from + 10 < all.length;
    const token = more ? `<NextContinuationToken>${from + 10}</NextContinuationToken>` : '';
    response.end(`<ListBucketResult><IsTruncated>${more}</IsTruncated>${token}${contents}</ListBucketResult>`);
  });
  const store = await openObjectStore(await urlOf(t, server, 'bucket/here'));
  const found = await Array.fromAsync(store.list('packs/'));
  assert.deepEqual(
    found,
    all.map((key) => ({ key, bytes: 8 })),
  );
});

/** A store that removes objects, but for what `is` says: to be removed together, or one of them. */
async function removingStore(t: TestContext) {
  const is = { together: 200, refused: new Map<string, number>() };
  const seen = { together: 0, single: [] as string[], most: 0 };
  let underWay = 0;
  const server = createServer(async (request, response) => {
    underWay += 1;
    seen.most = Math.max(seen.most, underWay);
    const body = Buffer.concat(await request.toArray());
    await setTimeout(5);
    underWay -= 1;
    const refusal = (status: number): unknown =>
      response.writeHead(status).end('<Error><Code>Refused</Code><Message>not so</Message></Error>');
    if (request.method === 'POST') {
      seen.together += 1;
      assert.equal(request.headers['content-md5'], createHash('md5').update(body).digest('base64'));
      if (is.together !== 200) return refusal(is.together);
      const keys = [...body.toString().matchAll(/<Key>bucket-prefix\/(.*?)<\/Key>/g)].map(([, key]) => key);
      const errors = keys.filter((key) => is.refused.has(key));
      const said = errors.map((key) => `<Error><Key>bucket-prefix/${key}</Key><Code>SlowDown</Code></Error>`);
      return response.end(`<DeleteResult>${said.join('')}</DeleteResult>`);
    }
    const key = decodeURIComponent(request.url ?? '').replace(/^.*bucket-prefix\/([^?]*).*$/, '$1');
    seen.single.push(key);
    return is.refused.has(key) ? refusal(is.refused.get(key) ?? 0) : response.writeHead(204).end();
  });
  const url = await urlOf(t, server, 'bucket/bucket-prefix');
  const keys = Array.from({ length: 1_900 }, (_, number) => `packs/${number}`);
  return { is, seen, keys, store: await openObjectStore(url, { attempts: 1 }) };
}

test('s3: objects are removed some hundred with a request; those that were not are tried once more, one by one', async (t) => {
  const { is, seen, keys, store } = await removingStore(t);
  await store.remove(keys);
  assert.deepEqual([seen.together, seen.single], [8, []]);
  assert.ok(seen.most > 1 && seen.most <= 4, `${seen.most} at once`);
  await store.remove(keys.slice(0, 1));
  assert.deepEqual([seen.together, seen.single], [8, ['packs/0']]);
  seen.single = [];
  is.refused.set('packs/5', 403).set('packs/700', 503);
  await assert.rejects(store.remove(keys.slice(0, 20)), (error) => {
    return error instanceof ObjectStoreRefusedError && /'packs\/5': Refused: not so/.test(error.message);
  });
  assert.deepEqual(seen.single, ['packs/5']);
  await assert.rejects(store.remove(keys.slice(690, 710)), (error) => !(error instanceof ObjectStoreRefusedError));
});

test('s3: a store that cannot remove several at once is asked for that once', async (t) => {
  for (const status of [501, 405, 400]) {
    const { is, seen, keys, store } = await removingStore(t);
    is.together = status;
    const some = keys.slice(0, 40);
    await store.remove(some);
    await store.remove(some);
    assert.equal(seen.together, 1);
    assert.deepEqual(new Set(seen.single), new Set(some));
    assert.equal(seen.single.length, 80);
  }
});

test('s3: where removing fails, no more is begun', async (t) => {
  const { is, seen, keys, store } = await removingStore(t);
  is.together = 503;
  await assert.rejects(store.remove(keys));
  assert.ok(seen.together <= 4, `${seen.together} requests`);
  is.together = 403;
  for (const key of keys) is.refused.set(key, 403);
  await assert.rejects(store.remove(keys), ObjectStoreRefusedError);
  assert.ok(seen.single.length <= 64, `${seen.single.length} requests`);
});

test('directory: a key cannot reach outside', async (t) => {
  const store = await openObjectStore(pathToFileURL(temporaryDirectory(t)).href);
  await assert.rejects(store.put('../outside', [Buffer.from('x')]), /is not a key below/);
  await assert.rejects(store.get('a/../../outside'), /is not a key below/);
});

test('a URL that names no store says what one looks like', async () => {
  await assert.rejects(openObjectStore('ftp://x'), /give file:\/\/\/PATH or s3:\/\/BUCKET/);
  await assert.rejects(openObjectStore('s3://b/p?pathstyle=true'), /unknown setting 'pathstyle'/);
});

test('directory: a folder that another process removes is made again by who had made it', async (t) => {
  const url = pathToFileURL(temporaryDirectory(t)).href;
  const [one, other] = [await openObjectStore(url), await openObjectStore(url)];
  await one.put('folder/packs/a', [Buffer.from('first')]);
  await other.removeFolder('folder');
  await one.put('folder/packs/a', [Buffer.from('second')]);
  assert.equal((await other.get('folder/packs/a')).toString(), 'second');
});

test('directory: what cannot be looked into is not taken for empty', async (t) => {
  const file = `${temporaryDirectory(t)}/file`;
  writeFileSync(file, '');
  const all = async (store: ObjectStore): Promise<string[]> => {
    const keys: string[] = [];
    for await (const { key } of store.list('')) keys.push(key);
    return keys;
  };
  await assert.rejects(all(await openObjectStore(pathToFileURL(file).href)), { code: 'ENOTDIR' });
  assert.deepEqual(await all(await openObjectStore(pathToFileURL(`${file}-that-is-not-there`).href)), []);
});
