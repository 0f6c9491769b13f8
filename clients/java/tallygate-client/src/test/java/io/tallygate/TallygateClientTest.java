package io.tallygate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Context;
import io.grpc.Status;
import io.tallygate.v1.CheckAndConsumeRequest;
import io.tallygate.v1.CheckAndConsumeResponse;
import io.tallygate.v1.LimitState;
import io.tallygate.v1.RecordUsageRequest;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What the client does by itself; what it does with a real sidecar is the shared cases' part. */
class TallygateClientTest {
  private static final Charge CHARGE = Charge.of("acme", "requests", 1);
  private static final Duration LONG = Duration.ofSeconds(20);

  private FakeSidecar sidecar;

  @BeforeEach
  void start() throws IOException {
    sidecar = new FakeSidecar();
  }

  @AfterEach
  void stop() {
    sidecar.close();
  }

  private TallygateClientBuilder builder() {
    return TallygateClient.builder().target(sidecar.target()).timeout(LONG);
  }

  @Test
  void aRefusalIsTold() {
    sidecar.decision =
        CheckAndConsumeResponse.newBuilder()
            .setRefusedBy("ten")
            .setRetryAfter(Convert.duration(Duration.ofMillis(1_500)))
            .addLimits(
                io.tallygate.v1.LimitStatus.newBuilder()
                    .setLimitId("ten")
                    .setState(LimitState.LIMIT_STATE_EXCEEDED)
                    .setLimit(10)
                    .setScope("model=a"))
            .build();
    try (TallygateClient client = builder().build()) {
      Decision decision = client.checkAndConsume(CHARGE);
      assertFalse(decision.allowed());
      assertEquals("ten", decision.refusedBy().orElseThrow());
      assertEquals(Duration.ofMillis(1_500), decision.retryAfter().orElseThrow());
      assertEquals("model=a", decision.limits().get(0).scope());
      QuotaExceededException error =
          assertThrows(QuotaExceededException.class, decision::orThrow);
      assertEquals(decision, error.decision());
      assertEquals(decision.operationId(), error.operationId());
    }
  }

  @Test
  void aRetryKeepsTheOperationId() throws InterruptedException {
    sidecar.failures.add(Status.UNAVAILABLE);
    try (TallygateClient client = builder().build()) {
      Decision decision = client.checkAndConsume(CHARGE);
      CheckAndConsumeRequest asked = sidecar.next(CheckAndConsumeRequest.class);
      assertEquals(decision.operationId(), asked.getOperationId());
      assertEquals(TallygateClient.SDK, asked.getContext().getSdk());
      assertEquals(1, client.stats().retries());
    }
  }

  @Test
  void aFuturesCancellationEndsItsCall() throws InterruptedException {
    sidecar.hanging.add("CheckAndConsume");
    try (TallygateClient client = builder().onAbsent(OnAbsent.OPEN).build()) {
      CompletableFuture<Decision> future = client.checkAndConsumeAsync(CHARGE);
      CompletableFuture<Boolean> dependent = future.thenApply(Decision::allowed);
      dependent.cancel(true);
      assertTrue(sidecar.cancelled.await(LONG.toSeconds(), TimeUnit.SECONDS) || future.isDone());
      assertThrows(CancellationException.class, future::join);
      assertEquals(0, client.stats().localOpen());
    }
  }

  @Test
  void aCancelledContextIsTheCallersOwn() {
    sidecar.hanging.add("CheckAndConsume");
    ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
    try (TallygateClient client = builder().onAbsent(OnAbsent.OPEN).build();
        Context.CancellableContext context = Context.current().withCancellation()) {
      timer.schedule(() -> context.cancel(null), 50, TimeUnit.MILLISECONDS);
      assertThrows(
          CallCancelledException.class, () -> context.call(() -> client.checkAndConsume(CHARGE)));
      assertEquals(0, client.stats().localOpen());
    } finally {
      timer.shutdownNow();
    }
  }

  @Test
  void theCallersShorterDeadlineWins() {
    sidecar.hanging.add("CheckAndConsume");
    ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
    try (TallygateClient client = builder().build();
        Context.CancellableContext context =
            Context.current().withDeadlineAfter(100, TimeUnit.MILLISECONDS, timer)) {
      DeadlineExceededException error =
          assertThrows(
              DeadlineExceededException.class,
              () -> context.call(() -> client.checkAndConsume(CHARGE.named("mine"))));
      assertEquals("mine", error.operationId());
      assertEquals(Map.of("CheckAndConsume", 1L), client.stats().localClosedByMethod());
    } finally {
      timer.shutdownNow();
    }
  }

  @Test
  void anInterruptedThreadStaysInterrupted() {
    sidecar.hanging.add("CheckAndConsume");
    try (TallygateClient client = builder().build()) {
      Thread.currentThread().interrupt();
      assertThrows(CallCancelledException.class, () -> client.checkAndConsume(CHARGE));
      assertTrue(Thread.interrupted());
    }
  }

  @Test
  void hooksAreToldAndMayThrow() {
    List<String> told = new CopyOnWriteArrayList<>();
    Hooks hooks =
        new Hooks() {
          @Override
          public void onCall(String method, Status.Code code, Duration took) {
            told.add(method + " " + code);
            throw new IllegalStateException("a hook that is broken");
          }

          @Override
          public void onLocal(String method, OnAbsent policy) {
            told.add(method + " " + policy);
          }
        };
    try (TallygateClient client =
        builder().hooks(hooks).retry(false).onAbsent(OnAbsent.OPEN).build()) {
      client.checkAndConsume(CHARGE);
      sidecar.failures.add(Status.UNAVAILABLE);
      assertTrue(client.check(CHARGE).local());
    }
    assertEquals(List.of("CheckAndConsume OK", "Check UNAVAILABLE", "Check OPEN"), told);
  }

  @Test
  void anErrorOfAFutureIsTyped() {
    sidecar.failures.add(Status.NOT_FOUND.withDescription("no such meter"));
    try (TallygateClient client = builder().build()) {
      CompletionException error =
          assertThrows(
              CompletionException.class, () -> client.checkAndConsumeAsync(CHARGE).join());
      NotFoundException typed = assertInstanceOf(NotFoundException.class, error.getCause());
      assertEquals("no such meter", typed.getMessage());
      assertEquals(Status.Code.NOT_FOUND, typed.code());
      assertFalse(typed.operationId().isEmpty());
    }
  }

  @Test
  void aClosedClientSaysSo() {
    TallygateClient client = builder().buffer(BufferOptions.DEFAULT).build();
    TallygateClient view = client.withTimeout(LONG);
    assertTrue(client.close(LONG));
    assertTrue(client.close(LONG));
    assertThrows(ClosedException.class, () -> view.checkAndConsume(CHARGE));
    assertThrows(
        ClosedException.class, () -> view.buffer().record(Usage.of("acme", "requests", 1)));
    assertTrue(client.checkAndConsumeAsync(CHARGE).isCompletedExceptionally());
  }

  @Test
  void usageCarriesWhatItWasGiven() throws InterruptedException {
    try (TallygateClient client = builder().build()) {
      Map<String, Object> metadata =
          Map.of("list", List.of(1, "two", true), "map", Map.of("x", 0.5));
      client.recordUsage(
          Usage.builder("acme", "requests", 2)
              .dimensions(Map.of("model", "a"))
              .metadata(metadata)
              .build());
      RecordUsageRequest asked = sidecar.next(RecordUsageRequest.class);
      assertFalse(asked.getEventId().isEmpty());
      assertFalse(asked.hasEventTime());
      Usage back = Convert.usage(asked);
      assertEquals(Map.of("model", "a"), back.dimensions());
      assertEquals(List.of(1.0, "two", true), back.metadata().get("list"));
      assertThrows(
          IllegalArgumentException.class,
          () ->
              client.recordUsage(
                  Usage.builder("acme", "requests", 1)
                      .metadata(Map.of("id", Long.MAX_VALUE))
                      .build()));
    }
  }

  @Test
  void whatIsWrongIsToldAtOnce() {
    List<Runnable> wrong = new ArrayList<>();
    wrong.add(() -> builder().timeout(Duration.ZERO));
    wrong.add(() -> BufferOptions.DEFAULT.withBatch(501));
    wrong.add(
        () -> Tls.trusting(java.nio.file.Path.of("none")).withClientCertificate(null, null));
    for (Runnable each : wrong) {
      assertThrows(RuntimeException.class, each::run);
    }
    try (TallygateClient client = builder().build()) {
      assertThrows(IllegalStateException.class, client::buffer);
    }
  }
}
