/**
 * What middleware of every kind is made of: a charge of one request, and what its answer says of
 * the limits. The project's {@code docs/middleware.md} says what all middleware does alike.
 */
package io.tallygate.metering;
