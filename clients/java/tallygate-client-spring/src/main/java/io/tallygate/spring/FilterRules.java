package io.tallygate.spring;

import com.google.gson.Gson;
import io.tallygate.Charge;
import io.tallygate.Decision;
import io.tallygate.EventContext;
import io.tallygate.Item;
import io.tallygate.ReserveOptions;
import io.tallygate.TallygateClient;
import io.tallygate.metering.MeteringMode;
import io.tallygate.metering.RateLimitFields;
import io.tallygate.metering.RequestCharge;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Clock;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Function;
import java.util.function.IntPredicate;
import java.util.function.Predicate;

/** Says how requests are charged, and makes the filter that does so. */
public final class FilterRules {
  private static final Gson GSON = new Gson();
  private static final int FIRST_FAILURE = 400;

  private final TallygateClient client;
  private Function<HttpServletRequest, String> tenant = request -> null;
  private Function<HttpServletRequest, List<Item>> cost = request -> List.of();
  private Function<HttpServletRequest, String> operationId = request -> "";
  private Function<HttpServletRequest, EventContext> context = request -> EventContext.EMPTY;
  private Predicate<HttpServletRequest> exempt = request -> false;
  private IntPredicate charged = status -> status < FIRST_FAILURE;
  private Predicate<HttpServletRequest> measured = request -> true;
  private Optional<Item> response = Optional.empty();
  private MeteringMode mode = MeteringMode.RESERVE;
  private ReserveOptions options = ReserveOptions.DEFAULT;
  private final Map<String, String> quotaUnits = new HashMap<>();
  private final Map<String, Long> windows = new HashMap<>();
  private boolean headers = true;
  private boolean refundFailures = true;
  private Optional<String> challenge = Optional.empty();
  private ProblemWriter writer = FilterRules::json;
  private RateLimitFields fields = RateLimitFields.PLAIN;

  private FilterRules(TallygateClient client) {
    this.client = client;
  }

  /** Returns rules by which nothing is charged yet: they need a tenant and a cost. */
  public static FilterRules with(TallygateClient client) {
    return new FilterRules(Objects.requireNonNull(client, "client"));
  }

  /** Says who pays; null or empty for nobody, which refuses the request. */
  public FilterRules tenant(Function<HttpServletRequest, String> tenant) {
    this.tenant = tenant;
    return this;
  }

  /** Names the header that says who pays: one that something in front sets, and strips. */
  public FilterRules tenantHeader(String name) {
    return tenant(request -> request.getHeader(name));
  }

  /** Says what a request costs; nothing at all passes it uncharged. */
  public FilterRules cost(Function<HttpServletRequest, List<Item>> cost) {
    this.cost = cost;
    return this;
  }

  /** Says what every request costs. */
  public FilterRules cost(String meter, long amount) {
    List<Item> items = List.of(Item.of(meter, amount));
    return cost(request -> items);
  }

  /** Names the logical call; empty for a random one. Never a client's header as it stands. */
  public FilterRules operationId(Function<HttpServletRequest, String> operationId) {
    this.operationId = operationId;
    return this;
  }

  /** Says the circumstances. */
  public FilterRules context(Function<HttpServletRequest, EventContext> context) {
    this.context = context;
    return this;
  }

  /** Says which requests pass uncharged, as health checks. */
  public FilterRules exempt(Predicate<HttpServletRequest> exempt) {
    this.exempt = exempt;
    return this;
  }

  /** Says which statuses are charged; below 400 unless set. */
  public FilterRules charged(IntPredicate charged) {
    this.charged = charged;
    return this;
  }

  /** Charges the response's bytes, of which so many are held before they are known. */
  public FilterRules responseBytes(String meter, long reserve) {
    this.response = Optional.of(Item.of(meter, reserve));
    return quotaUnit(meter, "content-bytes");
  }

  /** Says of which requests the response's bytes are charged; of all unless set. */
  public FilterRules measured(Predicate<HttpServletRequest> measured) {
    this.measured = measured;
    return this;
  }

  /** Says when requests are charged. */
  public FilterRules mode(MeteringMode mode) {
    this.mode = Objects.requireNonNull(mode, "mode");
    return this;
  }

  /** Says how units are held. */
  public FilterRules reserving(ReserveOptions options) {
    this.options = Objects.requireNonNull(options, "options");
    return this;
  }

  /** Says in which unit a meter's limits count, for {@code RateLimit-Policy}. */
  public FilterRules quotaUnit(String meter, String unit) {
    quotaUnits.put(meter, unit);
    return this;
  }

  /** Says how many seconds a limit's window lasts, for {@code RateLimit-Policy}. */
  public FilterRules window(String limitId, long seconds) {
    windows.put(limitId, seconds);
    return this;
  }

  /** Says whether responses tell of the limits in their head. */
  public FilterRules headers(boolean headers) {
    this.headers = headers;
    return this;
  }

  /** Says whether a request that fails is refunded, where it was charged before. */
  public FilterRules refundFailures(boolean refundFailures) {
    this.refundFailures = refundFailures;
    return this;
  }

  /** Answers a request without a tenant with 401 and this challenge, instead of 400. */
  public FilterRules challenge(String challenge) {
    this.challenge = Optional.of(challenge);
    return this;
  }

  /** Writes the bodies of answers that are not the app's in another way. */
  public FilterRules problems(ProblemWriter writer) {
    this.writer = Objects.requireNonNull(writer, "writer");
    return this;
  }

  /**
   * Returns the filter.
   *
   * @throws IllegalStateException if bytes are to be counted in the mode that charges before
   */
  public TallygateFilter filter() {
    if (response.isPresent() && mode == MeteringMode.CONSUME) {
      throw new IllegalStateException("bytes are counted after, so the mode is RESERVE");
    }
    fields = new RateLimitFields(quotaUnits, windows, Clock.systemUTC());
    return new TallygateFilter(this);
  }

  boolean exempt(HttpServletRequest request) {
    return exempt.test(request);
  }

  boolean charged(int status) {
    return charged.test(status);
  }

  String tenant(HttpServletRequest request) {
    return tenant.apply(request);
  }

  Optional<String> challenge() {
    return challenge;
  }

  Optional<String> responseMeter(HttpServletRequest request) {
    return response.map(Item::meter).filter(meter -> measured.test(request));
  }

  Charge charge(String payer, HttpServletRequest request) {
    List<Item> items = new ArrayList<>(cost.apply(request));
    response.filter(item -> measured.test(request)).ifPresent(items::add);
    return Charge.builder(payer)
        .items(items)
        .operationId(operationId.apply(request))
        .context(context.apply(request))
        .build();
  }

  RequestCharge begin(Charge charge) {
    return RequestCharge.begin(client, charge, mode, options, refundFailures);
  }

  Map<String, String> fields(Decision decision) {
    return headers ? fields.of(decision) : Map.of();
  }

  void write(HttpServletResponse to, Problem problem) throws IOException {
    to.setStatus(problem.status());
    to.setHeader("Cache-Control", "no-store");
    problem.headers().forEach(to::setHeader);
    writer.write(problem, to);
  }

  private static void json(Problem problem, HttpServletResponse to) throws IOException {
    byte[] body = GSON.toJson(problem.body()).getBytes(StandardCharsets.UTF_8);
    to.setContentType("application/problem+json");
    to.setContentLength(body.length);
    to.getOutputStream().write(body);
  }
}
