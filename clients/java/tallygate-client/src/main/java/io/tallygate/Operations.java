package io.tallygate;

import io.tallygate.v1.BatchCheckAndConsumeRequest;
import io.tallygate.v1.BatchCheckAndConsumeResponse;
import io.tallygate.v1.BatchRecordUsageRequest;
import io.tallygate.v1.BatchRecordUsageResponse;
import io.tallygate.v1.CheckAndConsumeRequest;
import io.tallygate.v1.CheckAndConsumeResponse;
import io.tallygate.v1.CheckRequest;
import io.tallygate.v1.CheckResponse;
import io.tallygate.v1.CommitRequest;
import io.tallygate.v1.CommitResponse;
import io.tallygate.v1.ExtendReservationRequest;
import io.tallygate.v1.ExtendReservationResponse;
import io.tallygate.v1.GetQuotaRequest;
import io.tallygate.v1.GetQuotaResponse;
import io.tallygate.v1.QuotaServiceGrpc;
import io.tallygate.v1.RecordUsageRequest;
import io.tallygate.v1.RecordUsageResponse;
import io.tallygate.v1.RefundRequest;
import io.tallygate.v1.RefundResponse;
import io.tallygate.v1.ReleaseRequest;
import io.tallygate.v1.ReleaseResponse;
import io.tallygate.v1.ReserveRequest;
import io.tallygate.v1.ReserveResponse;
import io.tallygate.v1.UsageServiceGrpc;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;

/** Makes a logical call of each request, with its name and its context. */
final class Operations {
  private Operations() {}

  static Charge named(Charge charge) {
    return charge.operationId().isEmpty() ? charge.named(fresh()) : charge;
  }

  static String fresh() {
    return UUID.randomUUID().toString();
  }

  /** Returns usage that has its event's id. */
  static Usage named(Usage usage) {
    if (!usage.eventId().isEmpty()) {
      return usage;
    }
    return new Usage(
        usage.tenantId(),
        usage.meter(),
        usage.amount(),
        // What the service makes of an operation's id is the same at each retry.
        usage.operationId().isEmpty() ? fresh() : "",
        usage.operationId(),
        usage.eventTime(),
        usage.dimensions(),
        usage.context(),
        usage.metadata(),
        usage.minDurability());
  }

  static CheckAndConsumeRequest request(Charge charge) {
    return CheckAndConsumeRequest.newBuilder()
        .setTenantId(charge.tenantId())
        .addAllItems(Convert.items(charge.items()))
        .setOperationId(charge.operationId())
        .setContext(Convert.context(charge.context()))
        .setMinDurability(Convert.durability(charge.minDurability()))
        .build();
  }

  static Op<CheckAndConsumeRequest, CheckAndConsumeResponse, Decision> consume(Charge charge) {
    return Op.of(
        QuotaServiceGrpc.getCheckAndConsumeMethod(),
        request(charge),
        charge.operationId(),
        reply -> Convert.decision(reply, charge.operationId()));
  }

  static Op<CheckRequest, CheckResponse, Decision> check(Charge charge) {
    CheckRequest request =
        CheckRequest.newBuilder()
            .setTenantId(charge.tenantId())
            .addAllItems(Convert.items(charge.items()))
            .setContext(Convert.context(charge.context()))
            .build();
    return Op.of(
        QuotaServiceGrpc.getCheckMethod(),
        request,
        charge.operationId(),
        reply -> Convert.decision(reply, charge.operationId()));
  }

  static Op<BatchCheckAndConsumeRequest, BatchCheckAndConsumeResponse, List<Result<Decision>>>
      batch(List<Charge> charges) {
    BatchCheckAndConsumeRequest.Builder request = BatchCheckAndConsumeRequest.newBuilder();
    charges.forEach(charge -> request.addRequests(request(charge)));
    return Op.of(
        QuotaServiceGrpc.getBatchCheckAndConsumeMethod(),
        request.build(),
        "",
        reply -> {
          List<Result<Decision>> results = new ArrayList<>();
          for (int index = 0; index < reply.getResultsCount(); index++) {
            String operationId = charges.get(index).operationId();
            var result = reply.getResults(index);
            results.add(
                result.hasError()
                    ? Result.failed(Errors.of(result.getError(), operationId))
                    : Result.of(Convert.decision(result.getResponse(), operationId)));
          }
          return List.copyOf(results);
        });
  }

  static Op<GetQuotaRequest, GetQuotaResponse, Quota> quota(
      String tenantId, List<String> meters, Map<String, String> dimensions) {
    GetQuotaRequest request =
        GetQuotaRequest.newBuilder()
            .setTenantId(tenantId)
            .addAllMeters(meters)
            .putAllDimensions(dimensions)
            .build();
    return Op.of(QuotaServiceGrpc.getGetQuotaMethod(), request, "", Convert::quota);
  }

  static Op<ReserveRequest, ReserveResponse, ReserveResponse> reserve(
      Charge charge, Optional<Duration> ttl) {
    ReserveRequest.Builder request =
        ReserveRequest.newBuilder()
            .setTenantId(charge.tenantId())
            .addAllItems(Convert.items(charge.items()))
            .setOperationId(charge.operationId())
            .setContext(Convert.context(charge.context()));
    ttl.ifPresent(value -> request.setTtl(Convert.duration(value)));
    return Op.of(
        QuotaServiceGrpc.getReserveMethod(), request.build(), charge.operationId(), reply -> reply);
  }

  static Op<CommitRequest, CommitResponse, Settlement> commit(CommitRequest request) {
    return Op.of(
        QuotaServiceGrpc.getCommitMethod(),
        request,
        request.getOperationId(),
        reply -> Convert.settlement(reply, request.getOperationId()));
  }

  static CommitRequest commitRequest(
      String tenantId,
      String reservationId,
      List<Long> amounts,
      Excess excess,
      String operationId) {
    return CommitRequest.newBuilder()
        .setTenantId(tenantId)
        .setReservationId(reservationId)
        .addAllAmounts(amounts)
        .setExcess(Convert.excess(excess))
        .setOperationId(operationId.isEmpty() ? settling(reservationId, 'c') : operationId)
        .build();
  }

  static Op<ReleaseRequest, ReleaseResponse, Released> release(
      String tenantId, String reservationId, String operationId) {
    String named = operationId.isEmpty() ? settling(reservationId, 'r') : operationId;
    ReleaseRequest request =
        ReleaseRequest.newBuilder()
            .setTenantId(tenantId)
            .setReservationId(reservationId)
            .setOperationId(named)
            .build();
    return Op.of(
        QuotaServiceGrpc.getReleaseMethod(),
        request,
        named,
        reply -> new Released(Convert.outcome(reply.getOutcome()), reply.getReplayed(), named));
  }

  static Op<ExtendReservationRequest, ExtendReservationResponse, Extended> extend(
      String tenantId, String reservationId, Duration ttl) {
    ExtendReservationRequest request =
        ExtendReservationRequest.newBuilder()
            .setTenantId(tenantId)
            .setReservationId(reservationId)
            .setTtl(Convert.duration(ttl))
            .build();
    return Op.of(
        QuotaServiceGrpc.getExtendReservationMethod(),
        request,
        "",
        reply ->
            new Extended(
                Convert.outcome(reply.getOutcome()),
                reply.hasExpiresAt()
                    ? Optional.of(Convert.instant(reply.getExpiresAt()))
                    : Optional.empty()));
  }

  static Op<RefundRequest, RefundResponse, Refunded> refund(
      String tenantId, String eventId, long amount, String operationId, String reason) {
    String named = operationId.isEmpty() ? fresh() : operationId;
    RefundRequest request =
        RefundRequest.newBuilder()
            .setTenantId(tenantId)
            .setEventId(eventId)
            .setAmount(amount)
            .setOperationId(named)
            .setReason(reason)
            .build();
    return Op.of(
        QuotaServiceGrpc.getRefundMethod(),
        request,
        named,
        reply -> Convert.refunded(reply, named));
  }

  static Op<RecordUsageRequest, RecordUsageResponse, Recorded> record(Usage usage) {
    Usage named = named(usage);
    String operationId = named.operationId().isEmpty() ? named.eventId() : named.operationId();
    return Op.of(
        UsageServiceGrpc.getRecordUsageMethod(),
        Convert.usage(named),
        operationId,
        Convert::recorded);
  }

  static List<RecordUsageRequest> requests(List<Usage> usage) {
    return usage.stream().map(each -> Convert.usage(named(each))).toList();
  }

  static Op<BatchRecordUsageRequest, BatchRecordUsageResponse, BatchRecordUsageResponse> record(
      List<RecordUsageRequest> events) {
    return Op.of(
        UsageServiceGrpc.getBatchRecordUsageMethod(),
        BatchRecordUsageRequest.newBuilder().addAllRequests(events).build(),
        "",
        reply -> reply);
  }

  static List<Result<Recorded>> recorded(
      List<RecordUsageRequest> events, BatchRecordUsageResponse reply) {
    List<Result<Recorded>> results = new ArrayList<>();
    for (int index = 0; index < reply.getResultsCount(); index++) {
      var result = reply.getResults(index);
      results.add(
          result.hasError()
              ? Result.failed(Errors.of(result.getError(), events.get(index).getEventId()))
              : Result.of(Convert.recorded(result.getResponse())));
    }
    return List.copyOf(results);
  }

  /** Returns the id that the service itself gives to what settles a reservation. */
  static String settling(String reservationId, char how) {
    int from = Math.max(0, reservationId.length() - 126);
    return reservationId.substring(from) + "#" + how;
  }
}
