package io.tallygate;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientStreamTracer;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;

/** Makes logical calls: each with a deadline, counted, and its errors typed. */
final class Calls {
  private final Channel channel;
  private final Counters counters;
  private final Attempts attempts;
  private final CallOptions options;
  private final AtomicBoolean closed = new AtomicBoolean();

  Calls(Channel channel, Counters counters) {
    this.channel = channel;
    this.counters = counters;
    this.attempts = new Attempts(counters);
    this.options = CallOptions.DEFAULT.withStreamTracerFactory(attempts);
  }

  /** Returns for how long the service wants no attempt; what it has said last counts. */
  Duration pushedBack() {
    return Duration.ofNanos(Math.max(0, attempts.pushedBackUntil - System.nanoTime()));
  }

  /** Lets no further call begin; says whether this was the first time. */
  boolean close() {
    return closed.compareAndSet(false, true);
  }

  boolean closed() {
    return closed.get();
  }

  <Q, R, T> T run(Op<Q, R, T> op, Duration timeout) {
    begin();
    long began = System.nanoTime();
    R reply;
    try {
      reply =
          ClientCalls.blockingUnaryCall(
              channel, op.method(), until(timeout), op.request());
    } catch (RuntimeException error) {
      boolean asked = Thread.currentThread().isInterrupted() || cancelled(Context.current());
      return op.failed().apply(ended(op, error, asked, began));
    }
    counters.called(name(op), Status.Code.OK, System.nanoTime() - began);
    return op.done().apply(reply);
  }

  <Q, R, T> CompletableFuture<T> start(Op<Q, R, T> op, Duration timeout) {
    CallFuture<T> result = new CallFuture<>();
    Context context = Context.current();
    try {
      begin();
      ClientCall<Q, R> call = channel.newCall(op.method(), until(timeout));
      result.endsWith(() -> call.cancel("the caller has cancelled", null));
      ClientCalls.asyncUnaryCall(call, op.request(), new Answer<>(op, result, context));
    } catch (RuntimeException error) {
      result.completeExceptionally(error);
    }
    return result;
  }

  private void begin() {
    if (closed.get()) {
      throw new ClosedException("the client is closed");
    }
  }

  private CallOptions until(Duration timeout) {
    return options.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
  }

  private <Q, R> TallygateException ended(
      Op<Q, R, ?> op, Throwable error, boolean asked, long began) {
    TallygateException typed = Errors.of(error, op.operationId(), asked);
    counters.called(name(op), typed.code(), System.nanoTime() - began);
    return typed;
  }

  private static boolean cancelled(Context context) {
    return context.isCancelled() && !(context.cancellationCause() instanceof TimeoutException);
  }

  static String name(Op<?, ?, ?> op) {
    return op.method().getBareMethodName();
  }

  /** Takes in the answer to a call that nobody waits for. */
  private final class Answer<Q, R, T> implements StreamObserver<R> {
    private final Op<Q, R, T> op;
    private final CallFuture<T> result;
    private final Context context;
    private final long began = System.nanoTime();
    private R reply;

    Answer(Op<Q, R, T> op, CallFuture<T> result, Context context) {
      this.op = op;
      this.result = result;
      this.context = context;
    }

    @Override
    public void onNext(R value) {
      reply = value;
    }

    @Override
    public void onError(Throwable error) {
      boolean asked = result.isCancelled() || cancelled(context);
      TallygateException typed = ended(op, error, asked, began);
      complete(() -> op.failed().apply(typed));
    }

    @Override
    public void onCompleted() {
      counters.called(name(op), Status.Code.OK, System.nanoTime() - began);
      complete(() -> op.done().apply(reply));
    }

    private void complete(java.util.function.Supplier<T> value) {
      try {
        result.complete(value.get());
      } catch (RuntimeException error) {
        result.completeExceptionally(error);
      }
    }
  }

  /** Counts the attempts beyond the first that gRPC makes by itself, and notes their pushback. */
  private static final class Attempts extends ClientStreamTracer.Factory {
    private final Counters counters;
    private final ClientStreamTracer tracer;
    private volatile long pushedBackUntil = System.nanoTime();

    Attempts(Counters counters) {
      this.counters = counters;
      this.tracer =
          new ClientStreamTracer() {
            @Override
            public void inboundTrailers(Metadata trailers) {
              Duration wait = Errors.pushback(trailers);
              if (wait != null) {
                pushedBackUntil = System.nanoTime() + wait.toNanos();
              }
            }
          };
    }

    @Override
    public ClientStreamTracer newClientStreamTracer(
        ClientStreamTracer.StreamInfo info, Metadata headers) {
      if (info.getPreviousAttempts() > 0) {
        counters.retries.increment();
      }
      return tracer;
    }
  }
}
