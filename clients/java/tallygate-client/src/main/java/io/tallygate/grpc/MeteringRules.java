package io.tallygate.grpc;

import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.tallygate.Charge;
import io.tallygate.EventContext;
import io.tallygate.Item;
import io.tallygate.ReserveOptions;
import io.tallygate.TallygateClient;
import io.tallygate.metering.MeteringMode;
import io.tallygate.metering.RateLimitFields;
import io.tallygate.metering.RequestCharge;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.function.BiFunction;
import java.util.function.Predicate;

/** Says how a gRPC server's calls are charged, and makes the interceptor that does so. */
public final class MeteringRules {
  private final TallygateClient client;
  private BiFunction<Metadata, MethodDescriptor<?, ?>, String> tenant = (headers, method) -> null;
  private BiFunction<Metadata, MethodDescriptor<?, ?>, List<Item>> cost =
      (headers, method) -> List.of();
  private BiFunction<Metadata, MethodDescriptor<?, ?>, String> operationId =
      (headers, method) -> "";
  private BiFunction<Metadata, MethodDescriptor<?, ?>, EventContext> context =
      (headers, method) -> EventContext.EMPTY;
  private Predicate<MethodDescriptor<?, ?>> exempt = method -> false;
  private Optional<Messages> messages = Optional.empty();
  private MeteringMode mode = MeteringMode.RESERVE;
  private ReserveOptions options = ReserveOptions.DEFAULT;
  private RateLimitFields fields = RateLimitFields.PLAIN;
  private boolean refundFailures = true;
  private boolean unauthenticated;

  private MeteringRules(TallygateClient client) {
    this.client = client;
  }

  /** Returns rules by which nothing is charged yet: they need a tenant and a cost. */
  public static MeteringRules with(TallygateClient client) {
    return new MeteringRules(Objects.requireNonNull(client, "client"));
  }

  /** Says who pays; null or empty for nobody, which refuses the call. */
  public MeteringRules tenant(BiFunction<Metadata, MethodDescriptor<?, ?>, String> tenant) {
    this.tenant = tenant;
    return this;
  }

  /** Names the metadata that says who pays: what something in front sets, and strips. */
  public MeteringRules tenantKey(String name) {
    Metadata.Key<String> key = Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
    return tenant((headers, method) -> headers.get(key));
  }

  /** Says what a call costs; nothing at all passes it uncharged. */
  public MeteringRules cost(BiFunction<Metadata, MethodDescriptor<?, ?>, List<Item>> cost) {
    this.cost = cost;
    return this;
  }

  /** Says what every call costs. */
  public MeteringRules cost(String meter, long amount) {
    List<Item> items = List.of(Item.of(meter, amount));
    return cost((headers, method) -> items);
  }

  /** Names the logical call; empty for a random one. */
  public MeteringRules operationId(
      BiFunction<Metadata, MethodDescriptor<?, ?>, String> operationId) {
    this.operationId = operationId;
    return this;
  }

  /** Says the circumstances. */
  public MeteringRules context(
      BiFunction<Metadata, MethodDescriptor<?, ?>, EventContext> context) {
    this.context = context;
    return this;
  }

  /** Says which methods pass uncharged, as health checks. */
  public MeteringRules exempt(Predicate<MethodDescriptor<?, ?>> exempt) {
    this.exempt = exempt;
    return this;
  }

  /** Charges a call's messages by their number. */
  public MeteringRules messages(Messages messages) {
    this.messages = Optional.of(messages);
    return this;
  }

  /** Says when calls are charged. */
  public MeteringRules mode(MeteringMode mode) {
    this.mode = Objects.requireNonNull(mode, "mode");
    return this;
  }

  /** Says how units are held. */
  public MeteringRules reserving(ReserveOptions options) {
    this.options = Objects.requireNonNull(options, "options");
    return this;
  }

  /** Says how the limits are shown in trailers. */
  public MeteringRules fields(RateLimitFields fields) {
    this.fields = Objects.requireNonNull(fields, "fields");
    return this;
  }

  /** Says whether a call that fails is refunded, where it was charged before. */
  public MeteringRules refundFailures(boolean refundFailures) {
    this.refundFailures = refundFailures;
    return this;
  }

  /** Answers a call without a tenant with UNAUTHENTICATED instead of INVALID_ARGUMENT. */
  public MeteringRules unauthenticatedWithoutTenant() {
    this.unauthenticated = true;
    return this;
  }

  /**
   * Returns the interceptor.
   *
   * @throws IllegalStateException if messages are to be counted in the mode that charges before
   */
  public MeteringInterceptor interceptor() {
    if (messages.isPresent() && mode == MeteringMode.CONSUME) {
      throw new IllegalStateException("messages are counted after, so the mode is RESERVE");
    }
    return new MeteringInterceptor(this);
  }

  boolean exempt(MethodDescriptor<?, ?> method) {
    return exempt.test(method);
  }

  String tenant(Metadata headers, MethodDescriptor<?, ?> method) {
    return tenant.apply(headers, method);
  }

  Charge charge(String payer, Metadata headers, MethodDescriptor<?, ?> method) {
    List<Item> items = new ArrayList<>(cost.apply(headers, method));
    messages.ifPresent(each -> items.add(Item.of(each.meter(), each.reserve())));
    return Charge.builder(payer)
        .items(items)
        .operationId(operationId.apply(headers, method))
        .context(context.apply(headers, method))
        .build();
  }

  RequestCharge begin(Charge charge) {
    return RequestCharge.begin(client, charge, mode, options, refundFailures);
  }

  Optional<Messages> messages() {
    return messages;
  }

  RateLimitFields fields() {
    return fields;
  }

  boolean unauthenticated() {
    return unauthenticated;
  }
}
