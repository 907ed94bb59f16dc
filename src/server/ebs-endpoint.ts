import * as sdk from '@aws-sdk/client-ebs';
import { BlockUploads } from '../api/ebs/block-uploads.ts';
import { ebsErrors } from '../api/ebs/ebs-errors.ts';
import { type EbsMeans, type EbsOperation, readAfterHolds } from '../api/ebs/ebs-operation.ts';
import { getSnapshotBlock } from '../api/ebs/get-block.ts';
import { listChangedBlocks, listSnapshotBlocks } from '../api/ebs/list-blocks.ts';
import { Manifests } from '../api/ebs/manifests.ts';
import type { Tokens } from '../api/ebs/tokens.ts';
import { completeSnapshot, putSnapshotBlock, startSnapshot } from '../api/ebs/write-snapshot.ts';
import { Call, type Caller, type Services } from '../api/operation.ts';
import { ConcurrencyLimit } from '../types/concurrency-limit.ts';
import type { ApiError } from '../wire/api-error.ts';
import type { HttpAnswer, HttpRequest } from '../wire/http-server.ts';
import { decodeRest, encodeRest, matchRoute, namedRoute, restOperations } from '../wire/rest-json.ts';
import { jsonError } from './json-errors.ts';

// biome-ignore lint/suspicious/noExplicitAny: the table of all operations holds inputs of every type.
type AnyEbsOperation = EbsOperation<any, object>;

/** So many can go to the disk together; all else about them is done one after the other, on one thread. */
const BLOCKS_AT_ONCE = 16;

/** All six. */
export const EBS_OPERATIONS: Readonly<Record<string, AnyEbsOperation>> = {
  CompleteSnapshot: completeSnapshot,
  GetSnapshotBlock: getSnapshotBlock,
  ListChangedBlocks: listChangedBlocks,
  ListSnapshotBlocks: listSnapshotBlocks,
  PutSnapshotBlock: putSnapshotBlock,
  StartSnapshot: startSnapshot,
};

/** The EBS direct APIs: REST and JSON. */
export class EbsEndpoint {
  readonly #services: Services;
  readonly #means: EbsMeans;
  readonly #model = restOperations(sdk);

  constructor(services: Services, tokens: Tokens) {
    this.#services = services;
    const reader = readAfterHolds(services.store, services.dataPlane);
    this.#means = {
      tokens,
      manifests: new Manifests(services, reader),
      reader,
      blockUploads: new BlockUploads(services),
      blocksAtOnce: new ConcurrencyLimit(BLOCKS_AT_ONCE),
    };
  }

  async answer(request: HttpRequest, caller: Caller, requestId: string): Promise<HttpAnswer> {
    const route = matchRoute(this.#model, request.method, request.path);
    if (route === undefined) throw ebsErrors.notBuilt(request.path);
    const input = decodeRest(route.operation, request, route.labels);
    const call = new Call(this.#services, caller, { requestId, action: `ebs:${route.operation.name}`, dryRun: false });
    const output = await EBS_OPERATIONS[route.operation.name](input, call, this.#means);
    call.assertPermitted();
    return encodeRest(route.operation, output as Record<string, unknown>);
  }

  routeOf(request: HttpRequest): ReturnType<typeof namedRoute> {
    return namedRoute(this.#model, request);
  }

  error(error: ApiError, requestId: string): HttpAnswer {
    return jsonError(error, requestId);
  }
}
