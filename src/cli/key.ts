import type { KeyReport } from '../keys/key-service.ts';
import { connectToServer, type DataDirFlag } from './connection.ts';
import { print } from './output.ts';

type Flags = DataDirFlag & { json?: boolean };

export async function createKey(flags: Flags & { description?: string; alias?: string }): Promise<void> {
  const { description, alias } = flags;
  show(flags, [await connectToServer(flags).ask<KeyReport>('create-key', { description, alias })]);
}

export async function listKeys(flags: Flags): Promise<void> {
  show(flags, (await connectToServer(flags).ask<{ keys: KeyReport[] }>('list-keys')).keys);
}

export async function aliasKey(key: string, alias: string, flags: Flags): Promise<void> {
  show(flags, [await connectToServer(flags).ask<KeyReport>('alias-key', { key, alias })]);
}

export async function rotateKey(key: string, flags: Flags): Promise<void> {
  show(flags, [await connectToServer(flags).ask<KeyReport>('rotate-key', { key })]);
}

export async function enableKey(key: string, enabled: boolean, flags: Flags): Promise<void> {
  show(flags, [await connectToServer(flags).ask<KeyReport>('enable-key', { key, enabled })]);
}

function show(flags: Flags, keys: KeyReport[]): void {
  const rows = keys.map((key) => [
    key.arn,
    key.aliases.join('\n'),
    key.enabled ? 'enabled' : 'disabled',
    key.versions ?? '',
    key.description,
  ]);
  print(flags.json, keys, ['key', 'aliases', 'state', 'versions', 'description'], rows);
}
