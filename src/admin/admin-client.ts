import { SignatureV4 } from '@smithy/signature-v4';
import { Sha256 } from '../wire/signature.ts';

export type AdminSettings = {
  apiUrl: string;
  region: string;
  credentials: { accessKeyId: string; secretAccessKey: string };
};

/** Asks the server for what EC2's API has no words for. */
export class AdminClient {
  readonly #settings: AdminSettings;

  constructor(settings: AdminSettings) {
    this.#settings = settings;
  }

  /** @throws with the server's own message */
  async ask<Answer>(verb: string, input: object = {}): Promise<Answer> {
    const { apiUrl, region, credentials } = this.#settings;
    const url = new URL(`/cleancut/${verb}`, apiUrl);
    const body = JSON.stringify(input);
    const signer = new SignatureV4({ credentials, region, service: 'cleancut', sha256: Sha256 });
    const signed = await signer.sign({
      method: 'POST',
      protocol: url.protocol,
      hostname: url.hostname,
      path: url.pathname,
      headers: { host: url.host, 'content-type': 'application/json' },
      body,
    });
    const response = await fetch(url, { method: 'POST', headers: signed.headers, body }).catch((error: Error) => {
      throw new Error(
        `no server answers at ${apiUrl} (${(error.cause as Error | undefined)?.message ?? error.message})`,
      );
    });
    const answer = (await response.json()) as Answer & { code?: string; message?: string };
    if (!response.ok) throw new Error(`${answer.code}: ${answer.message}`);
    return answer;
  }
}
