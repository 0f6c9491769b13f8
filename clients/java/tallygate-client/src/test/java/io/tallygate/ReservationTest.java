package io.tallygate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status;
import io.tallygate.v1.BatchRecordUsageRequest;
import io.tallygate.v1.CheckAndConsumeResponse;
import io.tallygate.v1.CommitRequest;
import io.tallygate.v1.ExtendReservationRequest;
import io.tallygate.v1.RecordUsageRequest;
import io.tallygate.v1.ReleaseRequest;
import io.tallygate.v1.ReservationOutcome;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** How work under a reservation ends, and what is settled by it. */
class ReservationTest {
  private static final Duration LONG = Duration.ofSeconds(20);
  private static final Charge CHARGE =
      Charge.builder("acme").item("tokens", 50).item("requests", 5).operationId("op").build();

  private FakeSidecar sidecar;
  private TallygateClient client;

  @BeforeEach
  void start() throws IOException {
    sidecar = new FakeSidecar();
    client =
        TallygateClient.builder().target(sidecar.target()).timeout(LONG).retry(false).build();
  }

  @AfterEach
  void stop() {
    client.close();
    sidecar.close();
  }

  @Test
  void whatWasNotCommittedIsGivenBack() throws InterruptedException {
    try (Reservation held = client.reserve(CHARGE)) {
      held.actual("tokens", 7);
    }
    assertEquals("00-op", sidecar.next(ReleaseRequest.class).getReservationId());
    assertFalse(sidecar.was(CommitRequest.class));
  }

  @Test
  void whatWasCommittedIsNotGivenBack() throws InterruptedException {
    try (Reservation held = client.reserve(CHARGE)) {
      held.add("tokens", 3);
      held.add("tokens", 4);
      assertEquals(Outcome.COMMITTED, held.commit().outcome());
      assertThrows(IllegalStateException.class, held::commit);
    }
    CommitRequest commit = sidecar.next(CommitRequest.class);
    assertEquals(List.of(7L, 5L), commit.getAmountsList());
    assertEquals("00-op#c", commit.getOperationId());
    assertEquals(io.tallygate.v1.Excess.EXCESS_RECORD, commit.getExcess());
    assertFalse(sidecar.was(ReleaseRequest.class));
  }

  @Test
  void aCommitThatFailsMayBeTriedAgainAndIsNotGivenBack() {
    try (Reservation held = client.reserve(CHARGE)) {
      sidecar.failures.add(Status.UNAVAILABLE);
      assertThrows(UnavailableException.class, held::commit);
    }
    assertFalse(sidecar.was(ReleaseRequest.class));
    try (Reservation held = client.reserve(CHARGE)) {
      sidecar.failures.add(Status.UNAVAILABLE);
      assertThrows(UnavailableException.class, held::commit);
      assertEquals(Outcome.COMMITTED, held.commit().outcome());
    }
  }

  @Test
  void workThatThrowsIsThrownOn() throws InterruptedException {
    IOException broken = new IOException("broken");
    IOException thrown =
        assertThrows(
            IOException.class,
            () ->
                client.<Void, IOException>withReservation(
                    CHARGE,
                    held -> {
                      throw broken;
                    }));
    assertSame(broken, thrown);
    sidecar.next(ReleaseRequest.class);
  }

  @Test
  void workThatNobodyWaitsForIsSettled() throws InterruptedException {
    String result =
        client
            .withReservationAsync(
                CHARGE, ReserveOptions.DEFAULT, held -> CompletableFuture.completedFuture("done"))
            .join();
    assertEquals("done", result);
    assertTrue(sidecar.next(CommitRequest.class).getAmountsList().isEmpty());
    CompletableFuture<String> failing =
        client.withReservationAsync(
            CHARGE,
            ReserveOptions.DEFAULT,
            held -> CompletableFuture.failedFuture(new IOException("broken")));
    assertThrows(CompletionException.class, failing::join);
    sidecar.next(ReleaseRequest.class);
  }

  @Test
  void aRefusalIsThrownBeforeTheWork() {
    sidecar.decision = CheckAndConsumeResponse.newBuilder().setRefusedBy("ten").build();
    QuotaExceededException error =
        assertThrows(
            QuotaExceededException.class,
            () -> client.withReservation(CHARGE, held -> held.decision()));
    assertEquals("ten", error.decision().refusedBy().orElseThrow());
    assertFalse(client.tryReserve(CHARGE, ReserveOptions.DEFAULT).allowed());
  }

  @Test
  void longWorkIsKeptAlive() throws InterruptedException {
    ReserveOptions options = ReserveOptions.DEFAULT.withTtl(Duration.ofMillis(30));
    try (Reservation held = client.reserve(CHARGE, options)) {
      ExtendReservationRequest beat = sidecar.next(ExtendReservationRequest.class);
      assertEquals(held.reservationId(), beat.getReservationId());
      sidecar.next(ExtendReservationRequest.class);
      held.commit();
    }
  }

  @Test
  void whatExpiredIsRecordedUnderTheCommitsIds() throws InterruptedException {
    sidecar.outcome = ReservationOutcome.RESERVATION_OUTCOME_EXPIRED;
    try (Reservation held = client.reserve(CHARGE)) {
      held.actual(60, 2);
      Settlement settled = held.commit();
      assertEquals(Outcome.EXPIRED, settled.outcome());
      assertEquals(List.of("00-op#c:0", "00-op#c:1", "00-op#c:2"), settled.eventIds());
    }
    List<RecordUsageRequest> events =
        sidecar.next(BatchRecordUsageRequest.class).getRequestsList();
    assertEquals(
        List.of(50L, 2L, 10L), events.stream().map(RecordUsageRequest::getAmount).toList());
  }

  @Test
  void anAmountOfNothingReservedIsAnError() {
    try (Reservation held = client.reserve(CHARGE)) {
      assertThrows(IllegalArgumentException.class, () -> held.actual("images", 1));
      assertThrows(IllegalArgumentException.class, () -> held.actual(1));
      assertThrows(IllegalArgumentException.class, () -> held.actual(-1, 1));
      held.release();
      assertThrows(IllegalStateException.class, () -> held.actual(1, 1));
    }
  }
}
