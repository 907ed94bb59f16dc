import type {
  CreateVolumePermission,
  DescribeSnapshotAttributeRequest,
  DescribeSnapshotAttributeResult,
  ModifySnapshotAttributeRequest,
  ResetSnapshotAttributeRequest,
} from '@aws-sdk/client-ec2';
import { granteesOf } from '../../catalog/permissions.ts';
import type { SnapshotRow } from '../../catalog/schema.ts';
import { parseAccountId } from '../../types/ids.ts';
import type { Target } from '../authorization.ts';
import { errors } from '../errors.ts';
import { readSnapshotId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { publicAccessState } from '../settings/snapshot-block-public-access.ts';
import { findOwnSnapshot } from './find-snapshot.ts';
import { refreshRecords } from './stored-records.ts';

/** Who may make volumes of a snapshot; and product codes, which none here has. */
export const describeSnapshotAttribute: Operation<DescribeSnapshotAttributeRequest, DescribeSnapshotAttributeResult> = {
  honoured: ['SnapshotId', 'Attribute'],

  async run(input, call) {
    const snapshotId = readSnapshotId(input.SnapshotId);
    const attribute = readAttribute(input.Attribute, ['createVolumePermission', 'productCodes']);
    await call.permit({ type: 'snapshot', id: snapshotId });
    await findOwnSnapshot(call, snapshotId);
    if (attribute === 'productCodes') return { SnapshotId: snapshotId, ProductCodes: [] };
    const grantees = (await granteesOf(call.services.catalog, [snapshotId])).get(snapshotId) ?? [];
    return {
      SnapshotId: snapshotId,
      CreateVolumePermissions: grantees.map((grantee) => (grantee === 'all' ? { Group: 'all' } : { UserId: grantee })),
    };
  },
};

/** Shares a snapshot, or ends that. */
export const modifySnapshotAttribute: Operation<ModifySnapshotAttributeRequest, object> = {
  honoured: ['SnapshotId', 'Attribute', 'OperationType', 'UserIds', 'GroupNames', 'CreateVolumePermission'],

  async run(input, call) {
    const snapshotId = readSnapshotId(input.SnapshotId);
    if (input.Attribute !== undefined) readAttribute(input.Attribute, ['createVolumePermission']);
    const { add, remove } = readChanges(input);
    if (add.size === 0 && remove.size === 0) throw errors.missing('CreateVolumePermission');
    await call.permit({ type: 'snapshot', id: snapshotId, context: sharingContext(add, remove) });
    const { catalog, lifecycle } = call.services;
    await lifecycle.locks.hold([snapshotId], async () => {
      await checkShareable(call, await findOwnSnapshot(call, snapshotId), add);
      await catalog.transaction().execute(async (transaction) => {
        for (const grantee of add) {
          await transaction
            .insertInto('snapshot_permissions')
            .values({ snapshot_id: snapshotId, grantee })
            .onConflict((conflict) => conflict.doNothing())
            .execute();
        }
        if (remove.size > 0) {
          await transaction
            .deleteFrom('snapshot_permissions')
            .where('snapshot_id', '=', snapshotId)
            .where('grantee', 'in', [...remove])
            .execute();
        }
        await lifecycle.records.markStale(transaction, [snapshotId]);
      });
      await refreshRecords(call, [snapshotId]);
    });
    return {};
  },
};

/** Ends all sharing. */
export const resetSnapshotAttribute: Operation<ResetSnapshotAttributeRequest, object> = {
  honoured: ['SnapshotId', 'Attribute'],

  async run(input, call) {
    const snapshotId = readSnapshotId(input.SnapshotId);
    readAttribute(input.Attribute, ['createVolumePermission']);
    await call.permit({ type: 'snapshot', id: snapshotId });
    const { catalog, lifecycle } = call.services;
    await lifecycle.locks.hold([snapshotId], async () => {
      await findOwnSnapshot(call, snapshotId);
      await catalog.transaction().execute(async (transaction) => {
        await transaction.deleteFrom('snapshot_permissions').where('snapshot_id', '=', snapshotId).execute();
        await lifecycle.records.markStale(transaction, [snapshotId]);
      });
      await refreshRecords(call, [snapshotId]);
    });
    return {};
  },
};

/** @throws ApiError OperationNotPermitted */
async function checkShareable(call: Call, snapshot: SnapshotRow, grantees: ReadonlySet<string>): Promise<void> {
  if (grantees.size === 0) return;
  const id = snapshot.snapshot_id;
  if (grantees.has('all')) {
    if (snapshot.data_key_id !== null) throw errors.publicEncrypted(id);
    const state = await publicAccessState(call);
    if (state !== 'unblocked') throw errors.publicBlocked(id, state);
  }
  if (snapshot.data_key_id === null) return;
  const ownDefault = await call.services.keys.service.defaultKey(call.owner);
  if (snapshot.kms_key_arn === ownDefault) throw errors.sharedDefaultKey(id);
}

function readAttribute(attribute: string | undefined, known: readonly string[]): string {
  if (attribute === undefined) throw errors.missing('Attribute');
  if (!known.includes(attribute)) throw errors.invalidValue('Attribute', attribute, `Expected ${known.join(' or ')}.`);
  return attribute;
}

/** Condition keys of who is let in and who out. */
function sharingContext(add: ReadonlySet<string>, remove: ReadonlySet<string>): NonNullable<Target['context']> {
  const users = (of: ReadonlySet<string>): string[] => [...of].filter((each) => each !== 'all');
  return {
    ...(users(add).length > 0 ? { 'ec2:Add/userId': users(add) } : {}),
    ...(add.has('all') ? { 'ec2:Add/group': 'all' } : {}),
    ...(users(remove).length > 0 ? { 'ec2:Remove/userId': users(remove) } : {}),
    ...(remove.has('all') ? { 'ec2:Remove/group': 'all' } : {}),
  };
}

/** The two forms in which a change can be said: the lists with an operation, and the structure. */
function readChanges(input: ModifySnapshotAttributeRequest): { add: Set<string>; remove: Set<string> } {
  const add = readGrantees(input.CreateVolumePermission?.Add);
  const remove = readGrantees(input.CreateVolumePermission?.Remove);
  const listed = readGrantees([
    ...(input.UserIds ?? []).map((UserId) => ({ UserId })),
    ...(input.GroupNames ?? []).map((Group) => ({ Group: Group as 'all' })),
  ]);
  if (listed.size > 0) {
    const operation = input.OperationType;
    if (operation === undefined) throw errors.missing('OperationType');
    if (operation !== 'add' && operation !== 'remove') {
      throw errors.invalidValue('OperationType', operation, 'Expected add or remove.');
    }
    for (const grantee of listed) (operation === 'add' ? add : remove).add(grantee);
  }
  return { add, remove };
}

function readGrantees(permissions: readonly CreateVolumePermission[] | undefined): Set<string> {
  const grantees = new Set<string>();
  for (const { UserId, Group } of permissions ?? []) {
    if (Group !== undefined) {
      if (Group !== 'all') throw errors.invalidValue('Group', Group, "Expected 'all'.");
      grantees.add('all');
    }
    if (UserId !== undefined) {
      if (parseAccountId(UserId) === undefined) {
        throw errors.invalidValue('UserId', UserId, 'Expected an account id of twelve digits.');
      }
      grantees.add(UserId);
    }
  }
  return grantees;
}
