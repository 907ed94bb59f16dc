import type { AccountId } from '../types/ids.ts';

/** An account sees and uses the keys that it has in a region. */
export type KeyOwner = { accountId: AccountId; region: string };

/** The alias of the key that serves an account where it names none. */
export const DEFAULT_ALIAS = 'alias/aws/ebs';

/**
 * KMS keys: they never leave their keeper, and wrap the data keys that encrypt volumes and snapshots. Kept in a keyring
 * of this server's own, or in any KMS.
 */
export interface KeyService {
  /**
   * @param name as AWS takes it: a key's id or ARN, an alias (`alias/NAME`) or its ARN
   * @returns the key's ARN
   * @throws KeyError NotFound, Disabled
   */
  resolve(name: string, owner: KeyOwner): Promise<string>;

  /** The ARN of the account's own default key, `alias/aws/ebs`; made when it is first needed. */
  defaultKey(owner: KeyOwner): Promise<string>;

  /**
   * Makes a data key.
   * @param dataKeyId its name; whoever unwraps it must say the same
   * @returns its 32 bytes, and the same wrapped by the KMS key, to be kept
   * @throws KeyError NotFound, Disabled
   */
  newDataKey(keyArn: string, dataKeyId: string): Promise<{ bytes: Uint8Array; wrapped: string }>;

  /** @throws KeyError NotFound, Disabled, Unusable */
  unwrap(keyArn: string, wrapped: string, dataKeyId: string): Promise<Uint8Array>;

  /** Makes a key. @param alias `alias/NAME` @throws KeyError InvalidName, Taken */
  create(owner: KeyOwner, description: string, alias: string | undefined): Promise<KeyReport>;

  list(owner: KeyOwner): Promise<KeyReport[]>;

  /** Gives a key one more alias; one that another key of the account had moves here. @throws KeyError */
  setAlias(name: string, owner: KeyOwner, alias: string): Promise<KeyReport>;

  /** New material for what is wrapped from now on; the old unwraps what it wrapped. @throws KeyError */
  rotate(name: string, owner: KeyOwner): Promise<KeyReport>;

  /** @throws KeyError NotFound */
  setEnabled(name: string, owner: KeyOwner, enabled: boolean): Promise<KeyReport>;
}

export type KeyReport = {
  keyId: string;
  arn: string;
  aliases: string[];
  description: string;
  enabled: boolean;
  createdAt: string;
  /** How often its material was made, where the keeper tells. */
  versions: number | undefined;
};

export type KeyErrorReason = 'NotFound' | 'Disabled' | 'Unusable' | 'InvalidName' | 'Taken';

/** What keeps a key from being used. The message names the key, never its bytes. */
export class KeyError extends Error {
  override name = 'KeyError';
  readonly reason: KeyErrorReason;

  constructor(reason: KeyErrorReason, message: string) {
    super(message);
    this.reason = reason;
  }
}

/** @throws KeyError InvalidName */
export function checkAlias(alias: string): string {
  if (!/^alias\/[a-zA-Z0-9/_-]{1,250}$/.test(alias) || alias.startsWith('alias/aws/')) {
    throw new KeyError(
      'InvalidName',
      `'${alias}' is no name for an alias: alias/ and letters, digits, / _ -; alias/aws/ is reserved.`,
    );
  }
  return alias;
}
