import { SignatureV4 } from '@smithy/signature-v4';
import { Sha256 } from '../../src/wire/signature.ts';
import { readCredentials, type TestServer } from './server.ts';

export type Asked = { action?: string; version?: string; [parameter: string]: string | undefined };

export type How = {
  method?: string;
  credentials?: { accessKeyId: string; secretAccessKey: string };
  at?: Date;
  region?: string;
  tamper?: boolean;
};

/** Sends a raw Query request, so that things go out that no SDK would send. */
export async function askQuery(
  server: TestServer,
  parameters: Asked,
  how: How = {},
): Promise<{ status: number; code: string; message: string; body: string }> {
  const { action = 'CreateSnapshots', version = '2016-11-15', ...others } = parameters;
  const form = new URLSearchParams({ Action: action, Version: version });
  for (const [name, value] of Object.entries(others)) if (value !== undefined) form.append(name, value);
  const url = new URL(server.apiUrl);
  const method = how.method ?? 'POST';
  const signer = new SignatureV4({
    credentials: how.credentials ?? readCredentials(server.dataDir),
    region: how.region ?? 'us-east-1',
    service: 'ec2',
    sha256: Sha256,
  });
  const body = method === 'POST' ? form.toString() : '';
  const query = method === 'GET' ? Object.fromEntries(form) : {};
  const signed = await signer.sign(
    {
      method,
      protocol: url.protocol,
      hostname: url.hostname,
      path: '/',
      query,
      headers: { host: url.host, 'content-type': 'application/x-www-form-urlencoded' },
      body,
    },
    { signingDate: how.at ?? new Date() },
  );
  if (method === 'GET') url.search = form.toString();
  const response = await fetch(url, {
    method,
    headers: signed.headers,
    ...(method === 'POST' ? { body: how.tamper ? `${body}&Description=other` : body } : {}),
  });
  const text = await response.text();
  return {
    status: response.status,
    code: /<Code>([^<]*)<\/Code>/.exec(text)?.[1] ?? '',
    message:
      /<Message>([^<]*)<\/Message>/
        .exec(text)?.[1]
        ?.replaceAll('&apos;', "'")
        .replaceAll('&quot;', '"')
        .replaceAll('&gt;', '>') ?? '',
    body: text,
  };
}
