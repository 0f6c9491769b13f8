/** Charges the calls of gRPC servers. */
package io.tallygate.grpc;
