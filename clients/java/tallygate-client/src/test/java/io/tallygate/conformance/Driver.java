package io.tallygate.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.tallygate.BufferOptions;
import io.tallygate.Charge;
import io.tallygate.Extended;
import io.tallygate.OnAbsent;
import io.tallygate.Quota;
import io.tallygate.Refunded;
import io.tallygate.Released;
import io.tallygate.Reservation;
import io.tallygate.Settlement;
import io.tallygate.Stats;
import io.tallygate.TallygateClient;
import io.tallygate.TallygateClientBuilder;
import io.tallygate.Tls;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/** Drives the client through the cases that all languages share: a JSON object in, one out. */
public final class Driver {
  private final Map<String, TallygateClient> clients = new ConcurrentHashMap<>();
  private final Map<String, String> targets = new ConcurrentHashMap<>();
  private final Map<String, Reservation> held = new ConcurrentHashMap<>();

  private Driver() {}

  /** Answers line by line until told to end. */
  public static void main(String[] arguments) throws IOException {
    BufferedReader lines =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream out =
        new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);
    Driver driver = new Driver();
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      JsonObject asked = JsonParser.parseString(line).getAsJsonObject();
      if (Words.text(asked, "do").equals("bye")) {
        // As a process that ends: nothing is closed.
        Runtime.getRuntime().halt(0);
      }
      JsonObject answer = driver.answer(asked);
      answer.add("id", asked.get("id"));
      out.print(answer + "\n");
      out.flush();
    }
  }

  private JsonObject answer(JsonObject asked) {
    try {
      return Words.wrapped("ok", act(asked));
    } catch (Exception error) {
      return Words.wrapped("error", Words.error(error));
    }
  }

  private JsonObject act(JsonObject asked) throws Exception {
    String what = Words.text(asked, "do");
    switch (what) {
      case "hello":
        return hello();
      case "open":
        return open(asked);
      case "close":
        boolean flushed = clients.get(Words.text(asked, "client")).close(
            Words.millis(asked, "timeout_ms", 5_000));
        return flag("flushed", flushed);
      case "parallel":
        return parallel(asked);
      case "cancel_call":
        return cancelled(asked);
      case "bench":
        String name = Words.text(asked, "client");
        return new Bench(clients.get(name), targets.get(name), asked).run();
      default:
        return call(what, client(asked), asked);
    }
  }

  private JsonObject call(String what, TallygateClient client, JsonObject asked)
      throws Exception {
    return switch (what) {
      case "check_and_consume" -> Words.decision(client.checkAndConsume(Words.charge(asked)));
      case "check" -> Words.decision(client.check(Words.charge(asked)));
      case "get_quota" -> quota(client, asked);
      case "batch_check_and_consume" -> Words.results(
          client.batchCheckAndConsume(charges(asked)), Words::decision);
      case "reserve" -> reserve(client, asked);
      case "commit" -> Words.settlement(commit(client, asked));
      case "release" -> release(client, asked);
      case "extend" -> extend(client, asked);
      case "with_reserve" -> withReserve(client, asked);
      case "refund" -> refund(client, asked);
      case "record" -> Words.recorded(client.recordUsage(Words.usage(asked)));
      case "batch_record" -> Words.results(
          client.batchRecordUsage(
              requests(asked).stream().map(Words::usage).toList()),
          Words::recorded);
      case "buffer_record" -> {
        JsonObject told = new JsonObject();
        told.addProperty("event_id", client.buffer().record(Words.usage(asked)));
        yield told;
      }
      case "flush" -> flag(
          "flushed", client.buffer().flush(Words.millis(asked, "timeout_ms", 5_000)));
      case "stats" -> stats(client.stats());
      default -> throw new IllegalArgumentException("nothing is called " + what);
    };
  }

  private static JsonObject hello() throws IOException {
    // Deadlines of a second are for a program that has loaded its classes.
    Warmup.run();
    JsonObject told = new JsonObject();
    told.addProperty("language", "java");
    told.addProperty("sdk", TallygateClient.SDK);
    return told;
  }

  private JsonObject open(JsonObject asked) {
    String name = Words.text(asked, "client");
    String target = Words.text(asked, "target");
    TallygateClientBuilder builder = TallygateClient.builder().target(target);
    builder.retry(!Words.has(asked, "retry") || asked.get("retry").getAsBoolean());
    if (Words.has(asked, "on_absent")) {
      builder.onAbsent(OnAbsent.valueOf(Words.text(asked, "on_absent").toUpperCase()));
    }
    if (Words.has(asked, "timeout_ms")) {
      builder.timeout(Words.millis(asked, "timeout_ms", 0));
    }
    if (Words.has(asked, "tls")) {
      JsonObject files = asked.getAsJsonObject("tls");
      Tls tls = Tls.trusting(Path.of(Words.text(files, "ca_file")));
      if (Words.has(files, "cert_file")) {
        tls =
            tls.withClientCertificate(
                Path.of(Words.text(files, "cert_file")), Path.of(Words.text(files, "key_file")));
      }
      builder.tls(tls);
    }
    if (Words.has(asked, "buffer")) {
      builder.buffer(buffer(asked.getAsJsonObject("buffer")));
    }
    clients.put(name, builder.build());
    targets.put(name, target);
    return new JsonObject();
  }

  private static BufferOptions buffer(JsonObject asked) {
    BufferOptions options = BufferOptions.DEFAULT;
    if (Words.has(asked, "max_events")) {
      options = options.withMaxEvents((int) Words.number(asked, "max_events", 0));
    }
    if (Words.has(asked, "batch")) {
      options = options.withBatch((int) Words.number(asked, "batch", 0));
    }
    if (Words.has(asked, "flush_ms")) {
      options = options.withFlushEvery(Words.millis(asked, "flush_ms", 0));
    }
    return Words.has(asked, "spool_dir")
        ? options.withSpool(Path.of(Words.text(asked, "spool_dir")))
        : options;
  }

  private TallygateClient client(JsonObject asked) {
    TallygateClient client = clients.get(Words.text(asked, "client"));
    return Words.has(asked, "timeout_ms") && !Words.text(asked, "do").equals("flush")
        ? client.withTimeout(Words.millis(asked, "timeout_ms", 0))
        : client;
  }

  private static List<JsonObject> requests(JsonObject asked) {
    List<JsonObject> requests = new ArrayList<>();
    asked.getAsJsonArray("requests").forEach(each -> requests.add(each.getAsJsonObject()));
    return requests;
  }

  private static List<Charge> charges(JsonObject asked) {
    return requests(asked).stream().map(Words::charge).toList();
  }

  private static JsonObject quota(TallygateClient client, JsonObject asked) {
    List<String> meters = new ArrayList<>();
    if (Words.has(asked, "meters")) {
      asked.getAsJsonArray("meters").forEach(each -> meters.add(each.getAsString()));
    }
    Quota quota =
        client.getQuota(Words.text(asked, "tenant"), meters, Words.dimensions(asked));
    JsonObject told = Words.wrapped("limits", Words.limits(quota.limits()));
    told.addProperty("plan", quota.plan());
    told.addProperty("catalog_version", quota.catalogVersion());
    return told;
  }

  private JsonObject reserve(TallygateClient client, JsonObject asked) {
    Reservation reservation =
        client.tryReserve(Words.charge(asked), Words.options(asked, false));
    if (Words.has(asked, "as")) {
      held.put(Words.text(asked, "as"), reservation);
    }
    JsonObject told = Words.decision(reservation.decision());
    told.addProperty("reservation_id", reservation.reservationId());
    return told;
  }

  private Settlement commit(TallygateClient client, JsonObject asked) {
    List<Long> amounts = Words.amounts(asked, "amounts");
    String operationId = Words.text(asked, "operation_id");
    if (!Words.has(asked, "handle")) {
      return client.commit(
          Words.text(asked, "tenant"),
          Words.text(asked, "reservation_id"),
          amounts,
          Words.excess(asked, io.tallygate.Excess.ASK),
          operationId);
    }
    Reservation reservation = held.get(Words.text(asked, "handle"));
    if (Words.has(asked, "excess") || !reservation.unsettled()) {
      return client.commit(
          Words.text(asked, "tenant"),
          reservation.reservationId(),
          amounts,
          Words.excess(asked, io.tallygate.Excess.ASK),
          operationId);
    }
    if (!amounts.isEmpty()) {
      reservation.actual(amounts.stream().mapToLong(Long::longValue).toArray());
    }
    return reservation.commit(operationId);
  }

  private JsonObject release(TallygateClient client, JsonObject asked) {
    Reservation reservation = held.get(Words.text(asked, "handle"));
    Released released =
        reservation != null && reservation.unsettled()
            ? reservation.release()
            : client.release(
                Words.text(asked, "tenant"),
                reservation == null
                    ? Words.text(asked, "reservation_id")
                    : reservation.reservationId(),
                Words.text(asked, "operation_id"));
    JsonObject told = new JsonObject();
    told.addProperty("outcome", released.outcome().name());
    told.addProperty("replayed", released.replayed());
    told.addProperty("operation_id", released.operationId());
    return told;
  }

  private JsonObject extend(TallygateClient client, JsonObject asked) {
    Reservation reservation = held.get(Words.text(asked, "handle"));
    Duration ttl = Words.millis(asked, "ttl_ms", 60_000);
    Extended extended =
        reservation != null
            ? reservation.extend(ttl)
            : client.extendReservation(
                Words.text(asked, "tenant"), Words.text(asked, "reservation_id"), ttl);
    JsonObject told = new JsonObject();
    told.addProperty("outcome", extended.outcome().name());
    return told;
  }

  private static JsonObject withReserve(TallygateClient client, JsonObject asked)
      throws Words.WorkFailed {
    List<Long> actual = Words.amounts(asked, "actual");
    Reservation under =
        client.<Reservation, Words.WorkFailed>withReservation(
            Words.charge(asked),
            Words.options(asked, true),
            reservation -> {
              pause(Words.number(asked, "hold_ms", 0));
              if (!actual.isEmpty()) {
                reservation.actual(actual.stream().mapToLong(Long::longValue).toArray());
              }
              if (Words.text(asked, "work").equals("fail")) {
                throw new Words.WorkFailed();
              }
              return reservation;
            });
    return Words.settlement(under.settlement().orElseThrow());
  }

  /** Does nothing for so long, as work under a reservation does. */
  private static void pause(long millis) {
    try {
      Thread.sleep(millis);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private static JsonObject refund(TallygateClient client, JsonObject asked) {
    Refunded refunded =
        client.refund(
            Words.text(asked, "tenant"),
            Words.text(asked, "event_id"),
            Words.number(asked, "amount", 0),
            Words.text(asked, "operation_id"),
            "");
    JsonObject told = new JsonObject();
    told.addProperty("event_id", refunded.eventId());
    told.addProperty("amount", refunded.amount());
    told.addProperty("replayed", refunded.replayed());
    told.addProperty("operation_id", refunded.operationId());
    return told;
  }

  private static JsonObject stats(Stats stats) {
    JsonObject told = new JsonObject();
    told.addProperty("calls", stats.calls());
    told.addProperty("errors", stats.errors());
    told.addProperty("local_open", stats.localOpen());
    told.addProperty("local_closed", stats.localClosed());
    told.addProperty("recorded", stats.recorded());
    told.addProperty("sent", stats.sent());
    told.addProperty("replayed", stats.replayed());
    told.addProperty("rejected", stats.rejected());
    told.addProperty("refused_full", stats.refusedFull());
    told.addProperty("retries", stats.retries());
    told.addProperty("pending", stats.pending());
    told.addProperty("spool_bytes", stats.spoolBytes());
    told.addProperty("spool_torn", stats.spoolTorn());
    return told;
  }

  private JsonObject parallel(JsonObject asked) throws Exception {
    int count = (int) Words.number(asked, "n", 1);
    JsonObject call = inner(asked);
    ExecutorService threads = Executors.newFixedThreadPool(count);
    try {
      Callable<JsonObject> one = () -> answer(call);
      JsonArray results = new JsonArray();
      for (Future<JsonObject> each :
          threads.invokeAll(java.util.Collections.nCopies(count, one))) {
        results.add(each.get());
      }
      return Words.wrapped("results", results);
    } finally {
      threads.shutdown();
    }
  }

  /** Interrupts the thread that makes the call, as an app's executor would. */
  private JsonObject cancelled(JsonObject asked) throws Exception {
    JsonObject call = inner(asked);
    Thread caller = Thread.currentThread();
    ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
    try {
      timer.schedule(
          caller::interrupt, Words.number(asked, "after_ms", 0), TimeUnit.MILLISECONDS);
      return act(call);
    } finally {
      timer.shutdownNow();
      // The call has ended by it, and nothing else is to.
      Thread.interrupted();
    }
  }

  private static JsonObject inner(JsonObject asked) {
    JsonObject call = asked.getAsJsonObject("call").deepCopy();
    if (!call.has("client")) {
      call.add("client", asked.get("client"));
    }
    return call;
  }

  private static JsonObject flag(String name, boolean value) {
    JsonObject told = new JsonObject();
    told.addProperty(name, value);
    return told;
  }
}
