package io.tallygate;

import com.google.protobuf.Timestamp;
import io.tallygate.v1.CheckAndConsumeResponse;
import io.tallygate.v1.CheckResponse;
import io.tallygate.v1.CommitResponse;
import io.tallygate.v1.GetQuotaResponse;
import io.tallygate.v1.RecordUsageRequest;
import io.tallygate.v1.RecordUsageResponse;
import io.tallygate.v1.RefundResponse;
import io.tallygate.v1.ReservationOutcome;
import io.tallygate.v1.ReserveResponse;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Optional;

/** Turns messages into records, and records into messages. */
final class Convert {
  private static final int NANOS_PER_MICRO = 1_000;

  private Convert() {}

  static Duration duration(com.google.protobuf.Duration message) {
    return Duration.ofSeconds(message.getSeconds(), message.getNanos());
  }

  static com.google.protobuf.Duration duration(Duration value) {
    return com.google.protobuf.Duration.newBuilder()
        .setSeconds(value.getSeconds())
        .setNanos(value.getNano())
        .build();
  }

  static Instant instant(Timestamp message) {
    return Instant.ofEpochSecond(message.getSeconds(), message.getNanos());
  }

  /** Returns a time to the microsecond: the service knows none finer. */
  static Timestamp timestamp(Instant value) {
    int micros = value.getNano() / NANOS_PER_MICRO;
    return Timestamp.newBuilder()
        .setSeconds(value.getEpochSecond())
        .setNanos(micros * NANOS_PER_MICRO)
        .build();
  }

  static io.tallygate.v1.EventContext context(EventContext context) {
    return io.tallygate.v1.EventContext.newBuilder()
        .setSubjectId(context.subjectId())
        .setResourceId(context.resourceId())
        .setSessionId(context.sessionId())
        .setRegion(context.region())
        .setSku(context.sku())
        .setCorrelationId(context.correlationId())
        .setSdk(context.sdk().isEmpty() ? Version.SDK : context.sdk())
        .build();
  }

  static List<io.tallygate.v1.Item> items(List<Item> items) {
    return items.stream()
        .map(
            item ->
                io.tallygate.v1.Item.newBuilder()
                    .setMeter(item.meter())
                    .setAmount(item.amount())
                    .putAllDimensions(item.dimensions())
                    .build())
        .toList();
  }

  static io.tallygate.v1.Durability durability(Durability value) {
    return io.tallygate.v1.Durability.forNumber(value.ordinal());
  }

  private static Durability durability(io.tallygate.v1.Durability message) {
    return switch (message) {
      case DURABILITY_BUFFERED -> Durability.BUFFERED;
      case DURABILITY_REDIS -> Durability.REDIS;
      case DURABILITY_JOURNAL -> Durability.JOURNAL;
      case DURABILITY_POSTGRES -> Durability.POSTGRES;
      default -> Durability.UNSPECIFIED;
    };
  }

  static io.tallygate.v1.Excess excess(Excess value) {
    return value == Excess.RECORD
        ? io.tallygate.v1.Excess.EXCESS_RECORD
        : io.tallygate.v1.Excess.EXCESS_ASK;
  }

  static Outcome outcome(ReservationOutcome message) {
    return switch (message) {
      case RESERVATION_OUTCOME_COMMITTED -> Outcome.COMMITTED;
      case RESERVATION_OUTCOME_COMMITTED_PARTIALLY -> Outcome.COMMITTED_PARTIALLY;
      case RESERVATION_OUTCOME_RELEASED -> Outcome.RELEASED;
      case RESERVATION_OUTCOME_EXTENDED -> Outcome.EXTENDED;
      case RESERVATION_OUTCOME_ALREADY_COMMITTED -> Outcome.ALREADY_COMMITTED;
      case RESERVATION_OUTCOME_ALREADY_RELEASED -> Outcome.ALREADY_RELEASED;
      case RESERVATION_OUTCOME_EXPIRED -> Outcome.EXPIRED;
      default -> Outcome.UNSPECIFIED;
    };
  }

  static List<LimitStatus> limits(List<io.tallygate.v1.LimitStatus> messages) {
    return messages.stream().map(Convert::limit).toList();
  }

  private static LimitStatus limit(io.tallygate.v1.LimitStatus message) {
    return new LimitStatus(
        message.getLimitId(),
        message.getMeter(),
        state(message.getState()),
        message.getUsed(),
        message.getLimit(),
        message.getRemaining(),
        message.hasResetsAt() ? Optional.of(instant(message.getResetsAt())) : Optional.empty(),
        message.getTenantId(),
        message.getScope(),
        message.getUnlimited());
  }

  private static LimitState state(io.tallygate.v1.LimitState message) {
    return switch (message) {
      case LIMIT_STATE_OK -> LimitState.OK;
      case LIMIT_STATE_WARNING -> LimitState.WARNING;
      case LIMIT_STATE_EXCEEDED -> LimitState.EXCEEDED;
      case LIMIT_STATE_SHADOW_EXCEEDED -> LimitState.SHADOW_EXCEEDED;
      default -> LimitState.UNSPECIFIED;
    };
  }

  static Decision decision(CheckAndConsumeResponse message, String operationId) {
    return new Decision(
        message.getAllowed(),
        limits(message.getLimitsList()),
        text(message.getRefusedBy()),
        message.hasRetryAfter()
            ? Optional.of(duration(message.getRetryAfter()))
            : Optional.empty(),
        message.getReplayed(),
        durability(message.getDurability()),
        message.getEventIdsList(),
        message.getDegraded(),
        false,
        operationId);
  }

  static Decision decision(CheckResponse message, String operationId) {
    CheckAndConsumeResponse.Builder same =
        CheckAndConsumeResponse.newBuilder()
            .setAllowed(message.getAllowed())
            .addAllLimits(message.getLimitsList())
            .setRefusedBy(message.getRefusedBy());
    if (message.hasRetryAfter()) {
      same.setRetryAfter(message.getRetryAfter());
    }
    return decision(same.build(), operationId);
  }

  static Decision decision(ReserveResponse message, String operationId) {
    CheckAndConsumeResponse.Builder same =
        CheckAndConsumeResponse.newBuilder()
            .setAllowed(message.getAllowed())
            .addAllLimits(message.getLimitsList())
            .setRefusedBy(message.getRefusedBy())
            .setReplayed(message.getReplayed());
    if (message.hasRetryAfter()) {
      same.setRetryAfter(message.getRetryAfter());
    }
    return decision(same.build(), operationId);
  }

  static Quota quota(GetQuotaResponse message) {
    return new Quota(
        limits(message.getLimitsList()), message.getPlan(), message.getCatalogVersion());
  }

  static Settlement settlement(CommitResponse message, String operationId) {
    return new Settlement(
        outcome(message.getOutcome()),
        limits(message.getLimitsList()),
        text(message.getRefusedBy()),
        message.getUnrecordedList(),
        message.getReplayed(),
        durability(message.getDurability()),
        message.getEventIdsList(),
        operationId);
  }

  static Refunded refunded(RefundResponse message, String operationId) {
    return new Refunded(
        message.getEventId(),
        message.getAmount(),
        message.getReplayed(),
        durability(message.getDurability()),
        limits(message.getLimitsList()),
        operationId);
  }

  static Recorded recorded(RecordUsageResponse message) {
    return new Recorded(
        message.getEventId(),
        message.getReplayed(),
        durability(message.getDurability()),
        message.getDegraded());
  }

  /** Returns the message of usage that has its event's id. */
  static RecordUsageRequest usage(Usage usage) {
    RecordUsageRequest.Builder message =
        RecordUsageRequest.newBuilder()
            .setTenantId(usage.tenantId())
            .setMeter(usage.meter())
            .setAmount(usage.amount())
            .setEventId(usage.eventId())
            .setOperationId(usage.operationId())
            .putAllDimensions(usage.dimensions())
            .setContext(context(usage.context()))
            .setMinDurability(durability(usage.minDurability()));
    usage.eventTime().ifPresent(time -> message.setEventTime(timestamp(time)));
    if (!usage.metadata().isEmpty()) {
      message.setMetadata(Structs.struct(usage.metadata()));
    }
    return message.build();
  }

  static Usage usage(RecordUsageRequest message) {
    io.tallygate.v1.EventContext context = message.getContext();
    return new Usage(
        message.getTenantId(),
        message.getMeter(),
        message.getAmount(),
        message.getEventId(),
        message.getOperationId(),
        message.hasEventTime() ? Optional.of(instant(message.getEventTime())) : Optional.empty(),
        message.getDimensionsMap(),
        new EventContext(
            context.getSubjectId(),
            context.getResourceId(),
            context.getSessionId(),
            context.getRegion(),
            context.getSku(),
            context.getCorrelationId(),
            context.getSdk()),
        Structs.map(message.getMetadata()),
        durability(message.getMinDurability()));
  }

  private static Optional<String> text(String value) {
    return value.isEmpty() ? Optional.empty() : Optional.of(value);
  }
}
