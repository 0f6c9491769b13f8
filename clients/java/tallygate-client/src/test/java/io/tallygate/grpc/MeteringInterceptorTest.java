package io.tallygate.grpc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.rpc.RetryInfo;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import io.tallygate.FakeSidecar;
import io.tallygate.TallygateClient;
import io.tallygate.metering.MeteringMode;
import io.tallygate.v1.CheckAndConsumeResponse;
import io.tallygate.v1.CommitRequest;
import io.tallygate.v1.LimitState;
import io.tallygate.v1.LimitStatus;
import io.tallygate.v1.RecordUsageRequest;
import io.tallygate.v1.RecordUsageResponse;
import io.tallygate.v1.RefundRequest;
import io.tallygate.v1.ReleaseRequest;
import io.tallygate.v1.ReserveRequest;
import io.tallygate.v1.StreamRecordUsageRequest;
import io.tallygate.v1.StreamRecordUsageResponse;
import io.tallygate.v1.UsageServiceGrpc;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** How the calls of a real gRPC server are charged: any service will do as the app's. */
class MeteringInterceptorTest {
  private static final Metadata.Key<String> TENANT =
      Metadata.Key.of("x-tenant", Metadata.ASCII_STRING_MARSHALLER);

  private final AtomicReference<Metadata> trailers = new AtomicReference<>();
  private FakeSidecar sidecar;
  private TallygateClient client;
  private Server server;
  private ManagedChannel channel;

  @BeforeEach
  void start() throws IOException {
    sidecar = new FakeSidecar();
    sidecar.decision =
        CheckAndConsumeResponse.newBuilder()
            .setAllowed(true)
            .addEventIds("op:0")
            .addLimits(
                LimitStatus.newBuilder()
                    .setLimitId("ten")
                    .setState(LimitState.LIMIT_STATE_OK)
                    .setLimit(10)
                    .setRemaining(9))
            .build();
    client =
        TallygateClient.builder()
            .target(sidecar.target())
            .timeout(Duration.ofSeconds(20))
            .retry(false)
            .build();
  }

  @AfterEach
  void stop() throws InterruptedException {
    channel.shutdownNow();
    server.shutdownNow().awaitTermination();
    client.close();
    sidecar.close();
  }

  private void serve(MeteringRules rules) throws IOException {
    server =
        NettyServerBuilder.forAddress(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0))
            .addService(new App())
            .intercept(rules.tenantKey("x-tenant").interceptor())
            .build()
            .start();
    channel =
        ManagedChannelBuilder.forAddress("127.0.0.1", server.getPort())
            .usePlaintext()
            .intercept(MetadataUtils.newCaptureMetadataInterceptor(
                new AtomicReference<>(), trailers))
            .build();
  }

  private UsageServiceGrpc.UsageServiceBlockingStub stub(String tenant) {
    Metadata headers = new Metadata();
    headers.put(TENANT, tenant);
    return UsageServiceGrpc.newBlockingStub(channel)
        .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  private static RecordUsageRequest asking(String what) {
    return RecordUsageRequest.newBuilder().setEventId(what).build();
  }

  @Test
  void aCallThatEndsWellIsCharged() throws Exception {
    serve(MeteringRules.with(client).cost("tokens", 50));
    stub("acme").recordUsage(asking("set"));
    assertEquals("acme", sidecar.next(ReserveRequest.class).getTenantId());
    assertEquals(7, sidecar.next(CommitRequest.class).getAmounts(0));
    assertEquals("\"ten\";r=9", trailers.get().get(MeteringInterceptor.LIMIT));
    assertEquals("\"ten\";q=10", trailers.get().get(MeteringInterceptor.POLICY));
  }

  @Test
  void aCallThatFailsIsNot() throws Exception {
    serve(MeteringRules.with(client).cost("tokens", 50));
    StatusRuntimeException error =
        assertThrows(
            StatusRuntimeException.class, () -> stub("acme").recordUsage(asking("fail")));
    assertEquals(Status.Code.ABORTED, error.getStatus().getCode());
    sidecar.next(ReleaseRequest.class);
    assertThrows(StatusRuntimeException.class, () -> stub("acme").recordUsage(asking("throw")));
    sidecar.next(ReleaseRequest.class);
    assertFalse(sidecar.was(CommitRequest.class));
  }

  @Test
  void whatWasChargedBeforeIsRefunded() throws Exception {
    serve(MeteringRules.with(client).cost("requests", 1).mode(MeteringMode.CONSUME));
    assertThrows(StatusRuntimeException.class, () -> stub("acme").recordUsage(asking("fail")));
    RefundRequest refund = sidecar.next(RefundRequest.class);
    assertEquals("op:0", refund.getEventId());
    assertEquals("op:0#f", refund.getOperationId());
  }

  @Test
  void aRefusalSaysWhichLimitAndWhen() throws Exception {
    sidecar.decision =
        sidecar.decision.toBuilder()
            .setAllowed(false)
            .setRefusedBy("ten")
            .setRetryAfter(com.google.protobuf.Duration.newBuilder().setSeconds(3))
            .build();
    serve(MeteringRules.with(client).cost("requests", 1));
    StatusRuntimeException error =
        assertThrows(StatusRuntimeException.class, () -> stub("acme").recordUsage(asking("")));
    assertEquals(Status.Code.RESOURCE_EXHAUSTED, error.getStatus().getCode());
    com.google.rpc.Status details = StatusProto.fromThrowable(error);
    assertEquals(3, details.getDetailsCount());
    assertEquals(
        3, details.getDetails(2).unpack(RetryInfo.class).getRetryDelay().getSeconds());
    assertEquals("\"ten\";r=9;t=3", trailers.get().get(MeteringInterceptor.LIMIT));
  }

  @Test
  void withoutATenantNothingIsServed() throws Exception {
    serve(MeteringRules.with(client).cost("requests", 1));
    StatusRuntimeException error =
        assertThrows(
            StatusRuntimeException.class,
            () -> UsageServiceGrpc.newBlockingStub(channel).recordUsage(asking("")));
    assertEquals(Status.Code.INVALID_ARGUMENT, error.getStatus().getCode());
    assertFalse(sidecar.was(ReserveRequest.class));
  }

  @Test
  void anAbsentSidecarIsUnavailable() throws Exception {
    serve(MeteringRules.with(client).cost("requests", 1));
    sidecar.failures.add(Status.UNAVAILABLE);
    StatusRuntimeException error =
        assertThrows(StatusRuntimeException.class, () -> stub("acme").recordUsage(asking("")));
    assertEquals(Status.Code.UNAVAILABLE, error.getStatus().getCode());
    sidecar.failures.add(Status.INTERNAL.withDescription("secret"));
    error = assertThrows(StatusRuntimeException.class, () -> stub("acme").recordUsage(asking("")));
    assertEquals("INTERNAL: metering failed", error.getMessage());
  }

  @Test
  void messagesAreCounted() throws Exception {
    serve(
        MeteringRules.with(client).messages(new Messages("messages", 10, Messages.Count.BOTH)));
    StreamObserver<StreamRecordUsageRequest> up =
        UsageServiceGrpc.newStub(channel)
            .withInterceptors(attaching("acme"))
            .streamRecordUsage(new Ignoring<>(new CountDownLatch(0)));
    up.onNext(StreamRecordUsageRequest.getDefaultInstance());
    up.onNext(StreamRecordUsageRequest.getDefaultInstance());
    up.onCompleted();
    assertEquals(4, sidecar.next(CommitRequest.class).getAmounts(0));
  }

  @Test
  void aStreamThatIsLeftIsChargedTillThen() throws Exception {
    serve(
        MeteringRules.with(client).messages(new Messages("messages", 10, Messages.Count.SENT)));
    CountDownLatch answered = new CountDownLatch(1);
    Ignoring<StreamRecordUsageRequest, StreamRecordUsageResponse> replies =
        new Ignoring<>(answered);
    StreamObserver<StreamRecordUsageRequest> up =
        UsageServiceGrpc.newStub(channel)
            .withInterceptors(attaching("acme"))
            .streamRecordUsage(replies);
    up.onNext(StreamRecordUsageRequest.getDefaultInstance());
    answered.await();
    replies.call.cancel("enough", null);
    assertEquals(1, sidecar.next(CommitRequest.class).getAmounts(0));
  }

  @Test
  void whatIsExemptIsNotAsked() throws Exception {
    serve(MeteringRules.with(client).cost("requests", 1).exempt(method -> true));
    UsageServiceGrpc.newBlockingStub(channel).recordUsage(asking(""));
    assertFalse(sidecar.was(ReserveRequest.class));
    assertTrue(trailers.get().get(MeteringInterceptor.LIMIT) == null);
  }

  private static io.grpc.ClientInterceptor attaching(String tenant) {
    Metadata headers = new Metadata();
    headers.put(TENANT, tenant);
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  private static final class Ignoring<Q, R> implements ClientResponseObserver<Q, R> {
    private final CountDownLatch answered;
    private volatile ClientCallStreamObserver<Q> call;

    Ignoring(CountDownLatch answered) {
      this.answered = answered;
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<Q> started) {
      call = started;
    }

    @Override
    public void onNext(R value) {
      answered.countDown();
    }

    @Override
    public void onError(Throwable error) {
      answered.countDown();
    }

    @Override
    public void onCompleted() {
      answered.countDown();
    }
  }

  /** The app: does as the request's event id says. */
  private static final class App extends UsageServiceGrpc.UsageServiceImplBase {
    @Override
    public void recordUsage(
        RecordUsageRequest request, StreamObserver<RecordUsageResponse> reply) {
      switch (request.getEventId()) {
        case "set" -> MeteringInterceptor.CHARGE.get().set("tokens", 7);
        case "throw" -> throw new IllegalStateException("broken");
        case "fail" -> {
          reply.onError(Status.ABORTED.asRuntimeException());
          return;
        }
        default -> { }
      }
      reply.onNext(RecordUsageResponse.getDefaultInstance());
      reply.onCompleted();
    }

    @Override
    public StreamObserver<StreamRecordUsageRequest> streamRecordUsage(
        StreamObserver<StreamRecordUsageResponse> replies) {
      return new StreamObserver<>() {
        @Override
        public void onNext(StreamRecordUsageRequest request) {
          replies.onNext(StreamRecordUsageResponse.getDefaultInstance());
        }

        @Override
        public void onError(Throwable error) {
          assertTrue(error instanceof StatusRuntimeException);
        }

        @Override
        public void onCompleted() {
          replies.onCompleted();
        }
      };
    }
  }
}
