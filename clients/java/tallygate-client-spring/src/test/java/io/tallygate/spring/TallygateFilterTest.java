package io.tallygate.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.tallygate.Item;
import io.tallygate.LimitStatus;
import io.tallygate.TallygateClient;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.web.servlet.context.ServletWebServerApplicationContext;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.servlet.mvc.method.annotation.StreamingResponseBody;

/**
 * Requests to a real Spring Boot app on Tomcat, charged by a real sidecar, at TALLYGATE_TARGET: one
 * with the meters scarce (10 at most) and tokens (1,000 at most).
 */
@Tag("sidecar")
class TallygateFilterTest {
  private static ConfigurableApplicationContext app;
  private static TallygateClient client;
  private static HttpClient http;
  private static String base;

  private final String tenant = "java-" + UUID.randomUUID();

  @BeforeAll
  static void start() {
    app =
        new SpringApplication(App.class)
            .run(
                "--server.port=0",
                "--server.address=127.0.0.1",
                "--spring.main.banner-mode=off",
                "--tallygate.timeout=20s",
                "--tallygate.web.tenant-header=X-Tenant");
    int port = ((ServletWebServerApplicationContext) app).getWebServer().getPort();
    base = "http://127.0.0.1:" + port;
    client = app.getBean(TallygateClient.class);
    http = HttpClient.newHttpClient();
  }

  @AfterAll
  static void stop() {
    app.close();
  }

  private HttpResponse<String> get(String path) throws IOException, InterruptedException {
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(base + path)).header("X-Tenant", tenant).build();
    return http.send(request, HttpResponse.BodyHandlers.ofString());
  }

  private long used(String meter) {
    return client.getQuota(tenant, meter).limits().stream().mapToLong(LimitStatus::used).sum();
  }

  /** Waits for what is settled after its response: the test's own deadline is the bound. */
  private static void until(BooleanSupplier holds) {
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
    while (!holds.getAsBoolean()) {
      assertTrue(System.nanoTime() < end, "it never came to that");
      LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(5));
    }
  }

  @Test
  void successIsChargedAndTellsOfItsLimits() throws Exception {
    HttpResponse<String> answer = get("/scarce/3");
    assertEquals(200, answer.statusCode());
    assertEquals("\"ten\";q=10", answer.headers().firstValue("RateLimit-Policy").orElseThrow());
    String left = answer.headers().firstValue("RateLimit").orElseThrow();
    assertTrue(left.startsWith("\"ten\";r=7"), left);
    until(() -> used("scarce") == 3);
  }

  @Test
  void atTheLimitTheAppIsNotAsked() throws Exception {
    assertEquals(200, get("/scarce/10").statusCode());
    HttpResponse<String> answer = get("/scarce/1");
    assertEquals(429, answer.statusCode());
    assertEquals(
        "application/problem+json", answer.headers().firstValue("Content-Type").orElseThrow());
    assertEquals("no-store", answer.headers().firstValue("Cache-Control").orElseThrow());
    JsonObject body = JsonParser.parseString(answer.body()).getAsJsonObject();
    assertEquals("ten", body.getAsJsonArray("violated-policies").get(0).getAsString());
    assertEquals(
        "https://iana.org/assignments/http-problem-types#quota-exceeded",
        body.get("type").getAsString());
    assertTrue(
        answer.headers().firstValue("RateLimit").orElseThrow().startsWith("\"ten\";r=0"));
  }

  @Test
  void failuresAreNotCharged() throws Exception {
    assertEquals(404, get("/nowhere").statusCode());
    assertEquals(500, get("/broken").statusCode());
    assertEquals(418, get("/status/418").statusCode());
    until(() -> used("tokens") == 0);
  }

  @Test
  void theAppSaysWhatItCameTo() throws Exception {
    assertEquals(200, get("/tokens/7").statusCode());
    until(() -> used("tokens") == 7);
  }

  @Test
  void whatIsCancelledIsNotCharged() throws Exception {
    assertEquals(200, get("/free").statusCode());
    until(() -> used("tokens") == 0);
  }

  @Test
  void aStreamIsChargedByItsBytes() throws Exception {
    HttpResponse<String> answer = get("/stream");
    assertEquals("é".repeat(100), answer.body());
    until(() -> used("tokens") == 200);
  }

  @Test
  void textIsChargedByItsBytes() throws Exception {
    HttpResponse<String> answer = get("/text");
    assertEquals("größe 🚀", answer.body());
    until(() -> used("tokens") == answer.body().getBytes(StandardCharsets.UTF_8).length);
  }

  @Test
  void anotherThreadMayAnswer() throws Exception {
    assertEquals("late", get("/callable").body());
    until(() -> used("tokens") == 4);
  }

  @Test
  void aClientThatLeavesIsChargedTillThen() throws Exception {
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(base + "/endless")).header("X-Tenant", tenant).build();
    var answer = http.send(request, HttpResponse.BodyHandlers.ofInputStream());
    assertEquals(1, answer.body().readNBytes(1).length);
    answer.body().close();
    until(() -> client.check(
            io.tallygate.Charge.of(tenant, "tokens", 1)).limits().stream()
        .anyMatch(limit -> limit.used() > 0 && limit.used() != 900));
  }

  @Test
  void whoIsNobodyIsNotServed() throws Exception {
    HttpRequest request = HttpRequest.newBuilder(URI.create(base + "/scarce/1")).build();
    HttpResponse<String> answer = http.send(request, HttpResponse.BodyHandlers.ofString());
    assertEquals(400, answer.statusCode());
    assertTrue(answer.body().contains("urn:tallygate:problem:tenant-missing"));
    HttpRequest odd =
        HttpRequest.newBuilder(URI.create(base + "/scarce/1")).header("X-Tenant", "a b").build();
    answer = http.send(odd, HttpResponse.BodyHandlers.ofString());
    assertEquals(400, answer.statusCode());
    assertTrue(answer.body().contains("urn:tallygate:problem:tenant-invalid"));
  }

  @Test
  void theAppCannotWriteOurFields() throws Exception {
    HttpResponse<String> answer = get("/forged");
    assertEquals(1, answer.headers().allValues("RateLimit").size());
    assertFalse(answer.headers().allValues("RateLimit").contains("mine"));
  }

  @Test
  void whatIsExemptIsNotAsked() throws Exception {
    HttpRequest request = HttpRequest.newBuilder(URI.create(base + "/actuator/x")).build();
    HttpResponse<String> answer = http.send(request, HttpResponse.BodyHandlers.ofString());
    assertEquals(404, answer.statusCode());
    // A detour to what is charged is none.
    HttpRequest detour =
        HttpRequest.newBuilder(URI.create(base + "/actuator/../scarce/1")).build();
    answer = http.send(detour, HttpResponse.BodyHandlers.ofString());
    assertEquals(400, answer.statusCode());
  }

  /** The app under test, as somebody would write it. */
  @Configuration
  @EnableAutoConfiguration
  static class App {
    private static final Map<String, Item> COSTS =
        Map.of(
            "tokens", Item.of("tokens", 20),
            "free", Item.of("tokens", 20),
            "callable", Item.of("tokens", 4),
            "broken", Item.of("tokens", 5),
            "status", Item.of("tokens", 5),
            "nowhere", Item.of("tokens", 5),
            "forged", Item.of("scarce", 1));

    @Bean
    FilterRulesCustomizer rules() {
      return rules -> rules.cost(App::cost);
    }

    @Bean
    FilterRulesCustomizer bytes() {
      return rules -> rules.responseBytes("tokens", 900).measured(App::measured);
    }

    private static List<Item> cost(HttpServletRequest request) {
      String[] path = request.getServletPath().split("/");
      if (path[1].equals("scarce")) {
        return List.of(Item.of("scarce", Long.parseLong(path[2])));
      }
      Item item = COSTS.get(path[1]);
      return item == null ? List.of() : List.of(item);
    }

    private static boolean measured(HttpServletRequest request) {
      return List.of("/stream", "/text", "/endless").contains(request.getServletPath());
    }

    @Bean
    Routes routes() {
      return new Routes();
    }
  }

  /** What the app answers. */
  @RestController
  static class Routes {
    @GetMapping("/scarce/{amount}")
    String scarce(@PathVariable("amount") long amount) {
      return "did " + amount;
    }

    @GetMapping("/tokens/{amount}")
    String tokens(@PathVariable("amount") long amount, HttpServletRequest request) {
      TallygateFilter.charge(request).set("tokens", amount);
      return "ok";
    }

    @GetMapping("/free")
    String free(HttpServletRequest request) {
      TallygateFilter.charge(request).cancel();
      return "ok";
    }

    @GetMapping("/broken")
    String broken() {
      throw new IllegalStateException("broken, as it should be");
    }

    @GetMapping("/status/{status}")
    void status(@PathVariable("status") int status, HttpServletResponse response) {
      response.setStatus(status);
    }

    @GetMapping("/callable")
    Callable<String> callable() {
      return () -> "late";
    }

    @GetMapping("/text")
    void text(HttpServletResponse response) throws IOException {
      response.setContentType("text/plain;charset=UTF-8");
      response.getWriter().print("größe \ud83d");
      response.getWriter().print("\ude80");
    }

    @GetMapping("/forged")
    String forged(HttpServletResponse response) {
      response.addHeader("ratelimit", "mine");
      return "ok";
    }

    @GetMapping("/stream")
    StreamingResponseBody stream() {
      return out -> {
        for (int chunk = 0; chunk < 100; chunk++) {
          out.write("é".getBytes(StandardCharsets.UTF_8));
          out.flush();
        }
      };
    }

    @GetMapping("/endless")
    StreamingResponseBody endless() {
      return out -> {
        while (true) {
          out.write('x');
          out.flush();
          LockSupport.parkNanos(Duration.ofMillis(1).toNanos());
        }
      };
    }
  }
}
