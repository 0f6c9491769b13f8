package io.tallygate;

/**
 * What the caller knows about the circumstances of a use; every part may be empty.
 *
 * @param subjectId who used it, inside the tenant
 * @param resourceId what was used
 * @param sessionId the session in which it was used
 * @param region where it was used
 * @param sku the stock-keeping unit it is sold as
 * @param correlationId what ties it to the caller's own traces
 * @param sdk name and version of the client; empty for this one's
 */
public record EventContext(
    String subjectId,
    String resourceId,
    String sessionId,
    String region,
    String sku,
    String correlationId,
    String sdk) {
  /** Nothing known. */
  public static final EventContext EMPTY = new EventContext("", "", "", "", "", "", "");

  /** Returns a builder in which every part is empty. */
  public static Builder builder() {
    return new Builder();
  }

  /** Makes a context part by part. */
  public static final class Builder {
    private String subjectId = "";
    private String resourceId = "";
    private String sessionId = "";
    private String region = "";
    private String sku = "";
    private String correlationId = "";
    private String sdk = "";

    private Builder() {}

    /** Says who used it, inside the tenant. */
    public Builder subjectId(String subjectId) {
      this.subjectId = subjectId;
      return this;
    }

    /** Says what was used. */
    public Builder resourceId(String resourceId) {
      this.resourceId = resourceId;
      return this;
    }

    /** Says in which session. */
    public Builder sessionId(String sessionId) {
      this.sessionId = sessionId;
      return this;
    }

    /** Says where. */
    public Builder region(String region) {
      this.region = region;
      return this;
    }

    /** Says as what it is sold. */
    public Builder sku(String sku) {
      this.sku = sku;
      return this;
    }

    /** Ties it to the caller's own traces. */
    public Builder correlationId(String correlationId) {
      this.correlationId = correlationId;
      return this;
    }

    /** Names another client than this one. */
    public Builder sdk(String sdk) {
      this.sdk = sdk;
      return this;
    }

    /** Returns the context. */
    public EventContext build() {
      return new EventContext(
          subjectId, resourceId, sessionId, region, sku, correlationId, sdk);
    }
  }
}
