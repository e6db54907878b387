// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import dev.tidings.v1.WaitTaskStatusRequest;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.time.Duration;
import java.util.concurrent.TimeUnit;

/** Gives every unary call a deadline, if the caller gave none. */
final class Deadlines implements ClientInterceptor {
    static final Duration DEFAULT = Duration.ofSeconds(10);

    private static final Duration DEFAULT_WAIT = Duration.ofSeconds(30); // Of the service.
    private static final Duration WAIT_SLACK = Duration.ofSeconds(5);

    @Override
    public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
        return options.getDeadline() == null && method.getType() == MethodDescriptor.MethodType.UNARY
                ? new TimedCall<>(method, options, next)
                : next.newCall(method, options);
    }

    static Duration deadline(Object request) {
        if (request instanceof WaitTaskStatusRequest wait) {
            Duration timeout = wait.hasTimeout() ? WatchSource.duration(wait.getTimeout()) : DEFAULT_WAIT;
            return timeout.plus(WAIT_SLACK);
        }
        return DEFAULT;
    }

    /** Starts the call when its request is known, since the deadline depends on it. */
    private static final class TimedCall<Q, R> extends ForwardingClientCall<Q, R> {
        private final MethodDescriptor<Q, R> method;
        private final CallOptions options;
        private final Channel next;
        private Listener<R> listener;
        private Metadata headers;
        private int requested;
        private ClientCall<Q, R> call;

        TimedCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
            this.method = method;
            this.options = options;
            this.next = next;
        }

        @Override
        public void start(Listener<R> listener, Metadata headers) {
            this.listener = listener;
            this.headers = headers;
        }

        @Override
        public void request(int messages) {
            if (call == null) {
                requested += messages;
            } else {
                call.request(messages);
            }
        }

        @Override
        public void sendMessage(Q request) {
            begin(deadline(request));
            call.sendMessage(request);
        }

        @Override
        protected ClientCall<Q, R> delegate() {
            if (call == null) {
                begin(DEFAULT);
            }
            return call;
        }

        private void begin(Duration deadline) {
            call = next.newCall(method, options.withDeadlineAfter(deadline.toNanos(), TimeUnit.NANOSECONDS));
            call.start(listener, headers);
            call.request(requested);
        }
    }
}
