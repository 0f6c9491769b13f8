package io.tallygate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status;
import io.tallygate.v1.BatchRecordUsageRequest;
import io.tallygate.v1.CommitRequest;
import io.tallygate.v1.ItemError;
import io.tallygate.v1.Reason;
import io.tallygate.v1.RecordUsageRequest;
import io.tallygate.v1.ReservationOutcome;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What the buffer has taken is sent, kept or told of: never dropped silently. */
class UsageBufferTest {
  private static final Duration LONG = Duration.ofSeconds(20);
  private static final Duration NEVER = Duration.ofHours(1);

  @TempDir private Path dir;
  private final BlockingQueue<Usage> rejected = new LinkedBlockingQueue<>();
  private FakeSidecar sidecar;

  @BeforeEach
  void start() throws IOException {
    sidecar = new FakeSidecar();
  }

  @AfterEach
  void stop() {
    sidecar.close();
  }

  private TallygateClient client(BufferOptions options) {
    Hooks hooks =
        new Hooks() {
          @Override
          public void onRejected(Usage event, TallygateException error) {
            rejected.add(event);
          }
        };
    return TallygateClient.builder()
        .target(sidecar.target())
        .timeout(LONG)
        .retry(false)
        .hooks(hooks)
        .buffer(options)
        .build();
  }

  private static Usage event(String id) {
    return Usage.builder("acme", "requests", 1).eventId(id).build();
  }

  private List<String> batch() throws InterruptedException {
    return sidecar.next(BatchRecordUsageRequest.class).getRequestsList().stream()
        .map(RecordUsageRequest::getEventId)
        .toList();
  }

  @Test
  void aFullBatchGoesAtOnce() throws InterruptedException {
    BufferOptions options = BufferOptions.DEFAULT.withFlushEvery(NEVER).withBatch(2);
    try (TallygateClient client = client(options)) {
      client.buffer().record(event("a"));
      client.buffer().record(event("b"));
      assertEquals(List.of("a", "b"), batch());
    }
  }

  @Test
  void anEventKeepsItsTimeAndId() throws InterruptedException {
    try (TallygateClient client = client(BufferOptions.DEFAULT)) {
      String eventId = client.buffer().record(Usage.of("acme", "requests", 1));
      RecordUsageRequest sent = sidecar.next(BatchRecordUsageRequest.class).getRequests(0);
      assertEquals(eventId, sent.getEventId());
      assertTrue(sent.hasEventTime());
    }
  }

  @Test
  void whatIsRefusedForGoodIsTold() throws InterruptedException {
    sidecar.refused.put(
        "bad", ItemError.newBuilder().setReason(Reason.REASON_UNKNOWN_METER).setCode(5).build());
    try (TallygateClient client = client(BufferOptions.DEFAULT.withFlushEvery(NEVER))) {
      client.buffer().record(event("good"));
      client.buffer().record(event("bad"));
      assertTrue(client.buffer().flush(LONG));
      assertEquals("bad", rejected.take().eventId());
      Stats stats = client.stats();
      assertEquals(List.of(2L, 1L, 1L, 0L),
          List.of(stats.recorded(), stats.sent(), stats.rejected(), stats.pending()));
    }
  }

  @Test
  void aListThatIsRefusedAsAWholeIsSentInHalves() throws InterruptedException {
    sidecar.failures.add(Status.RESOURCE_EXHAUSTED.withDescription("too large"));
    try (TallygateClient client = client(BufferOptions.DEFAULT.withFlushEvery(NEVER))) {
      client.buffer().record(event("a"));
      client.buffer().record(event("b"));
      assertTrue(client.buffer().flush(LONG));
      assertEquals(List.of("a"), batch());
      assertEquals(List.of("b"), batch());
      assertTrue(rejected.isEmpty());
    }
  }

  @Test
  void whatIsNotTheEventsFaultIsSentAgain() throws InterruptedException {
    sidecar.failures.add(Status.UNAVAILABLE);
    sidecar.failures.add(Status.UNKNOWN.withDescription("channel closed"));
    try (TallygateClient client = client(BufferOptions.DEFAULT)) {
      client.buffer().record(event("a"));
      assertEquals(List.of("a"), batch());
      assertTrue(client.buffer().flush(LONG));
      assertEquals(2, client.stats().retries());
      assertTrue(rejected.isEmpty());
    }
  }

  @Test
  void whatHasNoRoomIsTheCallersStill() {
    try (TallygateClient client =
        client(BufferOptions.DEFAULT.withFlushEvery(NEVER).withMaxEvents(1))) {
      client.buffer().record(event("a"));
      assertThrows(BufferFullException.class, () -> client.buffer().record(event("b")));
      assertEquals(1, client.stats().refusedFull());
    }
  }

  @Test
  void whatCannotBeSentBeforeTheEndIsTold() throws InterruptedException {
    sidecar.hanging.add("BatchRecordUsage");
    TallygateClient client = client(BufferOptions.DEFAULT);
    client.buffer().record(event("a"));
    assertFalse(client.close(Duration.ofMillis(50)));
    assertEquals("a", rejected.take().eventId());
  }

  @Test
  void aSpoolIsSentByTheNextClient() throws InterruptedException {
    sidecar.hanging.add("BatchRecordUsage");
    BufferOptions options = BufferOptions.DEFAULT.withSpool(dir);
    TallygateClient first = client(options);
    first.buffer().record(event("a"));
    assertFalse(first.close(Duration.ofMillis(50)));
    assertTrue(rejected.isEmpty());
    sidecar.hanging.clear();
    try (TallygateClient second = client(options)) {
      assertEquals(List.of("a"), batch());
      assertTrue(second.buffer().flush(LONG));
      assertEquals(0, second.stats().spoolBytes());
    }
  }

  @Test
  void aCommitThatCameTooLateIsRecorded() throws InterruptedException {
    sidecar.outcome = ReservationOutcome.RESERVATION_OUTCOME_EXPIRED;
    try (TallygateClient client = client(BufferOptions.DEFAULT.withSpool(dir))) {
      Reservation held = client.reserve(Charge.of("acme", "tokens", 5));
      sidecar.failures.add(Status.UNAVAILABLE);
      assertEquals(Outcome.BUFFERED, held.commit().outcome());
      CommitRequest commit = sidecar.next(CommitRequest.class);
      assertEquals(List.of(commit.getOperationId() + ":0"), batch());
      assertTrue(client.buffer().flush(LONG));
    }
  }
}
