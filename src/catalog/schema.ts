import type { AccountId, ImageId, InstanceId, ReservationId, SetId, SnapshotId, VolumeId } from '../types/ids.ts';
import type { EpochNumber, Sha256 } from '../types/units.ts';

/** Times are ISO 8601 in UTC, as text; booleans are 0 or 1: both databases know these. */
export type Flag = 0 | 1;

export type AccessKeyRow = {
  access_key_id: string;
  /** Sealed (see SecretBox) where `sealed` says so; an earlier version kept it as it is. */
  secret_access_key: string;
  account_id: AccountId;
  user_name: string;
  created_at: string;
  enabled: Flag;
  sealed: Flag;
};

export type UserRow = { account_id: AccountId; user_name: string; created_at: string };

/** A policy document that is attached to a user. */
export type UserPolicyRow = { account_id: AccountId; user_name: string; policy_name: string; document: string };

/** Temporary credentials; secret and token are sealed. They end with the key that they were made by. */
export type SessionRow = {
  access_key_id: string;
  parent_key_id: string;
  account_id: AccountId;
  user_name: string;
  secret_access_key: string;
  session_token: string;
  expires_at: string;
};

export type ImageRow = {
  image_id: ImageId;
  account_id: AccountId;
  region: string;
  name: string;
  description: string;
  root_device_name: string;
  is_public: Flag;
  created_at: string;
  /** What the image says of the computers that it is for: kept and shown. */
  architecture: string;
  virtualization_type: string;
  ena_support: Flag;
  sriov_net_support: string | null;
};

/** One device of an image; without a snapshot the volume begins empty. */
export type ImageDeviceRow = {
  image_id: ImageId;
  device_name: string;
  snapshot_id: SnapshotId | null;
  size_gib: number;
  volume_type: string;
  iops: number | null;
  throughput: number | null;
  delete_on_termination: Flag;
};

export type InstanceState = 'pending' | 'running' | 'stopping' | 'stopped' | 'shutting-down' | 'terminated';

export type InstanceRow = {
  instance_id: InstanceId;
  account_id: AccountId;
  region: string;
  reservation_id: ReservationId;
  launch_index: number;
  image_id: ImageId;
  instance_type: string;
  zone: string;
  root_device_name: string;
  state: InstanceState;
  launched_at: string;
  /** When and why the state last changed at someone's wish; empty at first, as EC2 shows it. */
  state_reason: string;
  terminated_at: string | null;
  /** DisableApiTermination. */
  protected: Flag;
  client_token: string | null;
  /** SHA-256 of the request that the token came with. */
  client_token_request: string | null;
};

export type VolumeState = 'creating' | 'available' | 'in-use' | 'deleting' | 'error';

export type VolumeRow = {
  volume_id: VolumeId;
  account_id: AccountId;
  region: string;
  size_gib: number;
  volume_type: string;
  iops: number | null;
  throughput: number | null;
  zone: string;
  state: VolumeState;
  created_at: string;
  snapshot_id: SnapshotId | null;
  multi_attach: Flag;
  auto_enable_io: Flag;
  client_token: string | null;
  client_token_request: string | null;
  /** The manifest that the volume was made from, and whether all of it is local by now. */
  origin_root: Sha256 | null;
  hydrated: Flag;
  /** The latest cut that is stored: the next snapshot is incremental against it. Kept alive whatever users delete. */
  base_boundary: EpochNumber;
  base_root: Sha256 | null;
  /** Of an encrypted volume: its data key, the KMS key that wraps it, and the data key of what it was made from. */
  data_key_id: string | null;
  kms_key_arn: string | null;
  origin_key_id: string | null;
};

export type AttachmentRow = {
  volume_id: VolumeId;
  instance_id: InstanceId;
  device_name: string;
  attached_at: string;
  delete_on_termination: Flag;
};

export type SetState = 'pending' | 'completed' | 'error';

/** Snapshots cut at one instant: those of a CreateSnapshots call, or one alone. */
export type SetRow = {
  set_id: SetId;
  account_id: AccountId;
  region: string;
  instance_id: InstanceId | null;
  description: string;
  started_at: string;
  hold_milliseconds: number;
  state: SetState;
};

export type SnapshotState = 'pending' | 'completed' | 'error';

export type SnapshotRow = {
  snapshot_id: SnapshotId;
  account_id: AccountId;
  region: string;
  set_id: SetId;
  volume_id: VolumeId;
  /** The snapshot that it was written on top of, through the EBS direct APIs. */
  parent_snapshot_id: SnapshotId | null;
  /** How the volume was attached at the cut, so that a set can be restored as it was. */
  device_name: string | null;
  is_root: Flag;
  volume_type: string;
  size_gib: number;
  description: string;
  started_at: string;
  completed_at: string | null;
  state: SnapshotState;
  state_message: string;
  /** The cut, while the volume still owes its bytes. */
  boundary: EpochNumber | null;
  /**
   * The manifest; there from the moment when all its bytes are stored, before the set is complete. A completed snapshot
   * without one is in the archive (see SnapshotArchiveRow).
   */
  root: Sha256 | null;
  data_blocks: number;
  stored_bytes: number;
  /** Of an encrypted snapshot. */
  data_key_id: string | null;
  kms_key_arn: string | null;
  /** In the recycle bin: deleted by its owner, who can have it back until then. */
  binned_at: string | null;
  binned_until: string | null;
};

/** A data key, wrapped: what encrypts a volume and the snapshots of its lineage. */
export type DataKeyRow = { data_key_id: string; kms_key_arn: string; wrapped: string };

/** A copy under another key that is not made yet: the bytes are those of this manifest. */
export type SnapshotCopyRow = { snapshot_id: SnapshotId; source_root: Sha256; source_key_id: string | null };

export type AccountSetting = 'ebs-encryption-by-default' | 'ebs-default-kms-key' | 'snapshot-block-public-access';

/** What an account has chosen for a region. */
export type AccountSettingRow = { account_id: AccountId; region: string; name: AccountSetting; value: string };

/** The latest modification of a volume. */
export type VolumeModificationRow = {
  volume_id: VolumeId;
  state: 'modifying' | 'completed' | 'failed';
  message: string;
  started_at: string;
  ended_at: string | null;
  original_size_gib: number;
  original_type: string;
  original_iops: number | null;
  original_throughput: number | null;
  target_size_gib: number;
  target_type: string;
  target_iops: number | null;
  target_throughput: number | null;
};

export type ReplaceRootTaskRow = {
  task_id: string;
  account_id: AccountId;
  region: string;
  instance_id: InstanceId;
  client_token: string | null;
  client_token_request: string | null;
  snapshot_id: SnapshotId | null;
  delete_replaced: Flag;
  state: 'in-progress' | 'succeeded' | 'failed';
  started_at: string;
  completed_at: string | null;
};

/** A snapshot that is being written block by block through the EBS direct APIs. */
export type DirectUploadRow = {
  snapshot_id: SnapshotId;
  parent_snapshot_id: SnapshotId | null;
  parent_root: Sha256 | null;
  timeout_minutes: number;
  active_at: string;
  client_token: string | null;
  client_token_request: string | null;
};

/** A block of such a snapshot: where it is stored, or (without a pack) that it is zeroes. */
export type DirectBlockRow = {
  snapshot_id: SnapshotId;
  block_index: number;
  /** Of the bytes, for the aggregate checksum; and what the manifest will name the block by (see blockHash). */
  sha256: Sha256;
  block_hash: Sha256;
  pack: string | null;
  pack_offset: number;
  stored_length: number;
  encoding: number;
};

/** A manifest that was written anew: kept for those who read by it. */
export type RetiredRootRow = { root: Sha256; retired_at: string };

/** A snapshot whose record in the bucket does not say yet what the catalog says; how often that has changed since. */
export type StaleRecordRow = { snapshot_id: SnapshotId; changes: number };

/** A deleted snapshot whose record may still be in the bucket. */
export type DeletedRecordRow = { snapshot_id: SnapshotId; set_id: SetId };

/** Values that the server keeps for itself, by name. */
export type SecretRow = { name: string; value: string };

/** Who, besides its owner, may make volumes of a snapshot. */
export type SnapshotPermissionRow = {
  snapshot_id: SnapshotId;
  /** Twelve digits, or `all`. */
  grantee: string;
};

/** A lock that was put on a snapshot; it may have expired. */
export type SnapshotLockRow = {
  snapshot_id: SnapshotId;
  mode: 'compliance' | 'governance';
  cool_off_hours: number | null;
  /** When it was first locked; and when what is here was asked for, from which hours and days count. */
  created_at: string;
  set_at: string;
  duration_days: number;
  /** Where it ends at a time that was asked for, and not after so many days. */
  expires_at: string | null;
};

export type TieringOperation = 'archival' | 'permanent-restore' | 'temporary-restore';

/** A snapshot's last move to or from the archive, and what the archive has of it. */
export type SnapshotArchiveRow = {
  snapshot_id: SnapshotId;
  operation: TieringOperation;
  status: 'in-progress' | 'completed' | 'failed';
  detail: string;
  started_at: string;
  /** The manifest in the archive, while there is one. A snapshot that is there alone has no other. */
  root: Sha256 | null;
  archived_at: string | null;
  /** Of a temporary restore: for how many days, and when it ends, once it has begun. */
  restore_days: number | null;
  restored_until: string | null;
};

/** What is still to be removed from the archive. */
export type DeletedArchiveRow = { snapshot_id: SnapshotId };

/** A rule by which deleted snapshots go to the recycle bin. The three lists are JSON. */
export type RetentionRuleRow = {
  rule_id: string;
  account_id: AccountId;
  region: string;
  description: string;
  retention_days: number;
  /** Whose snapshots it keeps: those that have one of these; where there are none, all but those that have one of the others. */
  resource_tags: string;
  exclude_resource_tags: string;
  /** Of the rule itself. */
  tags: string;
  /** Of a rule that was locked: how long unlocking it takes, and when it is over, once it was asked for. */
  unlock_delay_days: number | null;
  unlocks_at: string | null;
};

export type ResourceType = 'image' | 'instance' | 'replace-root-volume-task' | 'snapshot' | 'volume';

/** How many snapshots an account has; triggers keep it true. */
export type SnapshotCountRow = { account_id: AccountId; number: number };

export type TagRow = {
  resource_id: string;
  resource_type: ResourceType;
  account_id: AccountId;
  region: string;
  tag_key: string;
  tag_value: string;
};

export type CatalogSchema = {
  access_keys: AccessKeyRow;
  users: UserRow;
  user_policies: UserPolicyRow;
  sessions: SessionRow;
  images: ImageRow;
  image_devices: ImageDeviceRow;
  instances: InstanceRow;
  volumes: VolumeRow;
  attachments: AttachmentRow;
  volume_modifications: VolumeModificationRow;
  snapshot_sets: SetRow;
  snapshots: SnapshotRow;
  snapshot_counts: SnapshotCountRow;
  replace_root_tasks: ReplaceRootTaskRow;
  direct_uploads: DirectUploadRow;
  direct_blocks: DirectBlockRow;
  data_keys: DataKeyRow;
  snapshot_copies: SnapshotCopyRow;
  account_settings: AccountSettingRow;
  retired_roots: RetiredRootRow;
  stale_records: StaleRecordRow;
  deleted_records: DeletedRecordRow;
  secrets: SecretRow;
  snapshot_permissions: SnapshotPermissionRow;
  snapshot_archives: SnapshotArchiveRow;
  deleted_archives: DeletedArchiveRow;
  snapshot_locks: SnapshotLockRow;
  retention_rules: RetentionRuleRow;
  tags: TagRow;
};
