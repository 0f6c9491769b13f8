package io.tallygate;

import com.google.gson.Gson;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.netty.shaded.io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.bootstrap.Bootstrap;
import io.grpc.netty.shaded.io.netty.channel.EventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.MultiThreadIoEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.epoll.Epoll;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollIoHandler;
import io.grpc.netty.shaded.io.netty.channel.nio.NioIoHandler;
import io.grpc.netty.shaded.io.netty.channel.socket.nio.NioDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.grpc.netty.shaded.io.netty.handler.ssl.SslContextBuilder;
import io.grpc.netty.shaded.io.netty.util.concurrent.DefaultThreadFactory;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.net.UnixDomainSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.logging.Logger;
import javax.net.ssl.SSLException;

/**
 * The connection to the sidecar. It is on the same host, so that what is lost is sought again soon:
 * gRPC's own back-off, which begins with a second, is cut short.
 */
final class Link {
  private static final long BACKOFF_FIRST_MS = 50;
  private static final long BACKOFF_MAX_MS = 1_000;
  private static final long QUIET_MS = 0;
  private static final long GOODBYE_MS = 500;
  private static final String UNIX = "unix:";
  private static final String KEEPALIVE_WARNING = "Unknown channel option 'SO_KEEPALIVE'";
  // Kept, as the JVM forgets loggers, and their filters, that nobody holds.
  private static final Logger BOOTSTRAP = Logger.getLogger(Bootstrap.class.getName());

  private final ManagedChannel channel;
  private final Optional<EventLoopGroup> loops;
  private final ScheduledExecutorService timer;

  private Link(
      ManagedChannel channel, Optional<EventLoopGroup> loops, ScheduledExecutorService timer) {
    this.channel = channel;
    this.loops = loops;
    this.timer = timer;
  }

  static Link open(
      String target, Optional<Tls> tls, boolean retry, ScheduledExecutorService timer) {
    Optional<EventLoopGroup> loops = Optional.empty();
    NettyChannelBuilder builder;
    if (target.startsWith(UNIX)) {
      loops = Optional.of(loops());
      builder = unix(path(target), loops.get());
    } else {
      builder = NettyChannelBuilder.forTarget("dns:///" + target);
    }
    builder.userAgent(Version.SDK).disableServiceConfigLookUp();
    if (retry) {
      builder.enableRetry().defaultServiceConfig(serviceConfig());
    } else {
      builder.disableRetry();
    }
    if (tls.isPresent()) {
      secure(builder, tls.get());
    } else {
      builder.usePlaintext();
    }
    Link link = new Link(builder.build(), loops, timer);
    // Connecting now spares the first call the wait.
    link.channel.getState(true);
    link.watch();
    return link;
  }

  ManagedChannel channel() {
    return channel;
  }

  void close() {
    channel.shutdown();
    try {
      channel.awaitTermination(GOODBYE_MS, TimeUnit.MILLISECONDS);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
    channel.shutdownNow();
    loops.ifPresent(
        group -> group.shutdownGracefully(QUIET_MS, GOODBYE_MS, TimeUnit.MILLISECONDS));
  }

  private void watch() {
    ConnectivityState state = channel.getState(false);
    if (state == ConnectivityState.SHUTDOWN) {
      return;
    }
    if (state == ConnectivityState.TRANSIENT_FAILURE) {
      again(BACKOFF_FIRST_MS);
    } else {
      channel.notifyWhenStateChanged(state, this::watch);
    }
  }

  /** Tries anew after `delay`, and after longer and longer ones while it fails. */
  private void again(long delay) {
    try {
      timer.schedule(
          () -> {
            if (channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE) {
              channel.resetConnectBackoff();
              again(Math.min(2 * delay, BACKOFF_MAX_MS));
            } else {
              watch();
            }
          },
          delay,
          TimeUnit.MILLISECONDS);
    } catch (RejectedExecutionException closed) {
      // The client is closed: nobody waits for the connection any more.
      return;
    }
  }

  private static String path(String target) {
    String rest = target.substring(UNIX.length());
    return rest.startsWith("//") ? rest.substring(2) : rest;
  }

  private static EventLoopGroup loops() {
    DefaultThreadFactory threads = new DefaultThreadFactory("tallygate-io", true);
    return new MultiThreadIoEventLoopGroup(
        1, threads, Epoll.isAvailable() ? EpollIoHandler.newFactory() : NioIoHandler.newFactory());
  }

  /**
   * gRPC sets an option of TCP on every connection, about which Netty warns at each one of a Unix
   * socket: as often as the sidecar is sought, in an outage.
   */
  private static void quieten() {
    BOOTSTRAP.setFilter(entry -> !entry.getMessage().startsWith(KEEPALIVE_WARNING));
  }

  private static NettyChannelBuilder unix(String path, EventLoopGroup loops) {
    quieten();
    NettyChannelBuilder builder;
    if (Epoll.isAvailable()) {
      builder =
          NettyChannelBuilder.forAddress(new DomainSocketAddress(path))
              .channelType(EpollDomainSocketChannel.class, DomainSocketAddress.class);
    } else {
      builder =
          NettyChannelBuilder.forAddress(UnixDomainSocketAddress.of(path))
              .channelType(NioDomainSocketChannel.class, UnixDomainSocketAddress.class);
    }
    // A path is no name that a proxy, or the server, could do something with.
    return builder.eventLoopGroup(loops).overrideAuthority("localhost").proxyDetector(to -> null);
  }

  private static void secure(NettyChannelBuilder builder, Tls tls) {
    SslContextBuilder context = GrpcSslContexts.forClient();
    tls.caFile().ifPresent(file -> context.trustManager(file.toFile()));
    tls.certFile()
        .ifPresent(
            file -> context.keyManager(file.toFile(), tls.keyFile().orElseThrow().toFile()));
    try {
      builder.useTransportSecurity().sslContext(context.build());
    } catch (SSLException error) {
      throw new IllegalArgumentException("TLS cannot be set up: " + error.getMessage(), error);
    }
    tls.serverName().ifPresent(builder::overrideAuthority);
  }

  private static Map<String, ?> serviceConfig() {
    try (InputStream stream = Link.class.getResourceAsStream("service_config.json");
        Reader reader = new InputStreamReader(stream, StandardCharsets.UTF_8)) {
      @SuppressWarnings("unchecked")
      Map<String, ?> config = new Gson().fromJson(reader, Map.class);
      return config;
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
