import type { StagingBounds } from './copy-before-write.ts';
import type { Disk } from './disk.ts';

/** What an open volume needs from outside. */
export type VolumeEnvironment = StagingBounds & {
  disk: Disk;
  /** The machine's boot; another id than last time means that the page cache was lost. */
  bootId: string;
  /** The disk has refused a sync of it since the process began: it is opened as after a power loss. */
  isSuspect: boolean;
  /** Called once when the disk has refused a sync, and the volume therefore every request from then on. */
  onFault: (reason: string) => void;
};
