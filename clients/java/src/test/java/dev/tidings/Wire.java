// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import io.grpc.BindableService;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.ServerInterceptor;
import java.io.IOException;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;

/** A server on a port of its own, and clients of it that do not wait for long. */
final class Wire implements AutoCloseable {
    static final RetryPolicy FAST = new RetryPolicy(Duration.ofMillis(500), Duration.ofMillis(10), Optional.empty());

    private static final long HANG_SECONDS = 30;

    private final Server server;

    Wire(BindableService service, ServerInterceptor... interceptors) throws IOException {
        var builder = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create()).addService(service);
        for (ServerInterceptor interceptor : interceptors) {
            builder.intercept(interceptor);
        }
        server = builder.build().start();
    }

    String target() {
        return "127.0.0.1:" + server.getPort();
    }

    TidingsClient client() {
        return TidingsClient.builder(target()).watchPolicy(FAST).build();
    }

    /** Waits for what another thread puts into the queue. */
    static <T> T take(BlockingQueue<T> queue) throws InterruptedException {
        T item = queue.poll(HANG_SECONDS, TimeUnit.SECONDS);
        if (item == null) {
            throw new AssertionError("nothing came");
        }
        return item;
    }

    @Override
    public void close() {
        server.shutdownNow();
    }
}
