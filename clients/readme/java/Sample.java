import io.grpc.Status;
import io.tallygate.BufferOptions;
import io.tallygate.Charge;
import io.tallygate.Decision;
import io.tallygate.Hooks;
import io.tallygate.InvalidRequestException;
import io.tallygate.OnAbsent;
import io.tallygate.TallygateClient;
import io.tallygate.Tls;
import io.tallygate.UnavailableException;
import io.tallygate.Usage;
import java.nio.file.Path;
import java.time.Duration;

/** What the README of the Java client shows, as one program beside a sidecar. */
public final class Sample {
  public static void main(String[] arguments) {
    // [first-call]
    // At TALLYGATE_TARGET, else at 127.0.0.1:50051.
    TallygateClient client = TallygateClient.builder().build();

    Decision decision = client.checkAndConsume(Charge.of("acme", "requests", 1));
    if (decision.allowed()) {
      System.out.printf("go ahead, %d left%n", decision.limits().get(0).remaining());
    } else {
      System.out.printf("come back in %s: %s%n", decision.retryAfter(), decision.refusedBy());
    }
    // [/first-call]

    // [reserve]
    int sent = client.withReservation(Charge.of("acme", "egress_bytes", 50_000), held -> {
      int bytes = "the response".length();
      held.actual("egress_bytes", bytes);
      return bytes; // what is thrown gives all of it back
    });
    // [/reserve]
    System.out.printf("sent %d bytes%n", sent);

    // [buffer]
    TallygateClient buffered =
        TallygateClient.builder().buffer(BufferOptions.DEFAULT.withSpool(Path.of("spool"))).build();
    buffered.buffer().record(Usage.of("acme", "egress_bytes", 1_200)); // returns at once
    if (!buffered.close(Duration.ofSeconds(10))) {
      System.out.println("the rest is in the spool, for the next start");
    }
    // [/buffer]
    System.out.println("delivered");

    policy();
    // [errors]
    try {
      client.checkAndConsume(Charge.of("acme", "requests", 0));
    } catch (InvalidRequestException error) {
      System.out.printf("%s: %s%n", error.reason(), error.field());
    } catch (UnavailableException error) {
      System.out.printf("nobody answered; ask again as %s%n", error.operationId());
    }
    // [/errors]
    hooks();
    client.close();
  }

  private static void policy() {
    // [policy]
    try (TallygateClient lenient = TallygateClient.builder().onAbsent(OnAbsent.OPEN).build()) {
      Decision decision = lenient.checkAndConsume(Charge.of("acme", "requests", 1));
      if (decision.local()) {
        System.out.println("no sidecar: let pass, and counted as localOpen");
      }
      System.out.printf("counted %d%n", lenient.stats().localOpen());
    }
    // [/policy]
  }

  private static void hooks() {
    // [hooks]
    Hooks hooks = new Hooks() {
      @Override
      public void onCall(String method, Status.Code code, Duration took) {
        System.out.printf("%s: %s%n", method, code);
      }
    };
    try (TallygateClient watched = TallygateClient.builder().hooks(hooks).build()) {
      watched.getQuota("acme");
    }
    // [/hooks]
  }

  /** Connects with TLS, where a target has it. */
  static TallygateClient secured() {
    // [tls]
    Tls tls = Tls.trusting(Path.of("ca.pem"))
        .withClientCertificate(Path.of("app.pem"), Path.of("app.key"));
    TallygateClient client =
        TallygateClient.builder().target("sidecar.internal:50051").tls(tls).build();
    // [/tls]
    return client;
  }
}
