package io.tallygate.grpc;

import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.ForwardingServerCall.SimpleForwardingServerCall;
import io.grpc.ForwardingServerCallListener.SimpleForwardingServerCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.tallygate.Charge;
import io.tallygate.Decision;
import io.tallygate.QuotaExceededException;
import io.tallygate.TallygateException;
import io.tallygate.metering.RequestCharge;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Charges the calls of a gRPC server: asks before the handler runs, and settles when the call ends.
 *
 * <p>The handler finds the charge under {@link #CHARGE}. The question is asked on the thread that
 * starts the call, so a server with a direct executor should not use this.
 */
public final class MeteringInterceptor implements ServerInterceptor {
  /** Where the handler finds the charge of its call. */
  public static final Context.Key<RequestCharge> CHARGE = Context.key("tallygate-charge");

  /** In trailers, what is left of the limits; as the HTTP field {@code RateLimit}. */
  public static final Metadata.Key<String> LIMIT =
      Metadata.Key.of("tallygate-ratelimit", Metadata.ASCII_STRING_MARSHALLER);

  /** In trailers, what the limits are; as the HTTP field {@code RateLimit-Policy}. */
  public static final Metadata.Key<String> POLICY =
      Metadata.Key.of("tallygate-ratelimit-policy", Metadata.ASCII_STRING_MARSHALLER);

  private final MeteringRules rules;

  MeteringInterceptor(MeteringRules rules) {
    this.rules = rules;
  }

  @Override
  public <Q, R> ServerCall.Listener<Q> interceptCall(
      ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
    MethodDescriptor<?, ?> method = call.getMethodDescriptor();
    if (rules.exempt(method)) {
      return next.startCall(call, headers);
    }
    String tenant = rules.tenant(headers, method);
    if (tenant == null || tenant.isEmpty()) {
      return refuse(call, Refusals.noTenant(rules.unauthenticated()), Map.of());
    }
    Charge charge = rules.charge(tenant, headers, method);
    if (charge.items().isEmpty()) {
      return next.startCall(call, headers);
    }
    RequestCharge begun;
    try {
      begun = rules.begin(charge);
    } catch (QuotaExceededException refused) {
      Decision decision = refused.decision();
      return refuse(call, Refusals.refused(decision), rules.fields().of(decision));
    } catch (TallygateException error) {
      return refuse(call, Refusals.failed(error), Map.of());
    }
    Metered<Q, R> metered = new Metered<>(call, begun);
    try {
      Context context = Context.current().withValue(CHARGE, begun);
      return metered.listening(Contexts.interceptCall(context, metered, headers, next));
    } catch (RuntimeException error) {
      begun.end(false);
      throw error;
    }
  }

  private static <Q, R> ServerCall.Listener<Q> refuse(
      ServerCall<Q, R> call, Refusals.Refusal refusal, Map<String, String> fields) {
    Metadata trailers = refusal.trailers();
    Refusals.put(trailers, fields);
    call.close(refusal.status(), trailers);
    return new ServerCall.Listener<>() {};
  }

  /** A call that is charged: counts its messages, and settles when it ends. */
  private final class Metered<Q, R> extends SimpleForwardingServerCall<Q, R> {
    private final RequestCharge charge;
    private final AtomicLong messages = new AtomicLong();
    private final AtomicLong sent = new AtomicLong();

    Metered(ServerCall<Q, R> call, RequestCharge charge) {
      super(call);
      this.charge = charge;
    }

    @Override
    public void sendMessage(R message) {
      super.sendMessage(message);
      sent.incrementAndGet();
      rules.messages().filter(Messages::sent).ifPresent(each -> messages.incrementAndGet());
    }

    @Override
    public void close(Status status, Metadata trailers) {
      Refusals.put(trailers, rules.fields().of(charge.decision()));
      super.close(status, trailers);
      end(status.isOk());
    }

    ServerCall.Listener<Q> listening(ServerCall.Listener<Q> listener) {
      return new SimpleForwardingServerCallListener<>(listener) {
        @Override
        public void onMessage(Q message) {
          rules.messages().filter(Messages::received).ifPresent(each -> messages.incrementAndGet());
          guarded(() -> super.onMessage(message));
        }

        @Override
        public void onHalfClose() {
          guarded(super::onHalfClose);
        }

        @Override
        public void onReady() {
          guarded(super::onReady);
        }

        @Override
        public void onCancel() {
          try {
            super.onCancel();
          } finally {
            boolean streaming = !getMethodDescriptor().getType().serverSendsOneMessage();
            end(streaming && sent.get() > 0);
          }
        }
      };
    }

    /** What a handler throws, gRPC answers by itself, and not by this call. */
    private void guarded(Runnable handling) {
      try {
        handling.run();
      } catch (RuntimeException | Error error) {
        end(false);
        throw error;
      }
    }

    private void end(boolean charged) {
      Optional<Messages> counted = rules.messages();
      if (charged && counted.isPresent()) {
        charge.counted(counted.get().meter(), messages.get());
      }
      charge.end(charged);
    }
  }
}
