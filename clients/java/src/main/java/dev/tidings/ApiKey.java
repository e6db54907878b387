// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import io.grpc.CallCredentials;
import io.grpc.Grpc;
import io.grpc.Metadata;
import io.grpc.SecurityLevel;
import io.grpc.Status;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.util.concurrent.Executor;

/** Sends the key with every call; without TLS to this machine only, unless it may go anywhere. */
final class ApiKey extends CallCredentials {
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final String key;
    private final boolean anywhere;

    ApiKey(String key, boolean anywhere) {
        this.key = key;
        this.anywhere = anywhere;
    }

    @Override
    public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
        SocketAddress server = call.getTransportAttrs().get(Grpc.TRANSPORT_ATTR_REMOTE_ADDR);
        if (!anywhere && call.getSecurityLevel() == SecurityLevel.NONE && !isThisMachine(server)) {
            applier.fail(Status.UNAUTHENTICATED.withDescription(
                    "the API key is not sent to " + server + " without TLS; where the network is safe use insecure()"));
            return;
        }
        Metadata headers = new Metadata();
        headers.put(AUTHORIZATION, "Bearer " + key);
        applier.apply(headers);
    }

    private static boolean isThisMachine(SocketAddress server) {
        if (server instanceof InetSocketAddress inet) {
            return inet.getAddress() != null && inet.getAddress().isLoopbackAddress();
        }
        return server != null; // Sockets of other kinds, such as Unix's, do not leave the machine.
    }
}
