import type { InstanceStateChange } from '@aws-sdk/client-ec2';
import type { InstanceRow, InstanceState } from '../../catalog/schema.ts';
import type { InstanceId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { readInstanceId } from '../identifiers.ts';
import type { Call } from '../operation.ts';
import { findInstances } from './find-instance.ts';
import { stateView } from './instance-view.ts';

export type Transition = {
  /** States in which there is something to do. */
  from: readonly InstanceState[];
  /** States in which it is done already: no error, nothing to do. */
  settled: readonly InstanceState[];
  /** Recorded first, so that a crash in between ends at the other side. */
  through: InstanceState;
  move: (instanceId: InstanceId) => Promise<void>;
  reason: string;
  /** Refuses an instance that must not be moved. @throws ApiError */
  check?: (instance: InstanceRow) => void;
};

/**
 * Moves instances from one state to another: all are checked before the first is touched.
 * @throws ApiError InvalidInstanceID.NotFound, IncorrectInstanceState
 */
export async function changeState(
  ids: readonly string[] | undefined,
  call: Call,
  transition: Transition,
): Promise<InstanceStateChange[]> {
  if (ids === undefined || ids.length === 0) throw errors.missing('InstanceId');
  const instanceIds = ids.map((id) => readInstanceId(id));
  await call.permit(...instanceIds.map((id) => ({ type: 'instance' as const, id })));
  const { catalog, lifecycle, now } = call.services;
  return lifecycle.locks.hold(instanceIds, async () => {
    const instances = await findInstances(call, instanceIds);
    for (const instance of instances) transition.check?.(instance);
    for (const { instance_id, state } of instances) {
      if (!transition.from.includes(state) && !transition.settled.includes(state)) {
        throw errors.instanceState(instance_id, state, transition.from.join(' or '));
      }
    }
    const changes: InstanceStateChange[] = [];
    for (const instance of instances) {
      if (transition.from.includes(instance.state)) {
        const reason = transition.reason === '' ? '' : `${transition.reason} (${now().toISOString()})`;
        await catalog
          .updateTable('instances')
          .set({ state: transition.through, state_reason: reason })
          .where('instance_id', '=', instance.instance_id)
          .execute();
        await transition.move(instance.instance_id);
      }
      changes.push(changeOf(instance, await stateOf(call, instance.instance_id)));
    }
    return changes;
  });
}

async function stateOf(call: Call, instanceId: InstanceId): Promise<InstanceState> {
  const row = await call.services.catalog
    .selectFrom('instances')
    .select('state')
    .where('instance_id', '=', instanceId)
    .executeTakeFirstOrThrow();
  return row.state;
}

function changeOf(before: InstanceRow, now: InstanceState): InstanceStateChange {
  return { InstanceId: before.instance_id, PreviousState: stateView(before.state), CurrentState: stateView(now) };
}
