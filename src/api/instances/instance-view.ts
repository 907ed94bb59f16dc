import type { _InstanceType, Instance, InstanceStateName } from '@aws-sdk/client-ec2';
import type { Catalog } from '../../catalog/catalog.ts';
import type { AttachmentRow, InstanceRow, InstanceState } from '../../catalog/schema.ts';
import { tagsOf } from '../../catalog/tags.ts';
import { tagView } from '../tags/tag-view.ts';

const STATE_CODES: Record<InstanceState, number> = {
  pending: 0,
  running: 16,
  'shutting-down': 32,
  terminated: 48,
  stopping: 64,
  stopped: 80,
};

export type TaggedInstance = InstanceRow & { attachments: AttachmentRow[]; tags: ReadonlyMap<string, string> };

/** Puts instances together with their attachments and tags. */
export async function withDevices(catalog: Catalog, instances: readonly InstanceRow[]): Promise<TaggedInstance[]> {
  const ids = instances.map((instance) => instance.instance_id);
  if (ids.length === 0) return [];
  const attachments = await catalog
    .selectFrom('attachments')
    .selectAll()
    .where('instance_id', 'in', ids)
    .orderBy('device_name')
    .execute();
  const tags = await tagsOf(catalog, ids);
  const byInstance = Map.groupBy(attachments, (attachment) => attachment.instance_id);
  return instances.map((instance) => ({
    ...instance,
    attachments: byInstance.get(instance.instance_id) ?? [],
    tags: tags.get(instance.instance_id) ?? new Map(),
  }));
}

export function stateView(state: InstanceState): { Code: number; Name: InstanceStateName } {
  return { Code: STATE_CODES[state], Name: state };
}

export function stateCode(state: InstanceState): number {
  return STATE_CODES[state];
}

export function instanceView(instance: TaggedInstance): Instance {
  return {
    InstanceId: instance.instance_id,
    ImageId: instance.image_id,
    State: stateView(instance.state),
    StateTransitionReason: instance.state_reason,
    InstanceType: instance.instance_type as _InstanceType,
    AmiLaunchIndex: instance.launch_index,
    LaunchTime: new Date(instance.launched_at),
    Placement: { AvailabilityZone: instance.zone, Tenancy: 'default', GroupName: '' },
    Monitoring: { State: 'disabled' },
    Architecture: 'x86_64',
    RootDeviceType: 'ebs',
    RootDeviceName: instance.root_device_name,
    VirtualizationType: 'hvm',
    Hypervisor: 'xen',
    EbsOptimized: false,
    SourceDestCheck: true,
    SecurityGroups: [],
    NetworkInterfaces: [],
    PrivateDnsName: '',
    PublicDnsName: '',
    ClientToken: instance.client_token ?? '',
    BlockDeviceMappings: instance.attachments.map((attachment) => ({
      DeviceName: attachment.device_name,
      Ebs: {
        VolumeId: attachment.volume_id,
        Status: 'attached',
        AttachTime: new Date(attachment.attached_at),
        DeleteOnTermination: attachment.delete_on_termination === 1,
      },
    })),
    Tags: tagView(instance.tags),
  };
}
