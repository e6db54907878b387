// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import java.time.Duration;
import java.util.Optional;

/** What the watches of WatchEvent and WatchRun differ in. */
interface WatchSource<M> {
    Duration DEFAULT_HEARTBEAT = Duration.ofSeconds(15);

    /** Opens a stream that goes on after the token, or starts as the caller asked if it is empty. */
    WatchStream<M> open(String resumeToken, Optional<Duration> maxDuration);

    Signal signal(M message);

    /** Returns the token that the caller starts from; empty if none. */
    String resumeToken();

    Duration heartbeat();

    Optional<Duration> maxDuration();

    static Duration duration(com.google.protobuf.Duration duration) {
        return Duration.ofSeconds(duration.getSeconds(), duration.getNanos());
    }

    static com.google.protobuf.Duration duration(Duration duration) {
        return com.google.protobuf.Duration.newBuilder()
                .setSeconds(duration.getSeconds())
                .setNanos(duration.getNano())
                .build();
    }
}
