package io.tallygate;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.Properties;

/** This client's own version, as the build has written it down. */
final class Version {
  /** Name and version, as they stand on every event. */
  static final String SDK = "tallygate-java/" + read();

  private Version() {}

  private static String read() {
    try (InputStream stream = Version.class.getResourceAsStream("client.properties")) {
      Properties properties = new Properties();
      properties.load(stream);
      return properties.getProperty("version");
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
