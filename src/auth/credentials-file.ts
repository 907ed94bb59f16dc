import { readFileSync } from 'node:fs';

/** Reads profile `default` of an AWS credentials file. @throws when it has no key */
export function readCredentials(file: string): { accessKeyId: string; secretAccessKey: string } {
  const text = readFileSync(file, 'utf8');
  const field = (name: string): string | undefined => new RegExp(`^${name}\\s*=\\s*(.+)$`, 'm').exec(text)?.[1]?.trim();
  const accessKeyId = field('aws_access_key_id');
  const secretAccessKey = field('aws_secret_access_key');
  if (accessKeyId === undefined || secretAccessKey === undefined) throw new Error(`${file} holds no access key`);
  return { accessKeyId, secretAccessKey };
}
