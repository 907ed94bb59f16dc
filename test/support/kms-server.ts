import { randomBytes, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Cleanup } from './cleanup.ts';

type Key = { id: string; enabled: boolean; created: number };
type Input = Record<string, string> & { EncryptionContext?: Record<string, string> };

class Refusal extends Error {}

export type TestKms = {
  url: string;
  calls: string[];
  /** Else connections are closed at once. */
  reachable: boolean;
  /** Else it takes requests, and says nothing. */
  answering: boolean;
  /** So many it has left without an answer. */
  unanswered: number;
};

/** A KMS in memory that speaks the real one's protocol (awsJson 1.1), as much of it as cleancut asks for. */
export async function startKmsServer(test: Cleanup): Promise<TestKms> {
  const keys = new Map<string, Key>();
  const aliases = new Map<string, string>();
  const wrapped = new Map<string, { keyId: string; context: string; bytes: string }>();
  const state: TestKms = { url: '', calls: [], reachable: true, answering: true, unanswered: 0 };

  const arnOf = (id: string): string => `arn:aws:kms:us-east-1:111122223333:key/${id}`;
  const find = (name = ''): Key => {
    const id = name.startsWith('alias/') ? aliases.get(name) : name.replace(/^arn:.*:key\//, '');
    const key = keys.get(id ?? '');
    if (key === undefined) throw new Refusal('NotFoundException');
    return key;
  };
  const usable = (name?: string): Key => {
    const key = find(name);
    if (!key.enabled) throw new Refusal('DisabledException');
    return key;
  };
  const described = (key: Key) => ({
    KeyMetadata: {
      KeyId: key.id,
      Arn: arnOf(key.id),
      Enabled: key.enabled,
      KeyState: key.enabled ? 'Enabled' : 'Disabled',
      CreationDate: key.created,
    },
  });
  const operations: Record<string, (input: Input) => object> = {
    CreateKey() {
      const key = { id: randomUUID(), enabled: true, created: 1_700_000_000 };
      keys.set(key.id, key);
      return described(key);
    },
    CreateAlias({ AliasName, TargetKeyId }) {
      if (aliases.has(AliasName)) throw new Refusal('AlreadyExistsException');
      aliases.set(AliasName, find(TargetKeyId).id);
      return {};
    },
    UpdateAlias({ AliasName, TargetKeyId }) {
      aliases.set(AliasName, find(TargetKeyId).id);
      return {};
    },
    DescribeKey: ({ KeyId }) => described(find(KeyId)),
    ListKeys: () => ({ Keys: [...keys.keys()].map((KeyId) => ({ KeyId, KeyArn: arnOf(KeyId) })), Truncated: false }),
    ListAliases: ({ KeyId }) => ({
      Aliases: [...aliases].filter(([, id]) => id === KeyId).map(([AliasName]) => ({ AliasName })),
      Truncated: false,
    }),
    EnableKey({ KeyId }) {
      find(KeyId).enabled = true;
      return {};
    },
    DisableKey({ KeyId }) {
      find(KeyId).enabled = false;
      return {};
    },
    RotateKeyOnDemand: ({ KeyId }) => ({ KeyId: usable(KeyId).id }),
    GenerateDataKey({ KeyId, EncryptionContext }) {
      const { id } = usable(KeyId);
      const Plaintext = randomBytes(32).toString('base64');
      const CiphertextBlob = randomBytes(64).toString('base64');
      wrapped.set(CiphertextBlob, { keyId: id, context: JSON.stringify(EncryptionContext), bytes: Plaintext });
      return { KeyId: arnOf(id), Plaintext, CiphertextBlob };
    },
    Decrypt({ CiphertextBlob, KeyId, EncryptionContext }) {
      const found = wrapped.get(CiphertextBlob);
      const key = usable(KeyId);
      if (found?.context !== JSON.stringify(EncryptionContext)) throw new Refusal('InvalidCiphertextException');
      if (found.keyId !== key.id) throw new Refusal('IncorrectKeyException');
      return { KeyId: arnOf(key.id), Plaintext: found.bytes };
    },
  };
  const server = createServer(async (request, response) => {
    if (!state.reachable) {
      request.socket.destroy();
      return;
    }
    if (!state.answering) {
      state.unanswered += 1;
      return;
    }
    let body = '';
    for await (const chunk of request) body += chunk;
    const name = String(request.headers['x-amz-target']).replace('TrentService.', '');
    state.calls.push(name);
    try {
      const answer = operations[name](JSON.parse(body));
      response.writeHead(200, { 'Content-Type': 'application/x-amz-json-1.1' }).end(JSON.stringify(answer));
    } catch (error) {
      const __type = (error as Error).message;
      response.writeHead(400, { 'Content-Type': 'application/x-amz-json-1.1' }).end(JSON.stringify({ __type }));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  state.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return state;
}
