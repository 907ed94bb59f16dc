import { randomBytes } from 'node:crypto';
import type {
  CreateReplaceRootVolumeTaskRequest,
  CreateReplaceRootVolumeTaskResult,
  DescribeReplaceRootVolumeTasksRequest,
  DescribeReplaceRootVolumeTasksResult,
  ReplaceRootVolumeTask,
} from '@aws-sdk/client-ec2';
import type { ReplaceRootTaskRow, SnapshotRow } from '../../catalog/schema.ts';
import { putTags, tagsOf } from '../../catalog/tags.ts';
import { failReplacements } from '../../lifecycle/replacements.ts';
import { newId } from '../../types/ids.ts';
import { making } from '../authorization.ts';
import { planEncryption, protect } from '../encryption.ts';
import { errors } from '../errors.ts';
import { compileFilters } from '../filters.ts';
import { checkSameRequest, readClientToken } from '../idempotency.ts';
import { readInstanceId, readSnapshotId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { readTagSpecifications, type Tags } from '../tags/tag-rules.ts';
import { tagView } from '../tags/tag-view.ts';
import { type AttachedVolume, attachedVolumes, removeAttachment } from '../volumes/attached-volumes.ts';
import { findRestorable, insertVolume, makeOrUndo } from '../volumes/new-volume.ts';
import { findInstance } from './find-instance.ts';

/** A running instance gets a new root volume: from a snapshot, or as its first one was. */
export const createReplaceRootVolumeTask: Operation<
  CreateReplaceRootVolumeTaskRequest,
  CreateReplaceRootVolumeTaskResult
> = {
  honoured: ['InstanceId', 'SnapshotId', 'TagSpecifications', 'DeleteReplacedRootVolume', 'ClientToken'],

  async run(input, call) {
    const instanceId = readInstanceId(input.InstanceId);
    const sourceId = input.SnapshotId === undefined ? undefined : readSnapshotId(input.SnapshotId);
    const tags = readTagSpecifications(input.TagSpecifications, ['replace-root-volume-task']);
    const sources = sourceId === undefined ? [] : [{ type: 'snapshot' as const, id: sourceId }];
    await call.permit({ type: 'instance', id: instanceId }, ...sources, async () => [
      ...making(call, 'replace-root-volume-task', tags.get('replace-root-volume-task') ?? new Map()),
      ...making(call, 'volume', new Map()),
    ]);
    const { catalog, lifecycle, now } = call.services;
    const clientToken = readClientToken(input.ClientToken, input);
    const locks = [instanceId, `token ${call.caller.accountId} ${input.ClientToken ?? call.requestId}`];
    return lifecycle.locks.hold(locks, async () => {
      if (clientToken !== undefined) {
        const earlier = await catalog
          .selectFrom('replace_root_tasks')
          .selectAll()
          .where('account_id', '=', call.caller.accountId)
          .where('region', '=', call.region)
          .where('client_token', '=', clientToken.token)
          .executeTakeFirst();
        if (earlier !== undefined) {
          checkSameRequest(clientToken, earlier.client_token_request);
          return { ReplaceRootVolumeTask: await taskView(call, earlier) };
        }
      }
      const instance = await findInstance(call, instanceId);
      if (instance.state !== 'running') throw errors.instanceState(instanceId, instance.state, 'running');
      const attached = await attachedVolumes(catalog, instanceId);
      const root = attached.find((volume) => volume.device_name === instance.root_device_name);
      if (root === undefined) throw errors.combination(`Instance '${instanceId}' has no root volume to replace.`);
      const first = sourceId ?? root.snapshot_id ?? undefined;
      const source = first === undefined ? undefined : await findRestorable(call, first);
      const task: ReplaceRootTaskRow = {
        task_id: `replacevol-${randomBytes(9).toString('hex').slice(0, 17)}`,
        account_id: call.caller.accountId,
        region: call.region,
        instance_id: instanceId,
        client_token: clientToken?.token ?? null,
        client_token_request: clientToken?.request ?? null,
        snapshot_id: source?.snapshot_id ?? null,
        delete_replaced: input.DeleteReplacedRootVolume === true ? 1 : 0,
        state: 'in-progress',
        started_at: now().toISOString(),
        completed_at: null,
      };
      await replace(call, root, source, task, tags.get('replace-root-volume-task') ?? new Map());
      const done = await catalog
        .selectFrom('replace_root_tasks')
        .selectAll()
        .where('task_id', '=', task.task_id)
        .executeTakeFirstOrThrow();
      return { ReplaceRootVolumeTask: await taskView(call, done) };
    });
  },
};

async function replace(
  call: Call,
  root: AttachedVolume,
  source: SnapshotRow | undefined,
  task: ReplaceRootTaskRow,
  tags: Tags,
): Promise<void> {
  const { catalog, dataPlane, lifecycle, now } = call.services;
  const volumeId = newId('vol');
  const sizeGiB = Math.max(root.size_gib, source?.size_gib ?? 0);
  const shape = { type: root.volume_type, sizeGiB, iops: root.iops, throughput: root.throughput };
  // As the root that it replaces: under the same key, where that was encrypted.
  const wish = root.data_key_id === null ? undefined : { encrypted: true, kmsKeyId: root.kms_key_arn ?? undefined };
  const plan = await planEncryption(call, wish ?? { encrypted: undefined, kmsKeyId: undefined }, source);
  const protection = await protect(call, plan);
  await catalog.transaction().execute(async (transaction) => {
    await transaction.insertInto('replace_root_tasks').values(task).execute();
    const owner = { resourceId: task.task_id, resourceType: 'replace-root-volume-task' as const };
    await putTags(transaction, { ...owner, accountId: task.account_id, region: task.region }, tags);
    await insertVolume(transaction, {
      volumeId,
      accountId: root.account_id,
      region: root.region,
      shape,
      zone: root.zone,
      multiAttach: false,
      source,
      protection,
      createdAt: now(),
      // By which a start finds it, where the replacement was cut off.
      clientToken: { token: task.task_id, request: '' },
    });
  });
  try {
    await makeOrUndo(call, volumeId, 'The new root volume');
    // The old root's export first: no client is left on it when the new one takes its place.
    await lifecycle.instances.endExport(root.volume_id, root.instance_id);
  } catch (error) {
    await failReplacements(catalog, now(), task.task_id);
    await lifecycle.volumes.reap([volumeId]);
    throw error;
  }
  // In one step: at every moment, after a crash too, the instance has one root.
  await catalog.transaction().execute(async (transaction) => {
    const { instance_id, device_name, delete_on_termination } = root;
    await removeAttachment(transaction, root, task.delete_replaced === 1 ? 'deleting' : 'available');
    const attached_at = now().toISOString();
    await transaction
      .insertInto('attachments')
      .values({ volume_id: volumeId, instance_id, device_name, delete_on_termination, attached_at })
      .execute();
    await transaction.updateTable('volumes').set({ state: 'in-use' }).where('volume_id', '=', volumeId).execute();
    await transaction
      .updateTable('replace_root_tasks')
      .set({ state: 'succeeded', completed_at: attached_at })
      .where('task_id', '=', task.task_id)
      .execute();
  });
  await dataPlane.exportVolume(volumeId);
  await lifecycle.volumes.reap([root.volume_id]);
}

export const describeReplaceRootVolumeTasks: Operation<
  DescribeReplaceRootVolumeTasksRequest,
  DescribeReplaceRootVolumeTasksResult
> = {
  honoured: ['ReplaceRootVolumeTaskIds', 'Filters', 'MaxResults', 'NextToken'],

  async run(input, call) {
    const passes = compileFilters<ReplaceRootTaskRow>(
      input.Filters,
      { 'instance-id': (task) => task.instance_id },
      () => new Map(),
    );
    await call.permit();
    const ids = input.ReplaceRootVolumeTaskIds && new Set(input.ReplaceRootVolumeTaskIds);
    const page = await fillPage(
      call,
      input,
      { least: 1, most: 50 },
      {
        fetch: (after, most) =>
          call.services.catalog
            .selectFrom('replace_root_tasks')
            .selectAll()
            .where('account_id', '=', call.caller.accountId)
            .where('region', '=', call.region)
            .where('task_id', '>', after)
            .orderBy('task_id')
            .limit(most)
            .execute(),
        idOf: (row) => row.task_id,
      },
      async (rows) => rows,
      (row) => (ids?.has(row.task_id) ?? true) && passes(row),
    );
    const tasks = await Promise.all(page.items.map((task) => taskView(call, task)));
    return { ReplaceRootVolumeTasks: tasks, NextToken: page.nextToken };
  },
};

async function taskView(call: Call, task: ReplaceRootTaskRow): Promise<ReplaceRootVolumeTask> {
  const tags = await tagsOf(call.services.catalog, [task.task_id]);
  return {
    ReplaceRootVolumeTaskId: task.task_id,
    InstanceId: task.instance_id,
    TaskState: task.state,
    StartTime: task.started_at,
    CompleteTime: task.completed_at ?? undefined,
    SnapshotId: task.snapshot_id ?? undefined,
    DeleteReplacedRootVolume: task.delete_replaced === 1,
    Tags: tagView(tags.get(task.task_id)),
  };
}
