// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;

/** One connection's part of a watch. It holds no more messages than it has asked for. */
final class WatchStream<M> {
    private static final int ASKED_AHEAD = 32;

    /** A message, or how the stream ended. */
    record Item<M>(M message, Status status, Metadata trailers) {}

    private final ClientCall<?, M> call;
    private final BlockingQueue<Item<M>> items = new ArrayBlockingQueue<>(ASKED_AHEAD + 1); // And the end.

    private WatchStream(ClientCall<?, M> call) {
        this.call = call;
    }

    static <Q, M> WatchStream<M> open(ManagedChannel channel, MethodDescriptor<Q, M> method, Q request) {
        // The watch has waited already; the channel's own wait is up to two minutes.
        channel.resetConnectBackoff();
        ClientCall<Q, M> call = channel.newCall(method, CallOptions.DEFAULT);
        WatchStream<M> stream = new WatchStream<>(call);
        call.start(stream.new Listener(), new Metadata());
        call.request(ASKED_AHEAD);
        call.sendMessage(request);
        call.halfClose();
        return stream;
    }

    /** Waits for the next message or the end. Empty when neither came in time. */
    Optional<Item<M>> next(Duration timeout) throws InterruptedException {
        Item<M> item = items.poll(timeout.toNanos(), TimeUnit.NANOSECONDS);
        if (item != null && item.message() != null) {
            call.request(1);
        }
        return Optional.ofNullable(item);
    }

    void cancel(String why) {
        call.cancel(why, null);
    }

    private final class Listener extends ClientCall.Listener<M> {
        @Override
        public void onMessage(M message) {
            items.add(new Item<>(message, null, null));
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            items.add(new Item<>(null, status, trailers));
        }
    }
}
