package io.tallygate.spring;

import io.tallygate.Charge;
import io.tallygate.QuotaExceededException;
import io.tallygate.TallygateException;
import io.tallygate.metering.RequestCharge;
import jakarta.servlet.AsyncEvent;
import jakarta.servlet.AsyncListener;
import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.util.Map;

/**
 * Charges requests: asks before the app sees one, and settles once it was answered.
 *
 * <p>The app finds the charge by {@link #charge}. Settling delays no response.
 */
public final class TallygateFilter implements Filter {
  /** The request's attribute that holds its charge. */
  public static final String CHARGE = "io.tallygate.charge";

  private final FilterRules rules;

  TallygateFilter(FilterRules rules) {
    this.rules = rules;
  }

  /**
   * Returns the charge of a request.
   *
   * @throws IllegalStateException if the request is not charged
   */
  public static RequestCharge charge(ServletRequest request) {
    if (request.getAttribute(CHARGE) instanceof RequestCharge charge) {
      return charge;
    }
    throw new IllegalStateException("the request is not charged");
  }

  @Override
  public void doFilter(ServletRequest request, ServletResponse response, FilterChain chain)
      throws IOException, ServletException {
    if (request instanceof HttpServletRequest asked
        && response instanceof HttpServletResponse answer
        && request.getAttribute(CHARGE) == null
        && !rules.exempt(asked)) {
      decide(asked, answer, chain);
    } else {
      chain.doFilter(request, response);
    }
  }

  private void decide(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
      throws IOException, ServletException {
    String tenant = rules.tenant(request);
    if (tenant == null || tenant.isEmpty()) {
      rules.write(response, Problem.noTenant(rules.challenge()));
      return;
    }
    Charge asked = rules.charge(tenant, request);
    if (asked.items().isEmpty()) {
      chain.doFilter(request, response);
      return;
    }
    RequestCharge charge;
    try {
      charge = rules.begin(asked);
    } catch (QuotaExceededException refused) {
      rules.fields(refused.decision()).forEach(response::setHeader);
      rules.write(response, Problem.refused(refused.decision()));
      return;
    } catch (TallygateException error) {
      rules.write(response, Problem.failed(error));
      return;
    }
    serve(request, response, chain, charge);
  }

  private void serve(
      HttpServletRequest request,
      HttpServletResponse response,
      FilterChain chain,
      RequestCharge charge)
      throws IOException, ServletException {
    Map<String, String> fields = rules.fields(charge.decision());
    fields.forEach(response::setHeader);
    request.setAttribute(CHARGE, charge);
    MeteredResponse metered =
        new MeteredResponse(response, fields, rules.responseMeter(request));
    try {
      chain.doFilter(request, metered);
    } catch (IOException | ServletException | RuntimeException | Error error) {
      ended(metered, charge, true);
      throw error;
    }
    if (request.isAsyncStarted()) {
      request.getAsyncContext().addListener(new Ending(metered, charge));
    } else {
      ended(metered, charge, false);
    }
  }

  /** Settles by how the response has ended. */
  private void ended(MeteredResponse response, RequestCharge charge, boolean failed) {
    boolean charged = rules.charged(response.getStatus());
    if (response.abandoned()) {
      // The client has left: what it was sent by then is charged.
      charged = charged && response.isCommitted();
    } else {
      charged = charged && !failed;
    }
    if (charged) {
      response.meter().ifPresent(meter -> charge.counted(meter, response.bytes()));
    }
    charge.end(charged);
  }

  /** Settles what is answered by another thread than the one that has begun it. */
  private final class Ending implements AsyncListener {
    private final MeteredResponse response;
    private final RequestCharge charge;
    private volatile boolean failed;

    Ending(MeteredResponse response, RequestCharge charge) {
      this.response = response;
      this.charge = charge;
    }

    @Override
    public void onComplete(AsyncEvent event) {
      ended(response, charge, failed);
    }

    @Override
    public void onTimeout(AsyncEvent event) {
      failed = true;
    }

    @Override
    public void onError(AsyncEvent event) {
      failed = true;
    }

    @Override
    public void onStartAsync(AsyncEvent event) {
      event.getAsyncContext().addListener(this);
    }
  }
}
