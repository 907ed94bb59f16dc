import {
  CreateAliasCommand,
  CreateKeyCommand,
  DecryptCommand,
  DescribeKeyCommand,
  DisableKeyCommand,
  EnableKeyCommand,
  GenerateDataKeyCommand,
  type KeyMetadata,
  KMSClient,
  paginateListAliases,
  paginateListKeys,
  RotateKeyOnDemandCommand,
  UpdateAliasCommand,
} from '@aws-sdk/client-kms';
import { checkAlias, KeyError, type KeyOwner, type KeyReport, type KeyService } from './key-service.ts';

/** `alias/aws/ebs` is reserved in every KMS; this one stands in for it. */
const DEFAULT_ALIAS = 'alias/cleancut-ebs';
const CONTEXT = 'cleancut:data-key';
/** A KMS answers within milliseconds. One that does not must not have its askers wait for minutes. */
const TIMEOUTS = { connectionTimeout: 3_000, socketTimeout: 5_000 };

/**
 * KMS keys in a KMS: AWS's own, or any that speaks its API. The credentials are those of the server (the standard AWS
 * chain), so all accounts of the server share what they may use.
 */
export class KmsKeys implements KeyService {
  readonly #client: KMSClient;
  #makingDefault: Promise<string> | undefined;

  /** @param endpoint undefined for AWS's own */
  constructor(endpoint: string | undefined, region: string) {
    this.#client = new KMSClient({ region, requestHandler: TIMEOUTS, ...(endpoint === undefined ? {} : { endpoint }) });
  }

  async resolve(name: string, _owner: KeyOwner): Promise<string> {
    const key = await this.#describe(name);
    if (key.Enabled !== true) throw new KeyError('Disabled', `the key ${key.Arn} is ${key.KeyState}`);
    return key.Arn ?? name;
  }

  async defaultKey(owner: KeyOwner): Promise<string> {
    try {
      return await this.resolve(DEFAULT_ALIAS, owner);
    } catch (error) {
      if (!(error instanceof KeyError && error.reason === 'NotFound')) throw error;
      this.#makingDefault ??= this.#makeDefault(owner).finally(() => {
        this.#makingDefault = undefined;
      });
      return this.#makingDefault;
    }
  }

  /** Once for all who find none at the same time: what a KMS has made it keeps, and may send a bill for. */
  async #makeDefault(owner: KeyOwner): Promise<string> {
    try {
      return (await this.create(owner, 'Default key that protects EBS volumes', DEFAULT_ALIAS)).arn;
    } catch (error) {
      // Made since by someone else, who has the alias.
      if (error instanceof KeyError && error.reason === 'Taken') return this.resolve(DEFAULT_ALIAS, owner);
      throw error;
    }
  }

  async newDataKey(keyArn: string, dataKeyId: string): Promise<{ bytes: Uint8Array; wrapped: string }> {
    const made = await asking(() =>
      this.#client.send(
        new GenerateDataKeyCommand({ KeyId: keyArn, KeySpec: 'AES_256', EncryptionContext: { [CONTEXT]: dataKeyId } }),
      ),
    );
    if (made.Plaintext === undefined || made.CiphertextBlob === undefined) throw new Error('the KMS made no data key');
    return { bytes: made.Plaintext, wrapped: Buffer.from(made.CiphertextBlob).toString('base64') };
  }

  async unwrap(keyArn: string, wrapped: string, dataKeyId: string): Promise<Uint8Array> {
    const answer = await asking(() =>
      this.#client.send(
        new DecryptCommand({
          KeyId: keyArn,
          CiphertextBlob: Buffer.from(wrapped, 'base64'),
          EncryptionContext: { [CONTEXT]: dataKeyId },
        }),
      ),
    );
    if (answer.Plaintext === undefined) throw new Error('the KMS unwrapped nothing');
    return answer.Plaintext;
  }

  async create(_owner: KeyOwner, description: string, alias: string | undefined): Promise<KeyReport> {
    const aliasName = alias === undefined || alias === DEFAULT_ALIAS ? alias : checkAlias(alias);
    const { KeyMetadata } = await asking(() => this.#client.send(new CreateKeyCommand({ Description: description })));
    const id = KeyMetadata?.KeyId ?? '';
    if (aliasName !== undefined) {
      await asking(() => this.#client.send(new CreateAliasCommand({ AliasName: aliasName, TargetKeyId: id })));
    }
    return this.#report(id);
  }

  async list(_owner: KeyOwner): Promise<KeyReport[]> {
    const ids: string[] = [];
    for await (const page of paginateListKeys({ client: this.#client }, {})) {
      for (const key of page.Keys ?? []) if (key.KeyId !== undefined) ids.push(key.KeyId);
    }
    return Promise.all(ids.map((id) => this.#report(id)));
  }

  async setAlias(name: string, _owner: KeyOwner, alias: string): Promise<KeyReport> {
    const order = { AliasName: checkAlias(alias), TargetKeyId: (await this.#describe(name)).KeyId ?? name };
    const taken = await this.#describe(alias).catch(() => undefined);
    await asking(() =>
      taken === undefined
        ? this.#client.send(new CreateAliasCommand(order))
        : this.#client.send(new UpdateAliasCommand(order)),
    );
    return this.#report(order.TargetKeyId);
  }

  async rotate(name: string, _owner: KeyOwner): Promise<KeyReport> {
    const id = (await this.#describe(name)).KeyId ?? name;
    await asking(() => this.#client.send(new RotateKeyOnDemandCommand({ KeyId: id })));
    return this.#report(id);
  }

  async setEnabled(name: string, _owner: KeyOwner, enabled: boolean): Promise<KeyReport> {
    const id = (await this.#describe(name)).KeyId ?? name;
    await asking(() =>
      enabled
        ? this.#client.send(new EnableKeyCommand({ KeyId: id }))
        : this.#client.send(new DisableKeyCommand({ KeyId: id })),
    );
    return this.#report(id);
  }

  async #describe(name: string): Promise<KeyMetadata> {
    const { KeyMetadata } = await asking(() => this.#client.send(new DescribeKeyCommand({ KeyId: name })));
    if (KeyMetadata === undefined) throw new KeyError('NotFound', `the KMS has no key '${name}'`);
    return KeyMetadata;
  }

  async #report(id: string): Promise<KeyReport> {
    const key = await this.#describe(id);
    const aliases: string[] = [];
    for await (const page of paginateListAliases({ client: this.#client }, { KeyId: key.KeyId })) {
      for (const alias of page.Aliases ?? []) if (alias.AliasName !== undefined) aliases.push(alias.AliasName);
    }
    return {
      keyId: key.KeyId ?? id,
      arn: key.Arn ?? id,
      aliases,
      description: key.Description ?? '',
      enabled: key.Enabled === true,
      createdAt: key.CreationDate?.toISOString() ?? '',
      versions: undefined,
    };
  }
}

/** Turns what a KMS answers into what the rest of cleancut knows. */
async function asking<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
  try {
    return await ask();
  } catch (error) {
    const { name, message } = error as Error;
    if (name === 'NotFoundException') throw new KeyError('NotFound', message);
    if (name === 'DisabledException' || name === 'KMSInvalidStateException') throw new KeyError('Disabled', message);
    if (name === 'AlreadyExistsException') throw new KeyError('Taken', message);
    if (name === 'InvalidCiphertextException' || name === 'IncorrectKeyException') {
      throw new KeyError('Unusable', `the KMS cannot unwrap the data key: ${message}`);
    }
    throw error;
  }
}
