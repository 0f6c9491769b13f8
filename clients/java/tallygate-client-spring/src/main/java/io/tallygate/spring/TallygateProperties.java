package io.tallygate.spring;

import io.tallygate.OnAbsent;
import io.tallygate.metering.MeteringMode;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.springframework.boot.context.properties.ConfigurationProperties;
import org.springframework.boot.context.properties.bind.DefaultValue;

/**
 * What a Spring Boot app may say of Tallygate in its configuration.
 *
 * @param target where the sidecar is; empty for what the environment says
 * @param timeout how long a logical call may take
 * @param onAbsent who decides when no answer comes
 * @param buffer whether, and how, usage is buffered
 * @param web how requests are charged
 */
@ConfigurationProperties("tallygate")
public record TallygateProperties(
    @DefaultValue("") String target,
    @DefaultValue("1s") Duration timeout,
    @DefaultValue("closed") OnAbsent onAbsent,
    @DefaultValue Buffer buffer,
    @DefaultValue Web web) {
  /**
   * How usage is buffered.
   *
   * @param enabled whether it is
   * @param maxEvents entries that may wait
   * @param spoolDir where they are kept; null for memory alone
   */
  public record Buffer(
      @DefaultValue("true") boolean enabled,
      @DefaultValue("10000") int maxEvents,
      Path spoolDir) {}

  /**
   * How requests are charged.
   *
   * @param meter the meter of a request; empty for none, unless a customizer says a cost
   * @param amount what a request costs of it
   * @param tenantHeader the header that says who pays, which only something in front may set
   * @param mode when requests are charged
   * @param headers whether responses tell of the limits
   * @param exempt paths that pass uncharged, with all below them
   */
  public record Web(
      @DefaultValue("") String meter,
      @DefaultValue("1") long amount,
      @DefaultValue("") String tenantHeader,
      @DefaultValue("reserve") MeteringMode mode,
      @DefaultValue("true") boolean headers,
      @DefaultValue("/actuator") List<String> exempt) {}
}
