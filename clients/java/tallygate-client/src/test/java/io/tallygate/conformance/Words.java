package io.tallygate.conformance;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import io.tallygate.CallCancelledException;
import io.tallygate.Charge;
import io.tallygate.Decision;
import io.tallygate.Durability;
import io.tallygate.EventContext;
import io.tallygate.Excess;
import io.tallygate.Item;
import io.tallygate.LimitStatus;
import io.tallygate.QuotaExceededException;
import io.tallygate.Recorded;
import io.tallygate.ReserveOptions;
import io.tallygate.Result;
import io.tallygate.Settlement;
import io.tallygate.SpoolException;
import io.tallygate.TallygateException;
import io.tallygate.Usage;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;

/** The words of the driver: what its requests mean to the client, and what its answers say. */
final class Words {
  static final Gson GSON = new Gson();

  private Words() {}

  /** The work under a reservation failed, as the case wants it to. */
  static final class WorkFailed extends Exception {
    private static final long serialVersionUID = 1L;
  }

  static boolean has(JsonObject asked, String name) {
    return asked.has(name) && !asked.get(name).isJsonNull();
  }

  static String text(JsonObject asked, String name) {
    return has(asked, name) ? asked.get(name).getAsString() : "";
  }

  static long number(JsonObject asked, String name, long otherwise) {
    return has(asked, name) ? asked.get(name).getAsLong() : otherwise;
  }

  static Duration millis(JsonObject asked, String name, long otherwise) {
    return Duration.ofMillis(number(asked, name, otherwise));
  }

  static List<Long> amounts(JsonObject asked, String name) {
    List<Long> amounts = new ArrayList<>();
    if (has(asked, name)) {
      asked.getAsJsonArray(name).forEach(each -> amounts.add(each.getAsLong()));
    }
    return amounts;
  }

  static Map<String, String> dimensions(JsonObject asked) {
    Map<String, String> dimensions = new LinkedHashMap<>();
    if (has(asked, "dimensions")) {
      asked
          .getAsJsonObject("dimensions")
          .entrySet()
          .forEach(each -> dimensions.put(each.getKey(), each.getValue().getAsString()));
    }
    return dimensions;
  }

  static Charge charge(JsonObject asked) {
    Charge.Builder charge =
        Charge.builder(text(asked, "tenant"))
            .operationId(text(asked, "operation_id"))
            .context(context(asked));
    if (has(asked, "items")) {
      for (JsonElement each : asked.getAsJsonArray("items")) {
        JsonObject item = each.getAsJsonObject();
        charge.item(
            new Item(text(item, "meter"), number(item, "amount", 0), dimensions(item)));
      }
    }
    if (has(asked, "min_durability")) {
      charge.minDurability(Durability.valueOf(text(asked, "min_durability")));
    }
    return charge.build();
  }

  static EventContext context(JsonObject asked) {
    JsonObject given = has(asked, "context") ? asked.getAsJsonObject("context") : new JsonObject();
    return EventContext.builder()
        .subjectId(text(given, "subject_id"))
        .resourceId(text(given, "resource_id"))
        .sessionId(text(given, "session_id"))
        .region(text(given, "region"))
        .sku(text(given, "sku"))
        .correlationId(text(given, "correlation_id"))
        .sdk(text(given, "sdk"))
        .build();
  }

  static Excess excess(JsonObject asked, Excess otherwise) {
    return has(asked, "excess") ? Excess.valueOf(text(asked, "excess").toUpperCase()) : otherwise;
  }

  static ReserveOptions options(JsonObject asked, boolean keepAlive) {
    ReserveOptions options =
        ReserveOptions.DEFAULT
            .withKeepAlive(keepAlive)
            .withExcess(excess(asked, keepAlive ? Excess.RECORD : Excess.ASK));
    return has(asked, "ttl_ms") ? options.withTtl(millis(asked, "ttl_ms", 0)) : options;
  }

  static Usage usage(JsonObject asked) {
    Usage.Builder usage =
        Usage.builder(text(asked, "tenant"), text(asked, "meter"), number(asked, "amount", 0))
            .eventId(text(asked, "event_id"))
            .operationId(text(asked, "operation_id"))
            .dimensions(dimensions(asked))
            .context(context(asked));
    if (has(asked, "event_time_ms")) {
      usage.eventTime(Instant.ofEpochMilli(number(asked, "event_time_ms", 0)));
    }
    if (has(asked, "metadata")) {
      @SuppressWarnings("unchecked")
      Map<String, ?> metadata = GSON.fromJson(asked.get("metadata"), Map.class);
      usage.metadata(metadata);
    }
    return usage.build();
  }

  static JsonObject decision(Decision decision) {
    JsonObject told = new JsonObject();
    told.addProperty("allowed", decision.allowed());
    told.addProperty("refused_by", decision.refusedBy().orElse(null));
    told.addProperty("retry_after_ms", decision.retryAfter().map(Duration::toMillis).orElse(null));
    told.addProperty("replayed", decision.replayed());
    told.addProperty("durability", decision.durability().name());
    told.add("event_ids", GSON.toJsonTree(decision.eventIds()));
    told.addProperty("degraded", decision.degraded());
    told.addProperty("local", decision.local());
    told.addProperty("operation_id", decision.operationId());
    told.add("limits", limits(decision.limits()));
    return told;
  }

  static JsonArray limits(List<LimitStatus> limits) {
    JsonArray told = new JsonArray();
    for (LimitStatus limit : limits) {
      JsonObject each = new JsonObject();
      each.addProperty("limit_id", limit.limitId());
      each.addProperty("meter", limit.meter());
      each.addProperty("state", limit.state().name());
      each.addProperty("used", limit.used());
      each.addProperty("limit", limit.limit());
      each.addProperty("remaining", limit.remaining());
      each.addProperty("unlimited", limit.unlimited());
      each.addProperty("scope", limit.scope());
      each.addProperty("tenant_id", limit.tenantId());
      told.add(each);
    }
    return told;
  }

  static JsonObject settlement(Settlement settlement) {
    JsonObject told = new JsonObject();
    told.addProperty("outcome", settlement.outcome().name());
    told.addProperty("replayed", settlement.replayed());
    told.add("unrecorded", GSON.toJsonTree(settlement.unrecorded()));
    told.add("event_ids", GSON.toJsonTree(settlement.eventIds()));
    told.addProperty("operation_id", settlement.operationId());
    return told;
  }

  static JsonObject recorded(Recorded recorded) {
    JsonObject told = new JsonObject();
    told.addProperty("event_id", recorded.eventId());
    told.addProperty("replayed", recorded.replayed());
    told.addProperty("durability", recorded.durability().name());
    told.addProperty("degraded", recorded.degraded());
    return told;
  }

  static <T> JsonObject results(List<Result<T>> results, Function<T, JsonObject> told) {
    JsonArray list = new JsonArray();
    for (Result<T> result : results) {
      Optional<JsonObject> value = result.value().map(told);
      list.add(
          value.isPresent()
              ? wrapped("ok", value.get())
              : wrapped("error", error(result.error().orElseThrow())));
    }
    return wrapped("results", list);
  }

  static JsonObject wrapped(String name, JsonElement value) {
    JsonObject told = new JsonObject();
    told.add(name, value);
    return told;
  }

  static JsonObject error(Throwable error) {
    JsonObject told = new JsonObject();
    told.addProperty("message", String.valueOf(error.getMessage()));
    told.addProperty("kind", kind(error));
    if (error instanceof TallygateException known) {
      told.addProperty("code", known.code().name());
      told.addProperty("reason", known.reason());
      told.addProperty("field", known.field());
      told.addProperty("operation_id", known.operationId());
      told.addProperty("retry_after_ms", known.retryAfter().map(Duration::toMillis).orElse(null));
    }
    if (error instanceof QuotaExceededException refused) {
      told.add("decision", decision(refused.decision()));
    }
    return told;
  }

  private static String kind(Throwable error) {
    if (error instanceof CallCancelledException) {
      return "Cancelled";
    }
    if (error instanceof SpoolException spool && spool.locked()) {
      return "SpoolInUse";
    }
    return error.getClass().getSimpleName().replaceAll("Exception$", "");
  }
}
