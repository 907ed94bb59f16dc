import type { Policy } from '../auth/policy.ts';
import type { SecretBox } from '../auth/secret-box.ts';
import type { Users } from '../auth/users.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import type { DataKeys } from '../keys/data-keys.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { AccountId } from '../types/ids.ts';
import { authorize, type Targets } from './authorization.ts';
import { errors } from './errors.ts';

/** The regions that this endpoint says it is, with the zones of each; the first is the default. */
export type Regions = ReadonlyMap<string, readonly string[]>;

/** Limits that AWS enforces; 0 switches one off. */
export type Limits = {
  /** Seconds between two snapshots of one volume. */
  snapshotGapSeconds: number;
  pendingSnapshotsPerVolume: number;
  snapshotsPerAccount: number;
};

/** What the operations work on. */
export type Services = {
  catalog: Catalog;
  dataPlane: DataPlane;
  lifecycle: Lifecycle;
  store: ObjectStore;
  /** Whether there is a place for archived snapshots. */
  hasArchive: boolean;
  keys: DataKeys;
  regions: Regions;
  limits: Limits;
  /** The account whose administrator runs this server. */
  operatorAccount: AccountId;
  now: () => Date;
  log: (level: 'info' | 'warn' | 'error', message: string) => void;
  /** How long writes may be held for a cut. */
  holdDeadlineMilliseconds: number;
  users: Users;
  /** Seals what denials say, for sts:DecodeAuthorizationMessage. */
  denials: SecretBox;
};

/** Who asks, from where, and what he may do. */
export type Caller = {
  accountId: AccountId;
  userName: string;
  accessKeyId: string;
  region: string;
  sourceAddress: string;
  userAgent: string;
  /** Over TLS. */
  secure: boolean;
  policies: readonly Policy[];
};

/** What was asked, in the words of policies and logs. */
export type Asked = {
  requestId: string;
  /** Like `ec2:CreateSnapshots`. */
  action: string;
  dryRun: boolean;
};

/** One request to one operation. */
export class Call {
  readonly services: Services;
  readonly caller: Caller;
  readonly requestId: string;
  readonly action: string;
  readonly #dryRun: boolean;
  #permitted = false;

  constructor(services: Services, caller: Caller, { requestId, action, dryRun }: Asked) {
    this.services = services;
    this.caller = caller;
    this.requestId = requestId;
    this.action = action;
    this.#dryRun = dryRun;
  }

  /** The region that the request was made to. */
  get region(): string {
    return this.caller.region;
  }

  /** Whose settings and keys count: the account's, in the region that was asked. */
  get owner(): { accountId: AccountId; region: string } {
    return { accountId: this.caller.accountId, region: this.region };
  }

  get zones(): readonly string[] {
    return this.services.regions.get(this.region) ?? [];
  }

  /** The same caller's call, to another region of this endpoint. */
  in(region: string): Call {
    const { requestId, action } = this;
    return new Call(this.services, { ...this.caller, region }, { requestId, action, dryRun: false });
  }

  /** Between two pieces of long work: others have their turn, and where writes are held for a cut, that ends first. */
  async yield(): Promise<void> {
    await new Promise(setImmediate);
    await this.services.dataPlane.afterHold();
  }

  /**
   * Asks whether the caller may do this to all these; to be called once the request is known to be well-formed, before
   * anything is changed. What is looked up for it may not be there: that is said later.
   * @throws ApiError UnauthorizedOperation; DryRunOperation where the request was only a question
   */
  async permit(...targets: Targets[]): Promise<void> {
    this.#permitted = true;
    await authorize(this, targets);
    if (this.#dryRun) throw errors.dryRun();
  }

  /** Asks again about what has only been found since. @throws ApiError UnauthorizedOperation */
  async alsoPermit(...targets: Targets[]): Promise<void> {
    await authorize(this, targets);
  }

  /** @throws when an operation was done without having asked: a mistake of the program that must not pass unseen */
  assertPermitted(): void {
    if (!this.#permitted) throw new Error('the operation did not ask for permission');
  }
}

/**
 * An operation: from the SDK's typed input to its typed output, and what it makes of each parameter. A parameter that
 * stands in neither list is refused: none is ignored in silence. Names are the SDK's; a name covers all below it.
 */
export type Operation<Input, Output> = {
  honoured: readonly (keyof Input & string)[];
  /** Accepted, since tools send them by habit, and without effect here. Dotted names reach into structures. */
  withoutEffect?: readonly string[];
  /** Members of honoured structures that are not: dotted names. */
  refused?: readonly string[];
  run: (input: Input, call: Call) => Promise<Output>;
};

// biome-ignore lint/suspicious/noExplicitAny: the table of all operations holds inputs of every type.
export type AnyOperation = Operation<any, object>;
