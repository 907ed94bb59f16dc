import { randomUUID } from 'node:crypto';
import type { Catalog } from '../catalog/catalog.ts';
import type { DataKeyRow } from '../catalog/schema.ts';
import { DataKey } from '../encryption/data-key.ts';
import { KeyError, type KeyService } from './key-service.ts';

/** The keeper of the keys does not answer: it may, later. */
export class KeysUnavailableError extends Error {
  override name = 'KeysUnavailableError';
}

/**
 * The data keys that the catalog has, unwrapped when they are needed and not kept: a key that was disabled unwraps
 * nothing more.
 */
export class DataKeys {
  readonly service: KeyService;
  readonly #catalog: Catalog;

  constructor(catalog: Catalog, service: KeyService) {
    this.#catalog = catalog;
    this.service = service;
  }

  /** Makes a data key under a KMS key; the caller records the row with what is encrypted by it. @throws KeyError */
  async make(kmsKeyArn: string): Promise<DataKeyRow> {
    const dataKeyId = randomUUID();
    const { wrapped } = await this.service.newDataKey(kmsKeyArn, dataKeyId);
    return { data_key_id: dataKeyId, kms_key_arn: kmsKeyArn, wrapped };
  }

  /** @param dataKeyId null for what is not encrypted @throws KeyError */
  async open(dataKeyId: string | null): Promise<DataKey | undefined> {
    if (dataKeyId === null) return undefined;
    const row = await this.#catalog
      .selectFrom('data_keys')
      .selectAll()
      .where('data_key_id', '=', dataKeyId)
      .executeTakeFirstOrThrow(() => new Error(`the catalog has no data key ${dataKeyId}`));
    try {
      return new DataKey(await this.service.unwrap(row.kms_key_arn, row.wrapped, dataKeyId));
    } catch (error) {
      if (error instanceof KeyError) throw error;
      throw new KeysUnavailableError(`the keys cannot be reached: ${(error as Error).message}`);
    }
  }
}
