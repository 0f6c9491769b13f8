package io.tallygate;

import java.nio.file.Path;
import java.util.Optional;

/**
 * How to speak TLS with the sidecar. All files are PEM.
 *
 * @param caFile whom to trust; empty for those whom the JVM trusts
 * @param certFile the client's own certificate chain
 * @param keyFile its private key, PKCS #8, without a password
 * @param serverName the name to look for in the server's certificate, where it is not the target's
 */
public record Tls(
    Optional<Path> caFile,
    Optional<Path> certFile,
    Optional<Path> keyFile,
    Optional<String> serverName) {
  /** Checks that there is a key where there is a certificate. */
  public Tls {
    if (certFile.isPresent() != keyFile.isPresent()) {
      throw new IllegalArgumentException("certFile and keyFile need each other");
    }
  }

  /** Returns TLS with those whom a file names. */
  public static Tls trusting(Path caFile) {
    return new Tls(Optional.of(caFile), Optional.empty(), Optional.empty(), Optional.empty());
  }

  /** Returns the same with a certificate of the client's own. */
  public Tls withClientCertificate(Path certFile, Path keyFile) {
    return new Tls(caFile, Optional.of(certFile), Optional.of(keyFile), serverName);
  }

  /** Returns the same with another name to look for in the server's certificate. */
  public Tls withServerName(String serverName) {
    return new Tls(caFile, certFile, keyFile, Optional.of(serverName));
  }
}
