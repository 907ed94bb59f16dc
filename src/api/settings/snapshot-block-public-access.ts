import type {
  DisableSnapshotBlockPublicAccessRequest,
  DisableSnapshotBlockPublicAccessResult,
  EnableSnapshotBlockPublicAccessRequest,
  EnableSnapshotBlockPublicAccessResult,
  GetSnapshotBlockPublicAccessStateRequest,
  GetSnapshotBlockPublicAccessStateResult,
  SnapshotBlockPublicAccessState,
} from '@aws-sdk/client-ec2';
import { accountSetting, setAccountSetting } from '../../catalog/account-settings.ts';
import { errors } from '../errors.ts';
import type { Call, Operation } from '../operation.ts';

const SETTING = 'snapshot-block-public-access';
const BLOCKING: readonly SnapshotBlockPublicAccessState[] = ['block-all-sharing', 'block-new-sharing'];

/**
 * No snapshot of the account becomes public any more; with `block-all-sharing`, those that are count as private while
 * it lasts.
 */
export const enableSnapshotBlockPublicAccess: Operation<
  EnableSnapshotBlockPublicAccessRequest,
  EnableSnapshotBlockPublicAccessResult
> = {
  honoured: ['State'],
  async run(input, call) {
    const state = input.State;
    if (state === undefined) throw errors.missing('State');
    if (!BLOCKING.includes(state)) throw errors.invalidValue('State', state, `Expected ${BLOCKING.join(' or ')}.`);
    await call.permit();
    await setAccountSetting(call.services.catalog, call.owner, SETTING, state);
    return { State: state };
  },
};

export const disableSnapshotBlockPublicAccess: Operation<
  DisableSnapshotBlockPublicAccessRequest,
  DisableSnapshotBlockPublicAccessResult
> = {
  honoured: [],
  async run(_input, call) {
    await call.permit();
    await setAccountSetting(call.services.catalog, call.owner, SETTING, undefined);
    return { State: 'unblocked' };
  },
};

export const getSnapshotBlockPublicAccessState: Operation<
  GetSnapshotBlockPublicAccessStateRequest,
  GetSnapshotBlockPublicAccessStateResult
> = {
  honoured: [],
  async run(_input, call) {
    await call.permit();
    return { State: await publicAccessState(call), ManagedBy: 'account' };
  },
};

export async function publicAccessState(call: Call): Promise<SnapshotBlockPublicAccessState> {
  const state = await accountSetting(call.services.catalog, call.owner, SETTING);
  return (state as SnapshotBlockPublicAccessState | undefined) ?? 'unblocked';
}
