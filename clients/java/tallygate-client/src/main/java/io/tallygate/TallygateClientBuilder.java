package io.tallygate;

import java.time.Duration;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.ScheduledThreadPoolExecutor;

/** Says how a client is to be. Everything has a default. */
public final class TallygateClientBuilder {
  /** The variable of the environment that names the sidecar. */
  public static final String TARGET_VARIABLE = "TALLYGATE_TARGET";

  /** Where the sidecar is when nobody says otherwise. */
  public static final String DEFAULT_TARGET = "127.0.0.1:50051";

  /** How long a logical call may take, its retries included. */
  public static final Duration DEFAULT_TIMEOUT = Duration.ofSeconds(1);

  private String target = defaultTarget();
  private Optional<Tls> tls = Optional.empty();
  private Duration timeout = DEFAULT_TIMEOUT;
  private boolean retry = true;
  private OnAbsent onAbsent = OnAbsent.CLOSED;
  private Optional<BufferOptions> buffer = Optional.empty();
  private Hooks hooks = Hooks.NONE;

  TallygateClientBuilder() {}

  /** Says where the sidecar is: {@code unix:///path}, {@code unix:path} or {@code host:port}. */
  public TallygateClientBuilder target(String target) {
    this.target = Objects.requireNonNull(target, "target");
    return this;
  }

  /** Speaks TLS; without it, in the clear. */
  public TallygateClientBuilder tls(Tls tls) {
    this.tls = Optional.of(tls);
    return this;
  }

  /** Says how long a logical call may take, its retries included. */
  public TallygateClientBuilder timeout(Duration timeout) {
    this.timeout = positive(timeout);
    return this;
  }

  /** Says whether calls are tried again by themselves. */
  public TallygateClientBuilder retry(boolean retry) {
    this.retry = retry;
    return this;
  }

  /** Says who decides when no answer comes. */
  public TallygateClientBuilder onAbsent(OnAbsent onAbsent) {
    this.onAbsent = Objects.requireNonNull(onAbsent, "onAbsent");
    return this;
  }

  /** Gives the client a buffer. */
  public TallygateClientBuilder buffer(BufferOptions options) {
    this.buffer = Optional.of(options);
    return this;
  }

  /** Says whom to tell what happens. */
  public TallygateClientBuilder hooks(Hooks hooks) {
    this.hooks = Objects.requireNonNull(hooks, "hooks");
    return this;
  }

  /**
   * Returns the client. It begins to connect at once, and does not fail where nobody is.
   *
   * @throws SpoolException if another buffer holds the spool's directory
   */
  public TallygateClient build() {
    Counters counters = new Counters(hooks);
    ScheduledThreadPoolExecutor timer =
        new ScheduledThreadPoolExecutor(
            1,
            task -> {
              Thread thread = new Thread(task, "tallygate-timer");
              thread.setDaemon(true);
              return thread;
            });
    timer.setRemoveOnCancelPolicy(true);
    Link link = Link.open(target, tls, retry, timer);
    try {
      Optional<UsageBuffer> made =
          buffer.map(
              options -> {
                Sender sender =
                    new Sender(new Calls(link.channel(), counters), timeout, counters);
                return new UsageBuffer(options, counters, sender, timer);
              });
      return new TallygateClient(new Core(link, counters, made, onAbsent, timer), timeout);
    } catch (RuntimeException error) {
      link.close();
      timer.shutdownNow();
      throw error;
    }
  }

  static Duration positive(Duration timeout) {
    if (timeout.isNegative() || timeout.isZero()) {
      throw new IllegalArgumentException("a timeout is above 0");
    }
    return timeout;
  }

  private static String defaultTarget() {
    String named = System.getenv(TARGET_VARIABLE);
    return named == null || named.isEmpty() ? DEFAULT_TARGET : named;
  }
}
