import { errors } from '../errors.ts';

/** `/dev/sdf`, `/dev/xvda`, `xvdf`, `/dev/sda1` … @throws ApiError MissingParameter, InvalidParameterValue */
export function checkDeviceName(device: string | undefined): string {
  if (device === undefined) throw errors.missing('Device');
  if (!/^(\/dev\/)?(sd|xvd|hd|nvme)[a-z0-9]{1,8}$/.test(device)) throw errors.invalidDevice(device);
  return device;
}
