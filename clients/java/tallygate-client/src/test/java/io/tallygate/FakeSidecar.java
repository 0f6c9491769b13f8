package io.tallygate;

import io.grpc.BindableService;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import io.tallygate.v1.BatchRecordUsageRequest;
import io.tallygate.v1.BatchRecordUsageResponse;
import io.tallygate.v1.BatchRecordUsageResult;
import io.tallygate.v1.CheckAndConsumeRequest;
import io.tallygate.v1.CheckAndConsumeResponse;
import io.tallygate.v1.CommitRequest;
import io.tallygate.v1.CommitResponse;
import io.tallygate.v1.ExtendReservationRequest;
import io.tallygate.v1.ExtendReservationResponse;
import io.tallygate.v1.ItemError;
import io.tallygate.v1.QuotaServiceGrpc;
import io.tallygate.v1.RecordUsageRequest;
import io.tallygate.v1.RecordUsageResponse;
import io.tallygate.v1.RefundRequest;
import io.tallygate.v1.RefundResponse;
import io.tallygate.v1.ReleaseRequest;
import io.tallygate.v1.ReleaseResponse;
import io.tallygate.v1.ReservationOutcome;
import io.tallygate.v1.ReserveRequest;
import io.tallygate.v1.ReserveResponse;
import io.tallygate.v1.UsageServiceGrpc;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** A server of the data plane that answers as it is told, and remembers what it was asked. */
public final class FakeSidecar implements AutoCloseable {
  /** The statuses with which the next calls end, before they are served. */
  public final Deque<Status> failures = new ConcurrentLinkedDeque<>();

  /** Methods that are never answered, by their bare name. */
  public final List<String> hanging = new CopyOnWriteArrayList<>();

  /** What was asked, in order. */
  public final BlockingQueue<Object> asked = new LinkedBlockingQueue<>();

  /** How items of a list are refused, by their event's id. */
  public final Map<String, ItemError> refused = new ConcurrentHashMap<>();

  /** Counted down when a client cancels a call. */
  public final CountDownLatch cancelled = new CountDownLatch(1);

  /** What a charge and a reservation are answered. */
  public volatile CheckAndConsumeResponse decision =
      CheckAndConsumeResponse.newBuilder().setAllowed(true).build();

  /** What a commit is answered. */
  public volatile ReservationOutcome outcome =
      ReservationOutcome.RESERVATION_OUTCOME_COMMITTED;

  private static final long PATIENCE_S = 20;

  private final Server server;

  /** Starts one at any port. */
  public FakeSidecar() throws IOException {
    this(0);
  }

  /** Starts one at a port. */
  public FakeSidecar(int port) throws IOException {
    server =
        NettyServerBuilder.forAddress(
                new InetSocketAddress(InetAddress.getLoopbackAddress(), port))
            .addService(new Quotas())
            .addService((BindableService) new Usages())
            .intercept(new Failing())
            .build()
            .start();
  }

  /** Where it listens. */
  public int port() {
    return server.getPort();
  }

  /** How clients find it. */
  public String target() {
    return "127.0.0.1:" + port();
  }

  /** Returns the next question of a kind; those before it are forgotten. */
  public <T> T next(Class<T> kind) throws InterruptedException {
    while (true) {
      Object question = asked.poll(PATIENCE_S, TimeUnit.SECONDS);
      if (question == null) {
        throw new AssertionError("nobody asked for a " + kind.getSimpleName());
      }
      if (kind.isInstance(question)) {
        return kind.cast(question);
      }
    }
  }

  /** Whether anything of a kind was asked and not taken. */
  public boolean was(Class<?> kind) {
    return asked.stream().anyMatch(kind::isInstance);
  }

  @Override
  public void close() {
    server.shutdownNow();
    try {
      server.awaitTermination();
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private final class Failing implements ServerInterceptor {
    @Override
    public <Q, R> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
      Status failure = failures.poll();
      if (failure != null) {
        Metadata trailers = Status.trailersFromThrowable(failure.asRuntimeException());
        call.close(failure, trailers == null ? new Metadata() : trailers);
        return new ServerCall.Listener<>() {};
      }
      if (hanging.contains(call.getMethodDescriptor().getBareMethodName())) {
        Context.current().addListener(gone -> cancelled.countDown(), Runnable::run);
        return new ServerCall.Listener<>() {};
      }
      return next.startCall(call, headers);
    }
  }

  private <T> void answer(Object question, StreamObserver<T> reply, T value) {
    asked.add(question);
    reply.onNext(value);
    reply.onCompleted();
  }

  private final class Quotas extends QuotaServiceGrpc.QuotaServiceImplBase {
    @Override
    public void checkAndConsume(
        CheckAndConsumeRequest request, StreamObserver<CheckAndConsumeResponse> reply) {
      answer(request, reply, decision);
    }

    @Override
    public void reserve(ReserveRequest request, StreamObserver<ReserveResponse> reply) {
      ReserveResponse.Builder held =
          ReserveResponse.newBuilder()
              .setAllowed(decision.getAllowed())
              .addAllLimits(decision.getLimitsList())
              .setRefusedBy(decision.getRefusedBy());
      if (decision.hasRetryAfter()) {
        held.setRetryAfter(decision.getRetryAfter());
      }
      if (decision.getAllowed()) {
        held.setReservationId("00-" + request.getOperationId());
      }
      answer(request, reply, held.build());
    }

    @Override
    public void commit(CommitRequest request, StreamObserver<CommitResponse> reply) {
      answer(request, reply, CommitResponse.newBuilder().setOutcome(outcome).build());
    }

    @Override
    public void release(ReleaseRequest request, StreamObserver<ReleaseResponse> reply) {
      ReleaseResponse released =
          ReleaseResponse.newBuilder()
              .setOutcome(ReservationOutcome.RESERVATION_OUTCOME_RELEASED)
              .build();
      answer(request, reply, released);
    }

    @Override
    public void extendReservation(
        ExtendReservationRequest request, StreamObserver<ExtendReservationResponse> reply) {
      ExtendReservationResponse extended =
          ExtendReservationResponse.newBuilder()
              .setOutcome(ReservationOutcome.RESERVATION_OUTCOME_EXTENDED)
              .build();
      answer(request, reply, extended);
    }

    @Override
    public void refund(RefundRequest request, StreamObserver<RefundResponse> reply) {
      answer(request, reply, RefundResponse.newBuilder().setAmount(request.getAmount()).build());
    }
  }

  private final class Usages extends UsageServiceGrpc.UsageServiceImplBase {
    @Override
    public void recordUsage(
        RecordUsageRequest request, StreamObserver<RecordUsageResponse> reply) {
      answer(
          request,
          reply,
          RecordUsageResponse.newBuilder().setEventId(request.getEventId()).build());
    }

    @Override
    public void batchRecordUsage(
        BatchRecordUsageRequest request, StreamObserver<BatchRecordUsageResponse> reply) {
      BatchRecordUsageResponse.Builder results = BatchRecordUsageResponse.newBuilder();
      for (RecordUsageRequest each : request.getRequestsList()) {
        ItemError error = refused.get(each.getEventId());
        BatchRecordUsageResult.Builder result = BatchRecordUsageResult.newBuilder();
        results.addResults(
            error == null
                ? result.setResponse(
                    RecordUsageResponse.newBuilder().setEventId(each.getEventId()))
                : result.setError(error));
      }
      answer(request, reply, results.build());
    }
  }
}
