/**
 * The client of the Tallygate quota and metering sidecar.
 *
 * <p>{@link io.tallygate.TallygateClient} asks before costly work and tells after it. What it
 * promises over failures is the same in every language, and written down in the project's
 * {@code docs/clients.md}.
 */
package io.tallygate;
