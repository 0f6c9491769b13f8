/**
 * The generated messages and services, for those who want to call without this client.
 *
 * Guarantees nothing beyond the protos: no retry's id, no local policy, no typed errors.
 */

export { Durability, EventContext } from "./gen/tallygate/v1/event.js";
export { LimitState, LimitStatus } from "./gen/tallygate/v1/limit.js";
export * from "./gen/tallygate/v1/quota.js";
export { ItemError, Reason } from "./gen/tallygate/v1/reason.js";
export {
  BatchRecordUsageRequest,
  BatchRecordUsageResponse,
  BatchRecordUsageResult,
  RecordUsageRequest,
  RecordUsageResponse,
  StreamRecordUsageRequest,
  StreamRecordUsageResponse,
  UsageServiceClient,
  UsageServiceService,
} from "./gen/tallygate/v1/usage.js";
