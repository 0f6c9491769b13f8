package io.tallygate.spring;

import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;

/** Writes the body of an answer that is not the app's; status and headers are set already. */
@FunctionalInterface
public interface ProblemWriter {
  /** Writes the body, and says its content type. */
  void write(Problem problem, HttpServletResponse response) throws IOException;
}
