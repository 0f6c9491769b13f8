package io.tallygate.conformance;

import com.google.gson.JsonObject;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.tallygate.Charge;
import io.tallygate.TallygateClient;
import io.tallygate.v1.CheckAndConsumeRequest;
import io.tallygate.v1.Item;
import io.tallygate.v1.QuotaServiceGrpc;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/** Measures what a call takes, by the client or by the bare stub. */
final class Bench {
  private static final double NANOS_PER_MICRO = 1e3;

  private final TallygateClient client;
  private final String target;
  private final Charge charge;
  private final boolean bare;
  private final int calls;
  private final int workers;
  private final int warmup;

  Bench(TallygateClient client, String target, JsonObject asked) {
    this.client = client;
    this.target = target;
    Charge given = Words.charge(asked);
    String tenant = given.tenantId().isEmpty() ? "bench" : given.tenantId();
    this.charge =
        given.items().isEmpty()
            ? Charge.of(tenant, "requests", 1)
            : Charge.builder(tenant).items(given.items()).build();
    this.bare = Words.text(asked, "how").equals("bare");
    this.calls = (int) Words.number(asked, "calls", 1_000);
    this.workers = (int) Words.number(asked, "concurrency", 1);
    this.warmup = (int) Words.number(asked, "warmup", 0);
  }

  JsonObject run() throws Exception {
    ExecutorService threads = Executors.newFixedThreadPool(workers);
    ManagedChannel channel = ManagedChannelBuilder.forTarget(target).usePlaintext().build();
    try {
      Runnable call = bare ? bare(channel) : () -> client.checkAndConsume(charge);
      every(threads, call, warmup / workers);
      long began = System.nanoTime();
      long[] taken = every(threads, call, calls / workers);
      double seconds = (System.nanoTime() - began) / 1e9;
      Arrays.sort(taken);
      JsonObject told = new JsonObject();
      told.addProperty("seconds", seconds);
      told.addProperty("mean_us", Arrays.stream(taken).average().orElse(0) / NANOS_PER_MICRO);
      told.addProperty("p99_us", taken[(int) (taken.length * 0.99)] / NANOS_PER_MICRO);
      return told;
    } finally {
      threads.shutdown();
      channel.shutdownNow();
    }
  }

  private Runnable bare(ManagedChannel channel) {
    var stub = QuotaServiceGrpc.newBlockingStub(channel);
    var request =
        CheckAndConsumeRequest.newBuilder()
            .setTenantId(charge.tenantId())
            .addAllItems(
                charge.items().stream()
                    .map(
                        item ->
                            Item.newBuilder()
                                .setMeter(item.meter())
                                .setAmount(item.amount())
                                .build())
                    .toList())
            .build();
    return () -> stub.withDeadlineAfter(1, TimeUnit.SECONDS).checkAndConsume(request);
  }

  private long[] every(ExecutorService threads, Runnable call, int each) throws Exception {
    Callable<long[]> work =
        () -> {
          long[] taken = new long[each];
          for (int index = 0; index < each; index++) {
            long began = System.nanoTime();
            call.run();
            taken[index] = System.nanoTime() - began;
          }
          return taken;
        };
    List<long[]> lists = new ArrayList<>();
    for (Future<long[]> done :
        threads.invokeAll(java.util.Collections.nCopies(workers, work))) {
      lists.add(done.get());
    }
    return lists.stream().flatMapToLong(Arrays::stream).toArray();
  }
}
