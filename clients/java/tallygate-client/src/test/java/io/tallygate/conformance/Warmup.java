package io.tallygate.conformance;

import io.grpc.Server;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import io.tallygate.Charge;
import io.tallygate.TallygateClient;
import io.tallygate.TallygateException;
import io.tallygate.v1.CheckAndConsumeRequest;
import io.tallygate.v1.CheckAndConsumeResponse;
import io.tallygate.v1.QuotaServiceGrpc;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.time.Duration;

/** Loads what calls need, by calls to a server of its own. */
final class Warmup {
  private static final int CALLS = 20;

  private Warmup() {}

  static void run() throws IOException {
    Server server =
        NettyServerBuilder.forAddress(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0))
            .addService(new Granting())
            .build()
            .start();
    try (TallygateClient client =
        TallygateClient.builder()
            .target("127.0.0.1:" + server.getPort())
            .timeout(Duration.ofSeconds(10))
            .build()) {
      for (int call = 0; call < CALLS; call++) {
        client.checkAndConsume(Charge.of("warmup", "requests", 1));
      }
      server.shutdownNow().awaitTermination();
      client.checkAndConsume(Charge.of("warmup", "requests", 1));
    } catch (TallygateException expected) {
      // The way of errors is warm now too.
      return;
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private static final class Granting extends QuotaServiceGrpc.QuotaServiceImplBase {
    @Override
    public void checkAndConsume(
        CheckAndConsumeRequest request, StreamObserver<CheckAndConsumeResponse> reply) {
      reply.onNext(CheckAndConsumeResponse.newBuilder().setAllowed(true).build());
      reply.onCompleted();
    }
  }
}
