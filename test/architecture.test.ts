import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const SRC = new URL('../src/', import.meta.url).pathname;

/** Which folder may import from which: imports run one way. ARCHITECTURE.md draws the same. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  types: [],
  wire: ['types'],
  objects: ['types'],
  encryption: ['types'],
  volumes: ['types', 'encryption'],
  catalog: ['types'],
  auth: ['types', 'encryption', 'catalog'],
  keys: ['types', 'encryption', 'objects', 'volumes', 'catalog'],
  nbd: ['types', 'volumes'],
  snapshots: ['types', 'encryption', 'objects', 'volumes'],
  dataplane: ['types', 'encryption', 'objects', 'volumes', 'snapshots', 'nbd'],
  lifecycle: ['types', 'objects', 'catalog', 'keys', 'snapshots', 'dataplane'],
  api: ['types', 'auth', 'objects', 'catalog', 'keys', 'snapshots', 'dataplane', 'lifecycle', 'wire'],
  admin: ['types', 'catalog', 'auth', 'keys', 'snapshots', 'api', 'wire'],
  server: [
    'types',
    'objects',
    'volumes',
    'snapshots',
    'catalog',
    'auth',
    'keys',
    'nbd',
    'dataplane',
    'lifecycle',
    'api',
    'admin',
    'wire',
  ],
  demo: ['types', 'catalog', 'auth', 'nbd', 'admin', 'server'],
  cli: [
    'types',
    'encryption',
    'keys',
    'objects',
    'volumes',
    'snapshots',
    'auth',
    'lifecycle',
    'admin',
    'server',
    'demo',
  ],
};

function sourceFiles(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? sourceFiles(path.join(directory, entry.name)) : [path.join(directory, entry.name)],
  );
}

function importsOf(file: string): string[] {
  const text = readFileSync(file, 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map((match) =>
    path.resolve(path.dirname(file), match[1]),
  );
}

function folderOf(file: string): string {
  return path.relative(SRC, file).split(path.sep)[0];
}

const files = sourceFiles(SRC);

test('imports run one way between the folders', () => {
  for (const file of files) {
    const folder = folderOf(file);
    for (const imported of importsOf(file)) {
      const other = folderOf(imported);
      assert.ok(
        other === folder || MAY_IMPORT[folder]?.includes(other),
        `${path.relative(SRC, file)} imports ${path.relative(SRC, imported)}: ${folder} must not know ${other}`,
      );
    }
  }
});

test('the folders themselves form no cycle', () => {
  const visiting = new Set<string>();
  const visit = (folder: string): void => {
    assert.ok(!visiting.has(folder), `${[...visiting, folder].join(' → ')} is a cycle`);
    visiting.add(folder);
    for (const other of MAY_IMPORT[folder]) visit(other);
    visiting.delete(folder);
  };
  for (const folder of Object.keys(MAY_IMPORT)) visit(folder);
});

test('the data path knows nothing of the API', () => {
  for (const folder of ['nbd', 'volumes', 'snapshots', 'objects', 'dataplane']) {
    for (const above of ['api', 'wire', 'server', 'cli', 'admin', 'lifecycle', 'catalog']) {
      assert.ok(!MAY_IMPORT[folder].includes(above));
    }
  }
});

test('no file is so long that nobody can see the inside of it', () => {
  for (const file of files) {
    const lines = readFileSync(file, 'utf8').split('\n').length;
    assert.ok(lines <= 450, `${path.relative(SRC, file)} has ${lines} lines`);
  }
});
