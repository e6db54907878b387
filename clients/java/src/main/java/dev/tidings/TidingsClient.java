// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import dev.tidings.v1.EventServiceGrpc;
import dev.tidings.v1.EventServiceGrpc.EventServiceBlockingStub;
import dev.tidings.v1.MissionServiceGrpc;
import dev.tidings.v1.MissionServiceGrpc.MissionServiceBlockingStub;
import dev.tidings.v1.RunServiceGrpc;
import dev.tidings.v1.RunServiceGrpc.RunServiceBlockingStub;
import dev.tidings.v1.TaskServiceGrpc;
import dev.tidings.v1.TaskServiceGrpc.TaskServiceBlockingStub;
import dev.tidings.v1.WatchEventRequest;
import dev.tidings.v1.WatchEventResponse;
import dev.tidings.v1.WatchRunRequest;
import dev.tidings.v1.WatchRunResponse;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptors;
import io.grpc.CompositeChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/**
 * A connection to Tidings, for any number of threads.
 *
 * <p>The stubs are grpc's own, set up so that a call has a deadline of 10 seconds if it is given no other, and is
 * retried when the service cannot be reached. That is safe for changes too: a request without an id gets one. What they
 * throw, {@link TidingsException#from} explains.
 */
public final class TidingsClient implements AutoCloseable {
    private static final Duration KEEPALIVE_INTERVAL = Duration.ofSeconds(30);
    private static final Duration KEEPALIVE_TIMEOUT = Duration.ofSeconds(10);

    private final ManagedChannel channel;
    private final Channel intercepted;
    private final RetryPolicy watchPolicy;
    private final Set<Watch<?>> watches = ConcurrentHashMap.newKeySet();

    private TidingsClient(Builder builder) {
        channel = Grpc.newChannelBuilder(builder.target, builder.channelCredentials())
                .defaultServiceConfig(ServiceConfig.DEFAULT)
                // Finds a server that vanished without a word, so that calls and watches do not wait for it.
                .keepAliveTime(KEEPALIVE_INTERVAL.toNanos(), TimeUnit.NANOSECONDS)
                .keepAliveTimeout(KEEPALIVE_TIMEOUT.toNanos(), TimeUnit.NANOSECONDS)
                .build();
        intercepted = ClientInterceptors.intercept(channel, new RequestIds(), new Deadlines());
        watchPolicy = builder.watchPolicy;
    }

    /** Begins to make a client for the service at the target, a host and port or another name that grpc resolves. */
    public static Builder builder(String target) {
        return new Builder(target);
    }

    public EventServiceBlockingStub events() {
        return EventServiceGrpc.newBlockingStub(intercepted);
    }

    public TaskServiceBlockingStub tasks() {
        return TaskServiceGrpc.newBlockingStub(intercepted);
    }

    public MissionServiceBlockingStub missions() {
        return MissionServiceGrpc.newBlockingStub(intercepted);
    }

    public RunServiceBlockingStub runs() {
        return RunServiceGrpc.newBlockingStub(intercepted);
    }

    /** Returns the channel of the stubs, for stubs of other kinds: with futures or callbacks. */
    public Channel channel() {
        return intercepted;
    }

    /** Watches events. Close the watch when it is of no more use. */
    public Watch<WatchEventResponse> watch(WatchEventRequest request) {
        return track(new Watch<>(new EventSource(channel, request), watchPolicy));
    }

    /**
     * Watches events and tells the observer, one message after the other in a thread of the watch: the next one waits
     * until the observer returns. Of {@code onCompleted} and {@code onError} one is called in the end; after
     * {@code close} it is {@code onError}, with CANCELLED.
     */
    public WatchHandle watch(WatchEventRequest request, StreamObserver<WatchEventResponse> observer) {
        return deliver(watch(request), observer);
    }

    /** Watches a run with its plan. Close the watch when it is of no more use. */
    public Watch<WatchRunResponse> watchRun(WatchRunRequest request) {
        return track(new Watch<>(new RunSource(channel, request), watchPolicy));
    }

    /** Watches a run with its plan and tells the observer, as {@link #watch(WatchEventRequest, StreamObserver)}. */
    public WatchHandle watchRun(WatchRunRequest request, StreamObserver<WatchRunResponse> observer) {
        return deliver(watchRun(request), observer);
    }

    /** Ends all calls and watches, and the connection. */
    @Override
    public void close() {
        channel.shutdownNow();
        watches.forEach(Watch::close);
    }

    private <M> Watch<M> track(Watch<M> watch) {
        watches.add(watch);
        watch.onEnd(() -> watches.remove(watch));
        if (channel.isShutdown()) {
            watch.close(); // It may have come too late for close() to see it.
        }
        return watch;
    }

    private static <M> WatchHandle deliver(Watch<M> watch, StreamObserver<M> observer) {
        Thread thread = new Thread(() -> watch.deliverTo(observer), "tidings-watch");
        thread.setDaemon(true);
        thread.start();
        return watch;
    }

    /** Says how to connect. Not set: in plaintext to this machine, and to others with TLS; without a key. */
    public static final class Builder {
        private static final Pattern THIS_MACHINE =
                Pattern.compile("unix(-abstract)?:.*|(\\w+:///)?(localhost|127(\\.\\d+){3}|\\[::1])(:\\d+)?");

        private final String target;
        private ChannelCredentials transport;
        private String apiKey = "";
        private boolean keyAnywhere;
        private RetryPolicy watchPolicy = RetryPolicy.DEFAULT;

        private Builder(String target) {
            this.target = target;
            transport = THIS_MACHINE.matcher(target).matches()
                    ? InsecureChannelCredentials.create()
                    : TlsChannelCredentials.create();
        }

        /** Sends the key with every call. */
        public Builder apiKey(String apiKey) {
            this.apiKey = apiKey;
            return this;
        }

        /** Uses TLS with other settings, such as other authorities: see {@link TlsChannelCredentials#newBuilder}. */
        public Builder tls(ChannelCredentials transport) {
            this.transport = transport;
            return this;
        }

        /** Does without TLS and sends the key to any server: for networks that are safe by other means. */
        public Builder insecure() {
            transport = InsecureChannelCredentials.create();
            keyAnywhere = true;
            return this;
        }

        /** Lets a watch fail that has been without a message for so long. Not set: it tries until it is closed. */
        public Builder giveUpAfter(Duration limit) {
            watchPolicy = watchPolicy.withGiveUpAfter(limit);
            return this;
        }

        /** Lets tests wait for less long. */
        Builder watchPolicy(RetryPolicy watchPolicy) {
            this.watchPolicy = watchPolicy;
            return this;
        }

        public TidingsClient build() {
            return new TidingsClient(this);
        }

        private ChannelCredentials channelCredentials() {
            return apiKey.isEmpty() ? transport : CompositeChannelCredentials.create(transport, key());
        }

        ApiKey key() {
            return new ApiKey(apiKey, keyAnywhere);
        }
    }
}
