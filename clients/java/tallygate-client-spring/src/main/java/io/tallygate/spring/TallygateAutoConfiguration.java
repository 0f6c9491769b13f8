package io.tallygate.spring;

import io.tallygate.BufferOptions;
import io.tallygate.Hooks;
import io.tallygate.TallygateClient;
import io.tallygate.TallygateClientBuilder;
import jakarta.servlet.DispatcherType;
import jakarta.servlet.Filter;
import jakarta.servlet.http.HttpServletRequest;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnClass;
import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.boot.context.properties.EnableConfigurationProperties;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.Ordered;

/** Gives a Spring Boot app a client, and a filter where it says what a request costs. */
@AutoConfiguration
@EnableConfigurationProperties(TallygateProperties.class)
public class TallygateAutoConfiguration {
  /** After what authenticates, so that a tenant may be taken from who was proved. */
  public static final int FILTER_ORDER = Ordered.LOWEST_PRECEDENCE - 100;

  /** Returns the client, which is closed with the app, and sends then what is buffered. */
  @Bean(destroyMethod = "close")
  @ConditionalOnMissingBean
  public TallygateClient tallygateClient(
      TallygateProperties properties, ObjectProvider<Hooks> hooks) {
    TallygateClientBuilder builder =
        TallygateClient.builder()
            .timeout(properties.timeout())
            .onAbsent(properties.onAbsent())
            .hooks(hooks.getIfAvailable(() -> Hooks.NONE));
    if (!properties.target().isEmpty()) {
      builder.target(properties.target());
    }
    TallygateProperties.Buffer buffer = properties.buffer();
    if (buffer.enabled()) {
      BufferOptions options = BufferOptions.DEFAULT.withMaxEvents(buffer.maxEvents());
      builder.buffer(
          buffer.spoolDir() == null ? options : options.withSpool(buffer.spoolDir()));
    }
    return builder.build();
  }

  /** What only a servlet app has. */
  @Configuration(proxyBeanMethods = false)
  @ConditionalOnClass(Filter.class)
  @ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.SERVLET)
  static class Web {
    /** Returns the filter, for every path. */
    @Bean
    @ConditionalOnMissingBean(name = "tallygateFilter")
    FilterRegistrationBean<TallygateFilter> tallygateFilter(
        TallygateClient client,
        TallygateProperties properties,
        ObjectProvider<FilterRulesCustomizer> customizers) {
      TallygateProperties.Web web = properties.web();
      FilterRules rules = FilterRules.with(client).mode(web.mode()).headers(web.headers());
      if (!web.meter().isEmpty()) {
        rules.cost(web.meter(), web.amount());
      }
      if (!web.tenantHeader().isEmpty()) {
        rules.tenantHeader(web.tenantHeader());
      }
      rules.exempt(request -> web.exempt().stream().anyMatch(below -> isBelow(request, below)));
      customizers.orderedStream().forEach(each -> each.customize(rules));
      FilterRegistrationBean<TallygateFilter> registration =
          new FilterRegistrationBean<>(rules.filter());
      registration.setOrder(FILTER_ORDER);
      registration.setDispatcherTypes(DispatcherType.REQUEST);
      // Without a word of what a request costs, requests are none of ours.
      registration.setEnabled(
          !web.meter().isEmpty() || customizers.stream().findAny().isPresent());
      return registration;
    }

    /** Asks for the path as the container has resolved it: the URI may hold detours. */
    private static boolean isBelow(HttpServletRequest request, String path) {
      String info = request.getPathInfo();
      String asked = request.getServletPath() + (info == null ? "" : info);
      return asked.equals(path) || asked.startsWith(path + "/");
    }
  }
}
