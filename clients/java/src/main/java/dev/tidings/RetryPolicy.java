// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import dev.tidings.v1.ErrorReason;
import java.time.Duration;
import java.util.Optional;
import java.util.random.RandomGenerator;

/**
 * When a watch begins again, and when it does not.
 *
 * @param heartbeatSlack how much longer than two heartbeats a stream may be silent
 * @param backoffBase the longest wait before the first of several reconnects in a row
 * @param giveUpAfter how long a watch may be without a message, all its reconnects included; unset: for ever
 */
record RetryPolicy(Duration heartbeatSlack, Duration backoffBase, Optional<Duration> giveUpAfter) {
    static final RetryPolicy DEFAULT = new RetryPolicy(Duration.ofSeconds(5), Duration.ofMillis(100), Optional.empty());

    private static final Duration BACKOFF_MAX = Duration.ofSeconds(10);
    private static final Duration ASKED_MAX = Duration.ofSeconds(60);

    static boolean isRetryable(TidingsException failure) {
        boolean saidByService = failure.reason() != ErrorReason.ERROR_REASON_UNSPECIFIED;
        return switch (failure.code()) {
            case UNAVAILABLE, DEADLINE_EXCEEDED -> true;
            // With a cause it is ours: a message that cannot be parsed, and could not be the next time either.
            case CANCELLED -> failure.getStatus().getCause() == null;
            // What a proxy or the transport makes of a stream that was cut.
            case UNKNOWN, INTERNAL -> !saidByService;
            case RESOURCE_EXHAUSTED -> switch (failure.reason()) {
                case ERROR_REASON_RATE_LIMITED, ERROR_REASON_WATCH_LIMIT, ERROR_REASON_WATCHER_STALLED -> true;
                default -> false;
            };
            default -> false;
        };
    }

    RetryPolicy withGiveUpAfter(Duration limit) {
        return new RetryPolicy(heartbeatSlack, backoffBase, Optional.of(limit));
    }

    /** Returns how long a stream may be silent before it counts as broken. */
    Duration silenceMax(Duration heartbeat) {
        return heartbeat.multipliedBy(2).plus(heartbeatSlack);
    }

    boolean givesUpAfter(Duration silence) {
        return giveUpAfter.filter(limit -> silence.compareTo(limit) >= 0).isPresent();
    }

    /**
     * Returns how long to wait before a reconnect.
     *
     * @param failures how many have failed in a row
     * @param asked what the service asks for
     */
    Duration delay(int failures, Optional<Duration> asked, RandomGenerator random) {
        return asked
                .filter(wait -> wait.compareTo(Duration.ZERO) > 0)
                .map(wait -> min(wait, ASKED_MAX))
                .orElseGet(() -> {
                    long doubled = 1L << Math.min(failures, 30);
                    long longest = min(backoffBase.multipliedBy(doubled), BACKOFF_MAX).toNanos();
                    return Duration.ofNanos(random.nextLong(longest + 1));
                });
    }

    static Duration min(Duration a, Duration b) {
        return a.compareTo(b) < 0 ? a : b;
    }
}
